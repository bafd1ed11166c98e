"""Fan-out to watchers: each holds one slot per upload, and the newest snapshot wins.

Watchers are kept by owner, since only the owner may watch: delivering looks at the watchers
of one owner and at nobody else's. A watcher that does not read costs its slots and slows
nobody; when it reads again it gets the newest of each upload, and never misses the last.
"""

from collections.abc import Iterator
from typing import Final

from attrs import define, field

from upload_progress._fanout.broadcast import Broadcaster
from upload_progress._fanout.subscription import Subscription, Topic
from upload_progress._fanout.update import Update
from upload_progress._runtime.auto_reset_event import AutoResetEvent
from upload_progress._runtime.timing_wheel import TimingWheel

__all__ = [
    "HEARTBEAT_SECONDS",
    "Hub",
    "Subscription",
    "Topic",
]

HEARTBEAT_SECONDS: Final = 15.0


@define(eq=False, repr=False)
class Hub:
    """Knows who watches whom, in this process."""

    _by_owner: dict[str, dict[Subscription, None]] = field(factory=dict, init=False)
    _watchers: dict[Subscription, None] = field(factory=dict, init=False)
    _beats: TimingWheel[Subscription] = field(factory=lambda: TimingWheel(0.5), init=False)
    delivered: int = field(default=0, init=False)
    _owners_changed: AutoResetEvent = field(factory=AutoResetEvent, init=False)
    broadcaster: Broadcaster = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Employ a courier, who can do nothing before there is a background."""
        self.broadcaster = Broadcaster(self._recipients)

    def watcher(
        self, *, now: float, capacity: int = 1000, most_waiting: int = 4000
    ) -> Subscription:
        """Return a new watcher that follows nothing yet. Close it.

        Args:
            now: The monotonic time.
            capacity: How many uploads and groups it may follow by name.
            most_waiting: A watcher that leaves more snapshots untaken is closed.
        """
        watcher = Subscription(self, capacity, most_waiting)
        self._watchers[watcher] = None
        self._beats.add(watcher, now + HEARTBEAT_SECONDS)
        return watcher

    def join(self, owner: str, watcher: Subscription) -> None:
        """Deliver the updates of *owner* to *watcher*, too."""
        is_first = owner not in self._by_owner
        self._by_owner.setdefault(owner, {})[watcher] = None
        if is_first:
            self._owners_changed.set()

    def part(self, owner: str, watcher: Subscription) -> None:
        """Deliver nothing more of *owner* to *watcher*."""
        watchers = self._by_owner.get(owner, {})
        watchers.pop(watcher, None)
        if not watchers and self._by_owner.pop(owner, None) is not None:
            self._owners_changed.set()

    def forget(self, watcher: Subscription) -> None:
        """Remove a closed watcher."""
        self._watchers.pop(watcher, None)

    def is_watched(self, owner: str | None) -> bool:
        """Tell whether anybody here watches uploads of *owner*."""
        return owner in self._by_owner

    def owners(self) -> list[str]:
        """Return whose uploads are watched here."""
        return list(self._by_owner)

    async def owners_changed(self) -> None:
        """Return when ``owners`` has changed since the last return; for one task."""
        await self._owners_changed.wait()

    def topics(self) -> set[Topic]:
        """Return the uploads that are watched here by their ids."""
        return {topic for watcher in self._watchers for topic in watcher.uploads}

    def wide_owners(self) -> set[str]:
        """Return of whom a group, or everything, is watched here."""
        return {owner for watcher in self._watchers for owner in watcher.wide_owners}

    def deliver(self, update: Update) -> None:
        """Bring *update* to whoever follows its upload."""
        if any(watcher.express for watcher in self._by_owner.get(update.owner, ())):
            self.broadcaster.add(update)
        else:
            for watcher, _ in self._recipients(update.owner, [update]):
                watcher.offer(update)

    def _recipients(
        self, owner: str, updates: list[Update]
    ) -> Iterator[tuple[Subscription, list[Update]]]:
        """Go through the watchers of *owner*, and what each wants of *updates*."""
        for watcher in list(self._by_owner.get(owner, ())):
            wanted = watcher.wanted(owner, updates)
            if wanted:
                self.delivered += len(wanted)
                yield watcher, wanted

    def beat(self, now: float, limit: int) -> bool:
        """Nudge up to *limit* watchers whose heartbeat is due; return whether more are."""
        nudged = 0
        for watcher in self._beats.take(now, limit):
            nudged += 1
            if not watcher.is_closed:
                watcher.nudge()
                self._beats.add(watcher, now + HEARTBEAT_SECONDS)
        return nudged == limit

    def close(self) -> None:
        """End every watcher: the server stops."""
        self.broadcaster.hand_over()
        for watcher in list(self._watchers):
            watcher.close()

    def __len__(self) -> int:
        """How many watchers there are."""
        return len(self._watchers)
