"""Stores and publishers, and functions that make them from a URL.

Each backend is a package of its own. Only the one that a URL names is imported, so that the drivers
of the others need not be installed.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from attrs import frozen

from upload_progress.backends.memory import MemoryPublisher, MemoryStore
from upload_progress.backends.namespaces import validate_namespace
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventPublisher, SessionStore

__all__ = ["MemoryPublisher", "MemoryStore", "Retention", "publisher_from_url", "store_from_url"]


class _Store(Protocol):
    @classmethod
    def open(cls, url: str, *, retention: Retention | None = None, **name: str) -> SessionStore: ...


class _Publisher(Protocol):
    @classmethod
    def open(cls, url: str, **name: str) -> EventPublisher: ...


@frozen
class _Backend:
    """A class that ``open()`` creates.

    Attributes:
        path: Its module and name.
        parameter: The parameter of ``open()`` that names keys, channels, topics or tables.
        separator: What stands between the words of such a name.
    """

    path: str
    parameter: str
    separator: str = "-"

    def load(self) -> object:
        """Import the class."""
        module, _, name = self.path.partition(":")
        return getattr(import_module(module), name)

    def name(self, namespace: str | None) -> dict[str, str]:
        """Return the argument for *namespace*; none for the default."""
        if namespace is None:
            return {}
        return {self.parameter: validate_namespace(namespace).replace("-", self.separator)}


_MEMORY: Final = "memory"
_REDIS: Final = (
    *("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
    *("valkey", "valkeys", "valkey+sentinel", "valkeys+sentinel"),
    *("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster"),
)
_POSTGRES: Final = ("postgresql", "postgres")
_KAFKA: Final = ("kafka", "kafkas")
_RABBITMQ: Final = ("amqp", "amqps")
_STORES: Final = {
    **dict.fromkeys(_REDIS, _Backend("upload_progress.backends.redis:RedisStore", "prefix")),
    **dict.fromkeys(
        _POSTGRES, _Backend("upload_progress.backends.postgres:PostgresStore", "schema", "_")
    ),
    **dict.fromkeys(_KAFKA, _Backend("upload_progress.backends.kafka:KafkaStore", "topic")),
}
_PUBLISHERS: Final = {
    **dict.fromkeys(_REDIS, _Backend("upload_progress.backends.redis:RedisPublisher", "prefix")),
    **dict.fromkeys(
        _POSTGRES, _Backend("upload_progress.backends.postgres:PostgresPublisher", "prefix", "_")
    ),
    **dict.fromkeys(
        _RABBITMQ, _Backend("upload_progress.backends.rabbitmq:RabbitPublisher", "exchange")
    ),
    **dict.fromkeys(_KAFKA, _Backend("upload_progress.backends.kafka:KafkaPublisher", "topic")),
}


def store_from_url(
    url: str, *, retention: Retention | None = None, namespace: str | None = None
) -> SessionStore:
    """Return the store at *url*; it connects when it is entered or first used.

    >>> store_from_url("memory:", retention=Retention(ended_seconds=60))
    <MemoryStore of 0 uploads>

    Args:
        url: ``memory:``, ``redis://…``, ``postgresql://…`` or ``kafka://…``.
        retention: How long records are kept; by default as in ``Retention()``.
        namespace: What the names of keys or topics begin with, and the name of the schema in
            PostgreSQL, where ``-`` is replaced by ``_``. Default: ``upload-progress``.

    Raises:
        InvalidValue: No store has the scheme of the URL, or the URL or the namespace is not valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return MemoryStore(retention=retention or Retention())
    backend = _backend("store URL", url, _STORES)
    name = backend.name(namespace)
    return cast("type[_Store]", backend.load()).open(url, retention=retention, **name)


def publisher_from_url(url: str, *, namespace: str | None = None) -> EventPublisher | None:
    """Return the publisher at *url*; it connects when it is entered or first used.

    Args:
        url: ``redis://…``, ``postgresql://…``, ``amqp://…`` or ``kafka://…``; ``memory:`` for none.
        namespace: What the names of channels, exchanges or topics begin with; in PostgreSQL, ``-``
            is replaced by ``_``. Default: ``upload-progress``.

    Raises:
        InvalidValue: No publisher has the scheme of the URL, or the URL or the namespace is not
            valid.
        MissingExtra: The driver is not installed.
    """
    if _scheme(url) == _MEMORY:
        return None
    backend = _backend("events URL", url, _PUBLISHERS)
    return cast("type[_Publisher]", backend.load()).open(url, **backend.name(namespace))


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _backend(what: str, url: str, backends: Mapping[str, _Backend]) -> _Backend:
    backend = backends.get(_scheme(url))
    if backend is None:
        known = ", ".join(f"{scheme}:" for scheme in [_MEMORY, *backends])
        # Without the URL, as it may contain a password.
        raise InvalidValue(what, f"must begin with one of {known}")
    return backend
