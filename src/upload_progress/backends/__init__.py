"""From a URL to a store and a publisher; only the driver that it names is imported."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from upload_progress.backends.memory import MemoryPublisher, MemoryStore
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventPublisher, SessionStore

__all__ = [
    "MemoryPublisher",
    "MemoryStore",
    "Retention",
    "publisher_from_url",
    "store_from_url",
]


class _Store(Protocol):
    @classmethod
    def open(cls, url: str, *, retention: Retention | None = None) -> SessionStore: ...


class _Publisher(Protocol):
    @classmethod
    def open(cls, url: str) -> EventPublisher: ...


_MEMORY: Final = "memory"
_REDIS_STORE: Final = "upload_progress.backends.redis.store:RedisStore"
_REDIS_EVENTS: Final = "upload_progress.backends.redis.publisher:RedisPublisher"
_POSTGRES_EVENTS: Final = "upload_progress.backends.postgres.publisher:PostgresPublisher"
_RABBIT_EVENTS: Final = "upload_progress.backends.rabbitmq:RabbitPublisher"
_POSTGRES_STORE: Final = "upload_progress.backends.postgres.store:PostgresStore"
_KAFKA_STORE: Final = "upload_progress.backends.kafka:KafkaStore"
_KAFKA_EVENTS: Final = "upload_progress.backends.kafka.publisher:KafkaPublisher"
_STORES: Final = {
    "redis": _REDIS_STORE,
    "rediss": _REDIS_STORE,
    "unix": _REDIS_STORE,
    "postgresql": _POSTGRES_STORE,
    "postgres": _POSTGRES_STORE,
    "kafka": _KAFKA_STORE,
    "kafkas": _KAFKA_STORE,
}
_PUBLISHERS: Final = {
    "redis": _REDIS_EVENTS,
    "rediss": _REDIS_EVENTS,
    "unix": _REDIS_EVENTS,
    "postgresql": _POSTGRES_EVENTS,
    "postgres": _POSTGRES_EVENTS,
    "amqp": _RABBIT_EVENTS,
    "amqps": _RABBIT_EVENTS,
    "kafka": _KAFKA_EVENTS,
    "kafkas": _KAFKA_EVENTS,
}


def store_from_url(url: str, *, retention: Retention | None = None) -> SessionStore:
    """Return the session store at *url*; nothing connects yet.

    Raises:
        InvalidValue: The URL has an unknown scheme or is not valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return MemoryStore(retention=retention or Retention())
    kind = cast("type[_Store]", _found("store URL", url, _STORES))
    return kind.open(url, retention=retention)


def publisher_from_url(url: str) -> EventPublisher | None:
    """Return the event publisher at *url*, None for ``memory:``; nothing connects yet.

    Raises:
        InvalidValue: The URL has an unknown scheme or is not valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return None
    return cast("type[_Publisher]", _found("events URL", url, _PUBLISHERS)).open(url)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _found(what: str, url: str, table: Mapping[str, str]) -> object:
    path = table.get(_scheme(url))
    if path is None:
        known = ", ".join(f"{scheme}:" for scheme in [_MEMORY, *table])
        # Not the URL itself: there may be a password in it.
        raise InvalidValue(what, f"must begin with one of {known}")
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


# FROM stores: Where sessions are kept. A process on its own needs none but ``MemoryStore``.


# FROM publishers: Where events go.
