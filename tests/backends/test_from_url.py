"""``store_from_url`` and ``publisher_from_url``, through ``ProgressTracker.from_url``."""

from __future__ import annotations

import pytest

from upload_progress import InvalidValue, MemoryStore, ProgressTracker, Retention
from upload_progress.backends.kafka import KafkaStore
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore

REDIS = "redis://user:secret@127.0.0.1:1/0"


def test_memory_url_gives_memory_store_without_publisher() -> None:
    tracker = ProgressTracker.from_url("memory:", mount_path="/there", retention=Retention(5.0))

    assert isinstance(tracker.store, MemoryStore)
    assert tracker.store.retention.ended_seconds == 5.0
    assert tracker.publisher is None
    assert tracker.mount_path == "/there"


@pytest.mark.parametrize("url", [REDIS, "rediss://127.0.0.1", "unix:///nowhere.sock"])
def test_redis_url_gives_store_and_publisher(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(tracker.store, RedisStore)
    assert tracker.store.retention.ended_seconds == 5.0
    assert isinstance(tracker.publisher, RedisPublisher)
    assert [tracker.subscriber, tracker.transport] == [tracker.publisher] * 2
    assert "secret" not in repr(tracker)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_url_gives_store(scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:1/there"
    tracker = ProgressTracker.from_url(
        url, events="memory:", retention=Retention(ended_seconds=5.0)
    )

    assert isinstance(tracker.store, PostgresStore)
    assert tracker.store.retention.ended_seconds == 5.0
    assert "secret" not in repr(tracker) + repr(tracker.store) + repr(tracker.store.client)


@pytest.mark.parametrize("url", ["kafka://user:secret@127.0.0.1:1", "kafkas://127.0.0.1"])
def test_kafka_url_gives_store_and_publisher(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(tracker.store, KafkaStore)
    assert tracker.store.retention.ended_seconds == 5.0
    assert isinstance(tracker.publisher, KafkaPublisher)
    assert "secret" not in repr(tracker)


def test_events_url_may_name_another_backend() -> None:
    tracker = ProgressTracker.from_url("memory:", events=REDIS)

    assert isinstance(tracker.store, MemoryStore)
    assert isinstance(tracker.publisher, RedisPublisher)
    assert ProgressTracker.from_url(REDIS, events="memory:").publisher is None


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ("postgresql://u:secret@127.0.0.1/d", "PostgresPublisher"),
        ("postgres://127.0.0.1", "PostgresPublisher"),
        ("amqp://u:secret@127.0.0.1", "RabbitPublisher"),
        ("amqps://127.0.0.1", "RabbitPublisher"),
        ("kafka://u:secret@127.0.0.1", "KafkaPublisher"),
        ("kafkas://127.0.0.1", "KafkaPublisher"),
    ],
)
def test_scheme_decides_publisher(events: str, kind: str) -> None:
    publisher = ProgressTracker.from_url("memory:", events=events).publisher

    assert type(publisher).__name__ == kind
    assert "secret" not in repr(publisher)


@pytest.mark.parametrize(
    ("url", "events", "problem"),
    [
        ("mysql://u:secret@h", None, r"store URL: must begin with one of memory:, redis:"),
        ("memory:", "mqtt://u:secret@h", r"events URL: must begin with one of memory:, redis:"),
        ("redis://h:port", None, "is not a valid Redis URL"),
        ("postgresql://u:secret@[h/d", "memory:", "is not a valid PostgreSQL URL"),
    ],
)
def test_unknown_scheme_and_invalid_url_are_rejected(
    url: str, events: str | None, problem: str
) -> None:
    with pytest.raises(InvalidValue, match=problem) as caught:
        ProgressTracker.from_url(url, events=events)
    assert "secret" not in str(caught.value)
