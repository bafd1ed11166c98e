"""A bounded queue that serves owners in turn, however many items each of them has."""

from collections import Counter
from typing import Final, Generic, TypeVar

from attrs import define, field

from upload_progress.exceptions import StoreBusy

__all__ = ["MAX_WAITING", "MAX_WAITING_PER_OWNER", "FairQueue"]

H = TypeVar("H")

MAX_WAITING: Final = 10_000
MAX_WAITING_PER_OWNER: Final = 2000


@define(eq=False, repr=False)
class FairQueue(Generic[H]):
    """A bounded queue of the items of many owners, which takes one of each owner in turn.

    >>> queue = FairQueue()
    >>> for owner, item in [("ann", 1), ("ann", 2), ("bob", 3)]:
    ...     queue.put(owner, item)
    >>> [queue.take(), queue.take(), queue.take(), queue.take()]
    [1, 3, 2, None]

    Args:
        max_items: How many items may wait.
        max_per_owner: How many items of one owner may wait.
    """

    max_items: float = MAX_WAITING
    max_per_owner: float = MAX_WAITING_PER_OWNER
    _items: dict[str, dict[H, None]] = field(factory=dict, init=False)
    _turns: dict[str, None] = field(factory=dict, init=False)
    _held: set[str] = field(factory=set, init=False)
    _size: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return the number of items."""
        return self._size

    def __contains__(self, owner: str) -> bool:
        """Return whether there are items of *owner*."""
        return owner in self._items

    @property
    def owners(self) -> int:
        """The number of owners whose items may be taken."""
        return len(self._turns)

    def put(self, owner: str, item: H) -> None:
        """Add an item at the end of the queue of *owner*.

        Raises:
            StoreBusy: There are too many items, of *owner* or in total.
        """
        own = self._items.get(owner, {})
        if self._size >= self.max_items or len(own) >= self.max_per_owner:
            raise StoreBusy
        own[item] = None
        self._items[owner] = own
        self._size += 1
        if owner not in self._held:
            self._turns.setdefault(owner)

    def take(self) -> H | None:
        """Remove and return the first item of the owner whose turn it is; None without items."""
        if not self._turns:
            return None
        owner = next(iter(self._turns))
        del self._turns[owner]
        item = next(iter(self._items[owner]))
        self.discard(owner, item)
        if owner in self._items:
            self._turns[owner] = None
        return item

    def take_several(self, limit: int, *, per_owner: int) -> list[H]:
        """Remove and return up to *limit* items, of which up to *per_owner* of each owner."""
        items: list[H] = []
        taken: Counter[str] = Counter()
        while len(items) < limit and (item := self._next_of(taken, per_owner)) is not None:
            items.append(item)
        return items

    def _next_of(self, taken: Counter[str], per_owner: int) -> H | None:
        owner = next(iter(self._turns), "")
        if taken[owner] >= per_owner:
            return None  # as all others have had their turns
        taken[owner] += 1
        return self.take()

    def discard(self, owner: str, item: H) -> None:
        """Remove an item, if it is in the queue."""
        own = self._items.get(owner, {})
        if item in own:
            del own[item]
            self._size -= 1
            if not own:
                del self._items[owner]
                self._turns.pop(owner, None)

    def hold(self, owner: str) -> None:
        """Take no items of *owner* until ``resume`` is called."""
        self._held.add(owner)
        self._turns.pop(owner, None)

    def resume(self, owner: str) -> None:
        """Take items of *owner* again, after those of all others."""
        self._held.discard(owner)
        if owner in self._items:
            self._turns.setdefault(owner)
