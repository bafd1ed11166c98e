"""Stores and publishers, and functions that make them from a URL.

Each backend is a package of its own. Only the one that a URL names is imported, so that the drivers
of the others need not be installed.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from upload_progress.backends.memory import MemoryPublisher, MemoryStore
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventPublisher, SessionStore

__all__ = ["MemoryPublisher", "MemoryStore", "Retention", "publisher_from_url", "store_from_url"]


class _Store(Protocol):
    @classmethod
    def open(cls, url: str, *, retention: Retention | None = None) -> SessionStore: ...


class _Publisher(Protocol):
    @classmethod
    def open(cls, url: str) -> EventPublisher: ...


_MEMORY: Final = "memory"
_REDIS: Final = ("redis", "rediss", "unix")
_POSTGRES: Final = ("postgresql", "postgres")
_KAFKA: Final = ("kafka", "kafkas")
_RABBITMQ: Final = ("amqp", "amqps")
_STORES: Final = {
    **dict.fromkeys(_REDIS, "upload_progress.backends.redis:RedisStore"),
    **dict.fromkeys(_POSTGRES, "upload_progress.backends.postgres:PostgresStore"),
    **dict.fromkeys(_KAFKA, "upload_progress.backends.kafka:KafkaStore"),
}
_PUBLISHERS: Final = {
    **dict.fromkeys(_REDIS, "upload_progress.backends.redis:RedisPublisher"),
    **dict.fromkeys(_POSTGRES, "upload_progress.backends.postgres:PostgresPublisher"),
    **dict.fromkeys(_RABBITMQ, "upload_progress.backends.rabbitmq:RabbitPublisher"),
    **dict.fromkeys(_KAFKA, "upload_progress.backends.kafka:KafkaPublisher"),
}


def store_from_url(url: str, *, retention: Retention | None = None) -> SessionStore:
    """Return the store at *url*; it connects when it is entered or first used.

    >>> store_from_url("memory:", retention=Retention(ended_seconds=60))
    <MemoryStore of 0 uploads>

    Args:
        url: ``memory:``, ``redis://…``, ``postgresql://…`` or ``kafka://…``.
        retention: How long records are kept; by default as in ``Retention()``.

    Raises:
        InvalidValue: No store has the scheme of the URL, or the URL is not valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return MemoryStore(retention=retention or Retention())
    cls = cast("type[_Store]", _import_class("store URL", url, _STORES))
    return cls.open(url, retention=retention)


def publisher_from_url(url: str) -> EventPublisher | None:
    """Return the publisher at *url*; it connects when it is entered or first used.

    Args:
        url: ``redis://…``, ``postgresql://…``, ``amqp://…`` or ``kafka://…``; ``memory:`` for none.

    Raises:
        InvalidValue: No publisher has the scheme of the URL, or the URL is not valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return None
    cls = cast("type[_Publisher]", _import_class("events URL", url, _PUBLISHERS))
    return cls.open(url)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _import_class(what: str, url: str, paths: Mapping[str, str]) -> object:
    path = paths.get(_scheme(url))
    if path is None:
        known = ", ".join(f"{scheme}:" for scheme in [_MEMORY, *paths])
        # Without the URL, as it may contain a password.
        raise InvalidValue(what, f"must begin with one of {known}")
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
