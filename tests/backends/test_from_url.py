"""``store_from_url`` and ``publisher_from_url``, through ``ProgressTracker.from_url``."""

from __future__ import annotations

from typing import Any

import pytest

from upload_progress import InvalidValue, MemoryStore, ProgressTracker, Retention
from upload_progress._internals import internals_of
from upload_progress.backends.kafka import KafkaStore
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore
from upload_progress.interfaces import EventPublisher

REDIS = "redis://user:secret@127.0.0.1:1/0"


def store_of(tracker: ProgressTracker) -> Any:  # noqa: ANN401  # its attributes depend on its class
    return internals_of(tracker).flusher.loader.parts.store


def publisher_of(tracker: ProgressTracker) -> EventPublisher | None:
    return internals_of(tracker).flusher.outbox.publisher


def test_memory_url_gives_memory_store_without_publisher() -> None:
    tracker = ProgressTracker.from_url("memory:", mount_path="/there", retention=Retention(5.0))

    assert isinstance(store_of(tracker), MemoryStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert publisher_of(tracker) is None
    assert tracker.config.mount_path == "/there"


@pytest.mark.parametrize("url", [REDIS, "rediss://127.0.0.1", "unix:///nowhere.sock"])
def test_redis_url_gives_store_and_publisher(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(store_of(tracker), RedisStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert isinstance(publisher_of(tracker), RedisPublisher)
    internals = internals_of(tracker)
    parts: set[object] = {internals.follower.subscriber, internals.rpc.transport}
    assert parts == {publisher_of(tracker)}
    assert "secret" not in repr(tracker)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_url_gives_store(scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:1/there"
    tracker = ProgressTracker.from_url(
        url, events="memory:", retention=Retention(ended_seconds=5.0)
    )

    assert isinstance(store_of(tracker), PostgresStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert "secret" not in repr(tracker) + repr(store_of(tracker)) + repr(store_of(tracker).client)


@pytest.mark.parametrize("url", ["kafka://user:secret@127.0.0.1:1", "kafkas://127.0.0.1"])
def test_kafka_url_gives_store_and_publisher(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(store_of(tracker), KafkaStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert isinstance(publisher_of(tracker), KafkaPublisher)
    assert "secret" not in repr(tracker)


def test_events_url_may_name_another_backend() -> None:
    tracker = ProgressTracker.from_url("memory:", events=REDIS)

    assert isinstance(store_of(tracker), MemoryStore)
    assert isinstance(publisher_of(tracker), RedisPublisher)
    assert publisher_of(ProgressTracker.from_url(REDIS, events="memory:")) is None


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
    publisher = publisher_of(ProgressTracker.from_url("memory:", events=events))

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
