"""Namespaces: what separates systems that share a server or broker.

The namespace is part of the name of every key, channel, topic, exchange, queue and schema that
``from_url`` chooses, of every event, and of every message between workers.

This module does no I/O.
"""

import re
from typing import Final, Protocol, runtime_checkable

from upload_progress._model.cloudevents import DEFAULT_NAMESPACE
from upload_progress.exceptions import InvalidValue

__all__ = [
    "MAX_NAMESPACE_CHARACTERS",
    "HasNamespace",
    "namespace_of",
    "validate_namespace",
]

MAX_NAMESPACE_CHARACTERS: Final = 31
"""A channel of PostgreSQL has at most 63 bytes; ``:messages:`` and a hash take 32."""

# The characters that every backend accepts in names, after - is replaced by _ for PostgreSQL. A
# number after a period is that of a Redis database. Kafka's topics have the endings.
_NAMESPACE: Final = re.compile(r"[a-z][a-z0-9-]*(?<!-events)(?<!-messages)(\.[0-9]+)?", re.ASCII)


@runtime_checkable
class HasNamespace(Protocol):
    """A store whose names belong to one namespace."""

    @property
    def namespace(self) -> str:
        """What separates the records of this store from those of others on the same server."""


def namespace_of(store: object) -> str:
    """Return the namespace of *store*, or the default for a store that has none."""
    return store.namespace if isinstance(store, HasNamespace) else DEFAULT_NAMESPACE


def validate_namespace(name: str) -> str:
    """Return *name*, if every backend accepts it.

    >>> validate_namespace("shop")
    'shop'

    Raises:
        InvalidValue: It is not valid.
    """
    if _NAMESPACE.fullmatch(name) is None or len(name) > MAX_NAMESPACE_CHARACTERS:
        raise InvalidValue(
            "namespace",
            f"must have 1 to {MAX_NAMESPACE_CHARACTERS} of a-z 0-9 -, begin with a letter, and not "
            f"end with -events or -messages; it is {name!r}",
        )
    return name
