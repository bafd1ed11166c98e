"""From a URL to a tracker."""

from __future__ import annotations

from typing import Any

import pytest

from upload_progress import InvalidValue, MemoryStore, ProgressTracker, Retention
from upload_progress.backends.kafka import KafkaStore
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.store import PostgresStore
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore
from upload_progress.interfaces import EventPublisher
from upload_progress.tracker import internals_of

REDIS = "redis://user:secret@127.0.0.1:1/0"


def store_of(tracker: ProgressTracker) -> Any:  # its attributes depend on its class
    return internals_of(tracker).flusher.loader.store


def publisher_of(tracker: ProgressTracker) -> EventPublisher | None:
    return internals_of(tracker).flusher.outbox.publisher


def test_memory_is_a_place_like_others() -> None:
    tracker = ProgressTracker.from_url("memory:", mount_path="/there", retention=Retention(5.0))

    assert isinstance(store_of(tracker), MemoryStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert publisher_of(tracker) is None
    assert tracker.config.mount_path == "/there"


@pytest.mark.parametrize("url", [REDIS, "rediss://127.0.0.1", "unix:///nowhere.sock"])
def test_redis_is_store_and_broker_at_once(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(store_of(tracker), RedisStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert isinstance(publisher_of(tracker), RedisPublisher)
    internals = internals_of(tracker)
    assert internals.follower.feed is internals.rpc.post is publisher_of(tracker)
    assert "secret" not in repr(tracker)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_is_a_store(scheme: str) -> None:
    url = f"{scheme}://user:secret@127.0.0.1:1/there"
    tracker = ProgressTracker.from_url(
        url, events="memory:", retention=Retention(ended_seconds=5.0)
    )

    assert isinstance(store_of(tracker), PostgresStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert "secret" not in repr(tracker) + repr(store_of(tracker)) + repr(store_of(tracker).client)


@pytest.mark.parametrize("url", ["kafka://user:secret@127.0.0.1:1", "kafkas://127.0.0.1"])
def test_kafka_is_store_and_broker_at_once(url: str) -> None:
    tracker = ProgressTracker.from_url(url, retention=Retention(ended_seconds=5.0))

    assert isinstance(store_of(tracker), KafkaStore)
    assert store_of(tracker).retention.ended_seconds == 5.0
    assert isinstance(publisher_of(tracker), KafkaPublisher)
    assert "secret" not in repr(tracker)


def test_store_and_broker_may_be_different() -> None:
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
def test_each_broker_has_a_scheme(events: str, kind: str) -> None:
    publisher = publisher_of(ProgressTracker.from_url("memory:", events=events))

    assert type(publisher).__name__ == kind
    assert "secret" not in repr(publisher)


@pytest.mark.parametrize(
    ("url", "events", "said"),
    [
        ("mysql://u:secret@h", None, r"store URL: must begin with one of memory:, redis:"),
        ("memory:", "mqtt://u:secret@h", r"events URL: must begin with one of memory:, redis:"),
        ("redis://h:port", None, "is not a valid Redis URL"),
        ("postgresql://u:secret@[h/d", "memory:", "is not a valid PostgreSQL URL"),
    ],
)
def test_what_is_for_nothing_here_is_refused(url: str, events: str | None, said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as caught:
        ProgressTracker.from_url(url, events=events)
    assert "secret" not in str(caught.value)
