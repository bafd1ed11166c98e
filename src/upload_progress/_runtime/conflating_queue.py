"""A bounded queue that keeps only the newest item of each key."""

from collections.abc import AsyncIterator, Hashable
from typing import Generic, TypeVar

import anyio
from attrs import define, field

__all__ = ["ConflatingQueue"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@define(eq=False, repr=False)
class ConflatingQueue(AsyncIterator[T], Generic[K, T]):
    """Yields the newest item of each key to one task.

    A consumer that is slow misses versions, never the newest one, and the memory that it costs is
    bounded. Items are taken in the order in which their keys came.

    Args:
        capacity: The number of keys. One more displaces the oldest.
    """

    capacity: int
    _items: dict[K, T] = field(factory=dict, init=False)
    _urgent: T | None = field(default=None, init=False)
    _has_items: anyio.Event = field(factory=anyio.Event, init=False)

    def __len__(self) -> int:
        """How many items wait, without an urgent one."""
        return len(self._items)

    def put(self, key: K, item: T) -> bool:
        """Keep *item* in place of the item with the same key.

        Returns:
            Whether there was room. If not, the oldest item is gone.
        """
        self._items[key] = item
        self._has_items.set()
        if len(self._items) <= self.capacity:
            return True
        del self._items[next(iter(self._items))]
        return False

    def put_urgent(self, item: T) -> None:
        """Let *item* be taken before all others, in place of the urgent item that waits."""
        self._urgent = item
        self._has_items.set()

    def peek(self, key: K) -> T | None:
        """Return the item of *key* without taking it."""
        return self._items.get(key)

    async def __anext__(self) -> T:
        """Wait for an item, and take the oldest."""
        while self._urgent is None and not self._items:
            self._has_items = anyio.Event()
            await self._has_items.wait()
        if self._urgent is not None:
            item, self._urgent = self._urgent, None
            return item
        return self._items.pop(next(iter(self._items)))
