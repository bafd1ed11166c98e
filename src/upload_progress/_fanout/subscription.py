"""One who follows uploads: a slot for each, in which the newest snapshot wins."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

import anyio
from attrs import define, field

from upload_progress._fanout.update import SnapshotVersion, Update
from upload_progress.exceptions import QuotaExceeded

__all__ = [
    "Host",
    "Topic",
    "Subscription",
]

Topic = tuple[str, str]
"""An owner, and an upload id or a group."""


class Host(Protocol):
    """Where a watcher is known: the hub."""

    def join(self, owner: str, watcher: "Subscription") -> None:
        """Deliver the updates of *owner* to *watcher*, too."""

    def part(self, owner: str, watcher: "Subscription") -> None:
        """Deliver nothing more of *owner* to *watcher*."""

    def forget(self, watcher: "Subscription") -> None:
        """Remove a closed watcher."""


@define(eq=False, repr=False)
class Subscription:
    """Follows any number of uploads, groups, or everything of an owner.

    Attributes:
        is_closed: Whether nothing more will come, because the server drains its watchers.
        express: Sends updates on. While ``ready`` waits, they may be handed to it, instead
            of waking whoever waits: see ``courier``.
    """

    _hub: Host
    _capacity: int
    _most_waiting: int
    is_closed: bool = False
    express: Callable[[list[Update]], Awaitable[None]] | None = field(default=None, init=False)
    _uploads: set[Topic] = field(factory=set, init=False)
    _groups: set[Topic] = field(factory=set, init=False)
    _owners: set[str] = field(factory=set, init=False)
    _slots: dict[Topic, Update] = field(factory=dict, init=False)
    _seen: dict[Topic, SnapshotVersion] = field(factory=dict, init=False)
    _woken: anyio.Event | None = field(default=None, init=False)
    _is_nudged: bool = field(default=False, init=False)
    _readers: int = field(default=0, init=False)
    _courier: anyio.CancelScope | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)

    def follow(self, owner: str, upload_id: str) -> None:
        """Follow one upload; to follow it twice is to follow it once.

        Raises:
            QuotaExceeded: This watcher follows as many as it may.
        """
        self._join(self._uploads, (owner, upload_id))

    def follow_group(self, owner: str, group: str) -> None:
        """Follow the uploads of a group, also those to come."""
        self._join(self._groups, (owner, group))

    def follow_all(self, owner: str) -> None:
        """Follow every upload of *owner*, also those to come."""
        self._owners.add(owner)
        self._hub.join(owner, self)

    def _join(self, topics: set[Topic], topic: Topic) -> None:
        full = len(self._uploads) + len(self._groups) >= self._capacity
        if full and topic not in topics:
            raise QuotaExceeded("subscriptions_per_socket", self._capacity)
        topics.add(topic)
        self._hub.join(topic[0], self)

    def leave(self, owner: str, upload_id: str) -> bool:
        """Follow that upload no longer; return whether it was followed by its id.

        Who follows it again is shown again what there is.
        """
        topic = (owner, upload_id)
        known = topic in self._uploads
        self._uploads.discard(topic)
        self._slots.pop(topic, None)
        self._seen.pop(topic, None)
        self._part({owner})
        return known

    def leave_group(self, owner: str, group: str) -> bool:
        """Follow that group no longer; return whether it was followed."""
        known = (owner, group) in self._groups
        self._groups.discard((owner, group))
        self._seen.clear()
        self._part({owner})
        return known

    def leave_all(self) -> list[str]:
        """Follow nothing any longer; return the ids that were followed by their id."""
        left = [upload_id for _, upload_id in self._uploads]
        owners = {owner for owner, _ in self._uploads | self._groups} | self._owners
        for topics in (self._uploads, self._groups, self._owners, self._slots, self._seen):
            topics.clear()
        self._part(owners)
        return left

    def _part(self, owners: Iterable[str]) -> None:
        wanted = {owner for owner, _ in self._uploads | self._groups} | self._owners
        for owner in owners:
            if owner not in wanted:
                self._hub.part(owner, self)

    def wanted(self, owner: str, updates: list[Update]) -> list[Update]:
        """Return those of some updates of *owner* that are of something that is followed."""
        return updates if owner in self._owners else list(filter(self.wants, updates))

    def wants(self, update: Update) -> bool:
        """Tell whether *update* is of something that is followed."""
        return (
            update.owner in self._owners
            or update.topic in self._uploads
            or (update.owner, update.progress.group) in self._groups
        )

    def offer(self, update: Update) -> None:
        """Put *update* into its slot, unless something newer is there or was taken."""
        if not self._is_news(update):
            return
        waiting = self._slots.get(update.topic)
        if waiting is None or waiting.mark.is_before(update.mark):
            self._slots[update.topic] = update
            self.wake()
        if len(self._slots) > self._most_waiting:
            self._give_up()

    def _is_news(self, update: Update) -> bool:
        seen = self._seen.get(update.topic)
        return seen is None or seen.is_before(update.mark)

    def _give_up(self) -> None:
        """End a watcher that reads too slowly: it comes back, and reads where things stand."""
        self.close()
        self._slots.clear()

    def wake(self) -> None:
        """Let ``ready`` return."""
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.set()

    def nudge(self) -> None:
        """Let ``ready`` return even without news, for a heartbeat."""
        self._is_nudged = True
        self.wake()

    @property
    def is_ready(self) -> bool:
        """Whether there is something to take, or it is time to beat, or all is over."""
        return self._courier is None and (
            bool(self._slots) or self._is_nudged or self.is_closed or self._failure is not None
        )

    async def ready(self) -> None:
        """Wait until ``is_ready``; what is there stays there."""
        self._readers += 1
        try:
            while not self.is_ready:
                if self._woken is None:
                    self._woken = anyio.Event()
                await self._woken.wait()
        finally:
            self._readers -= 1
            if self._courier is not None:
                self._courier.cancel()

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for news only to send them on, and has none."""
        return (
            self._readers > 0
            and self._woken is not None
            and self.express is not None
            and self._courier is None
        )

    async def send_for(self, updates: list[Update], scope: anyio.CancelScope) -> None:
        """Send *updates* for whoever waits in ``ready``, who cancels *scope* when leaving."""
        news = updates if len(updates) == 1 else list(filter(self._is_news, updates))
        if self.express is None or not news or not self._is_news(news[0]):
            return
        self._courier = scope
        for update in news:
            self._remember(update)
        try:
            await self.express(news)
        except Exception as error:  # noqa: BLE001  # raised where somebody waits
            self._failure = error
        finally:
            self._courier = None
            if self._slots or self._is_nudged or self.is_closed or self._failure is not None:
                self.wake()

    def take(self) -> list[Update]:
        """Return the newest of each upload; nothing when it is time to beat.

        Raises:
            Exception: Whatever ``express`` raised.
        """
        if self._failure is not None:
            raise self._failure
        self._is_nudged = False
        taken = list(self._slots.values())
        self._slots.clear()
        for update in taken:
            self._remember(update)
        return taken

    def _remember(self, update: Update) -> None:
        self._seen.pop(update.topic, None)
        self._seen[update.topic] = update.mark
        if len(self._seen) > 2 * self._capacity:
            del self._seen[next(iter(self._seen))]

    @property
    def uploads(self) -> Collection[Topic]:
        """What is followed by its id."""
        return self._uploads

    @property
    def wide_owners(self) -> Collection[str]:
        """Of whom a group, or everything, is followed."""
        return {*self._owners, *(owner for owner, _ in self._groups)}

    @property
    def topics(self) -> int:
        """How many uploads and groups are followed by name."""
        return len(self._uploads) + len(self._groups)

    def close(self) -> None:
        """Leave everything; what waits to be taken stays, and a waiting ``ready`` returns."""
        waiting = dict(self._slots)
        self.leave_all()
        self._slots = waiting
        self.is_closed = True
        self._hub.forget(self)
        self.wake()
