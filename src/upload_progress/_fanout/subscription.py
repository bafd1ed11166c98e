"""In-process subscriptions: one slot per upload, in which the newest snapshot wins.

Subscriptions are indexed by owner, because only the owner, and operators, may watch an upload:
delivering an update looks at the subscriptions of its owner, and at those of operators to
everything. A subscription that is not read costs its slots and delays no other; when it is read
again, it returns the newest snapshot of each upload, and always the last one.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

import anyio
from attrs import define, field

from upload_progress._fanout.update import SnapshotVersion, Topic, Update
from upload_progress._runtime.auto_reset_event import AutoResetEvent, LoopEvent
from upload_progress._runtime.timing_wheel import TimingWheel
from upload_progress.exceptions import QuotaExceeded
from upload_progress.interfaces import ALL_OWNERS

__all__ = ["HEARTBEAT_SECONDS", "DirectSender", "Subscription", "SubscriptionIndex", "Transport"]

HEARTBEAT_SECONDS: Final = 15.0


@unique
class Transport(StrEnum):
    """How the updates of a subscription are sent."""

    WEBSOCKET = "websocket"
    EVENT_STREAM = "event_stream"
    LONG_POLL = "long_poll"
    ITERATOR = "iterator"
    """To the code of the application: ``tracker.watch()``."""


DirectSender = Callable[[list[Update]], Awaitable[None]]
"""Sends updates to a socket or stream."""


@define(eq=False, repr=False)
class SubscriptionIndex:
    """All subscriptions of this process, by owner.

    Attributes:
        owners_changed: Set whenever the set of owners changes.
    """

    _by_owner: dict[str | None, dict["Subscription", None]] = field(factory=dict, init=False)
    _all: dict["Subscription", None] = field(factory=dict, init=False)
    _watched: Counter[tuple[str, ...]] = field(factory=Counter, init=False)
    _heartbeats: TimingWheel["Subscription"] = field(factory=lambda: TimingWheel(0.5), init=False)
    owners_changed: AutoResetEvent = field(factory=AutoResetEvent, init=False)

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._all)

    def open(self, subscription: "Subscription", *, now: float) -> None:
        """Add *subscription*, whose first heartbeat is due 15 s after *now* (monotonic seconds)."""
        self._all[subscription] = None
        self._heartbeats.add(subscription, now + HEARTBEAT_SECONDS)

    def close(self, subscription: "Subscription") -> None:
        """Remove a closed subscription."""
        self._all.pop(subscription, None)

    def add_owner(self, owner: str | None, subscription: "Subscription") -> None:
        """Deliver the updates of *owner*, or of all owners, to *subscription*."""
        if owner not in self._by_owner:
            self._by_owner[owner] = {}
            self.owners_changed.set()
        self._by_owner[owner][subscription] = None

    def remove_owner(self, owner: str | None, subscription: "Subscription") -> None:
        """Stop to deliver the updates of *owner*, or of all owners, to *subscription*."""
        subscriptions = self._by_owner.get(owner, {})
        subscriptions.pop(subscription, None)
        if not subscriptions and self._by_owner.pop(owner, None) is not None:
            self.owners_changed.set()

    def of_owner(self, owner: str) -> "Collection[Subscription]":
        """Return the subscriptions to which updates of *owner* are delivered."""
        own, all_owners = self._by_owner.get(owner, {}), self._by_owner.get(ALL_OWNERS)
        return own if all_owners is None else {**own, **all_owners}

    def has_owner(self, owner: str | None) -> bool:
        """Return whether a subscription receives updates of *owner*; None without an owner."""
        return owner is not None and (owner in self._by_owner or ALL_OWNERS in self._by_owner)

    def count(self, *topics: tuple[str, ...]) -> None:
        """Count one more subscription to each of *topics*."""
        self._watched.update(topics)

    def uncount(self, *topics: tuple[str, ...]) -> None:
        """Count one subscription less to each of *topics*."""
        for topic in topics:
            self._watched[topic] -= 1
            if not self._watched[topic]:
                del self._watched[topic]

    def is_watched(self, owner: str | None, upload_id: str, group: str | None) -> bool:
        """Return whether a subscription matches this upload; in constant time."""
        if owner is None or owner not in self._by_owner:
            return False
        watched = self._watched
        return (
            _every_upload(owner) in watched
            or _one_upload((owner, upload_id)) in watched
            or (group is not None and _one_group((owner, group)) in watched)
        )

    def owners(self) -> list[str | None]:
        """Return the owners whose updates are delivered to a subscription, or ``ALL_OWNERS``."""
        return list(self._by_owner)

    def everything(self) -> "list[Subscription]":
        """Return all subscriptions."""
        return list(self._all)

    def wake_for_heartbeats(self, now: float, limit: int) -> bool:
        """Wake up to *limit* subscriptions whose heartbeat is due.

        Returns:
            Whether more may be due.
        """
        woken = 0
        for subscription in self._heartbeats.take(now, limit):
            woken += 1
            if not subscription.is_closed:
                subscription.wake_for_heartbeat()
                self._heartbeats.add(subscription, now + HEARTBEAT_SECONDS)
        return woken == limit


def _every_upload(owner: str | None) -> tuple[str, ...]:
    """Return what is counted; looking at all owners makes no report more frequent."""
    return () if owner is ALL_OWNERS else (owner,)


def _one_upload(topic: Topic) -> tuple[str, ...]:
    return topic


def _one_group(topic: Topic) -> tuple[str, ...]:
    return (*topic, "group")


@define(eq=False, repr=False)
class Subscription:
    """Receives the updates of any number of uploads, groups and owners. Close it after use.

    Args:
        index: The index in which this subscription registers its owners.
        capacity: How many uploads and groups it may name.
        max_pending: A subscription with more unread snapshots is closed; its client reconnects.
        transport: How its updates are sent.

    Attributes:
        shows_owner: Whether its snapshots tell whose upload it is, because an operator watches.
        is_closed: Whether no more updates follow.
    """

    _index: SubscriptionIndex
    _capacity: int
    _max_pending: int
    transport: Transport = Transport.ITERATOR
    shows_owner: bool = field(default=False, init=False)
    is_closed: bool = field(default=False, init=False)
    _uploads: set[Topic] = field(factory=set, init=False)
    _groups: set[Topic] = field(factory=set, init=False)
    _owners: set[str | None] = field(factory=set, init=False)
    _slots: dict[Topic, Update] = field(factory=dict, init=False)
    _delivered: dict[Topic, SnapshotVersion] = field(factory=dict, init=False)
    _forgotten_until: datetime | None = field(default=None, init=False)
    _woken: LoopEvent | None = field(default=None, init=False)
    _heartbeat_due: bool = field(default=False, init=False)
    _direct_sender: DirectSender | None = field(default=None, init=False)
    _send_scope: anyio.CancelScope | None = field(default=None, init=False)
    _failure: Exception | None = field(default=None, init=False)

    # What is subscribed to

    def add_upload(self, owner: str, upload_id: str) -> None:
        """Subscribe to one upload; a second call changes nothing.

        Raises:
            QuotaExceeded: The subscription names as many uploads and groups as it may.
        """
        topic = (owner, upload_id)
        self._add(self._uploads, topic, _one_upload(topic))

    def add_group(self, owner: str, group: str) -> None:
        """Subscribe to the uploads of a group, also to future ones.

        Raises:
            QuotaExceeded: The subscription names as many uploads and groups as it may.
        """
        topic = (owner, group)
        self._add(self._groups, topic, _one_group(topic))

    def add_owner(self, owner: str | None) -> None:
        """Subscribe to every upload of *owner*, or of all owners, also to future ones."""
        if owner not in self._owners:
            self._index.count(_every_upload(owner))
        self._owners.add(owner)
        self._index.add_owner(owner, self)

    def _add(self, topics: set[Topic], topic: Topic, counted: tuple[str, ...]) -> None:
        if topic in topics:
            return
        if self.topics >= self._capacity:
            raise QuotaExceeded("subscriptions_per_socket", self._capacity)
        topics.add(topic)
        self._index.count(counted)
        self._index.add_owner(topic[0], self)

    def remove_upload(self, owner: str, upload_id: str) -> bool:
        """Unsubscribe from one upload; a later subscription shows its snapshot again.

        Returns:
            Whether the upload was subscribed to by its id.
        """
        topic = (owner, upload_id)
        was_subscribed = topic in self._uploads
        if was_subscribed:
            self._index.uncount(_one_upload(topic))
        self._uploads.discard(topic)
        self._slots.pop(topic, None)
        self._delivered.pop(topic, None)
        self._remove_owners({owner})
        return was_subscribed

    def remove_group(self, owner: str, group: str) -> bool:
        """Unsubscribe from a group; return whether it was subscribed to."""
        topic = (owner, group)
        was_subscribed = topic in self._groups
        if was_subscribed:
            self._index.uncount(_one_group(topic))
        self._groups.discard(topic)
        self._remove_owners({owner})
        return was_subscribed

    def remove_all(self) -> list[str]:
        """Unsubscribe from everything; return the ids that were subscribed to by id."""
        upload_ids = [upload_id for _, upload_id in self._uploads]
        owners = {owner for owner, _ in self._uploads | self._groups} | self._owners
        self._index.uncount(
            *map(_one_upload, self._uploads),
            *map(_one_group, self._groups),
            *map(_every_upload, self._owners),
        )
        for topics in (self._uploads, self._groups, self._owners, self._slots):
            topics.clear()
        self._remove_owners(owners)
        return upload_ids

    def _remove_owners(self, owners: Iterable[str | None]) -> None:
        still_wanted = {owner for owner, _ in self._uploads | self._groups} | self._owners
        for owner in owners:
            if owner not in still_wanted:
                self._index.remove_owner(owner, self)

    @property
    def uploads(self) -> Collection[Topic]:
        """The uploads that are subscribed to by id."""
        return self._uploads

    def open_topics(self) -> list[Topic]:
        """Return the uploads whose end is still to be shown: those named, and others shown."""
        ended = {topic for topic, update in self._slots.items() if update.is_end}
        ended |= {topic for topic, version in self._delivered.items() if version.is_end}
        broad_owners = self.broad_owners
        is_of_all = ALL_OWNERS in broad_owners
        shown = (topic for topic in self._delivered if is_of_all or topic[0] in broad_owners)
        return [topic for topic in {*self._uploads, *shown} if topic not in ended]

    @property
    def broad_owners(self) -> Collection[str | None]:
        """The owners, or ``ALL_OWNERS``, of whom a group, or everything, is subscribed to."""
        return {*self._owners, *(owner for owner, _ in self._groups)}

    @property
    def topics(self) -> int:
        """How many uploads and groups are subscribed to by name."""
        return len(self._uploads) + len(self._groups)

    # Delivery

    def matching(self, owner: str, updates: list[Update]) -> list[Update]:
        """Return those of some updates of *owner* that match this subscription."""
        is_of_owner = owner in self._owners or ALL_OWNERS in self._owners
        return updates if is_of_owner else list(filter(self.matches, updates))

    def matches(self, update: Update) -> bool:
        """Return whether *update* is of something that is subscribed to."""
        return (
            update.owner in self._owners
            or update.topic in self._uploads
            or (update.owner, update.progress.group) in self._groups
        )

    def offer(self, update: Update) -> None:
        """Put *update* into its slot, unless a newer one is there or was delivered."""
        if self._is_news(update):
            self._put(update)

    def offer_current(self, update: Update) -> None:
        """Put the current snapshot into its slot, even if it was delivered before."""
        delivered = self._delivered.get(update.topic)
        if delivered is None or not delivered.supersedes(update.version):
            self._put(update)

    def _put(self, update: Update) -> None:
        pending = self._slots.get(update.topic)
        if pending is None or update.version.supersedes(pending.version):
            self._slots[update.topic] = update
            self.wake()
        if len(self._slots) > self._max_pending:
            # Its client reads too slowly: it reconnects, and reads the current snapshots.
            self.close()
            self._slots.clear()

    def _is_news(self, update: Update) -> bool:
        """Return whether *update* may follow what was delivered.

        Of an upload that is no longer remembered, an update is old if it was made before those
        that were forgotten. An end is always news: nothing can have followed it.
        """
        delivered = self._delivered.get(update.topic)
        if delivered is not None:
            return update.version.supersedes(delivered)
        forgotten = self._forgotten_until
        return (
            forgotten is None
            or update.is_end
            or update.topic in self._uploads
            or update.progress.updated_at > forgotten
        )

    def wake(self) -> None:
        """Let a pending ``wait`` return."""
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.set()

    def wake_for_heartbeat(self) -> None:
        """Let a pending ``wait`` return even without an update."""
        self._heartbeat_due = True
        self.wake()

    @property
    def _has_work(self) -> bool:
        return (
            bool(self._slots) or self._heartbeat_due or self.is_closed or self._failure is not None
        )

    @property
    def is_ready(self) -> bool:
        """Whether there is an update to take, a heartbeat to send, or nothing more to come."""
        return self._send_scope is None and self._has_work

    async def wait(self, direct_sender: DirectSender | None = None) -> None:
        """Wait until the subscription ``is_ready``; updates stay in their slots.

        Args:
            direct_sender: Sends updates. While this call waits, they may be passed to it directly,
                without waking the waiting task: see ``broadcast``.
        """
        self._direct_sender = direct_sender
        try:
            while not self.is_ready:
                if self._woken is None:
                    self._woken = LoopEvent()
                await self._woken.wait()
        finally:
            self._direct_sender = None
            if self._send_scope is not None:
                self._send_scope.cancel()

    @property
    def has_direct_sender(self) -> bool:
        """Whether a task waits whose updates may be sent directly."""
        return self._direct_sender is not None

    async def send_directly(self, updates: list[Update], scope: anyio.CancelScope) -> None:
        """Send *updates* for the task that waits; if none can, put them into their slots.

        Args:
            updates: They match this subscription.
            scope: Cancelled by the task that waits, when it stops waiting.
        """
        sender = self._direct_sender
        if sender is None or self._woken is None or self._send_scope is not None:
            # No task waits, or it has an update in a slot, or a send is in progress.
            for update in updates:
                self.offer(update)
            return
        news: list[Update] = []
        for update in updates:
            if self._is_news(update):
                self._remember(update)
                news.append(update)
        if not news:
            return
        self._send_scope = scope
        try:
            await sender(self._as_shown(news) if self.shows_owner else news)
        except Exception as error:  # noqa: BLE001  # raised in the task that waits
            self._failure = error
        finally:
            self._send_scope = None
            if self._has_work:
                self.wake()

    def take(self) -> list[Update]:
        """Return the newest update of each upload; none when a heartbeat is due.

        Raises:
            Exception: The exception of the direct sender.
        """
        if self._failure is not None:
            raise self._failure
        self._heartbeat_due = False
        taken = list(self._slots.values())
        self._slots.clear()
        for update in taken:
            self._remember(update)
        return self._as_shown(taken) if self.shows_owner else taken

    def _as_shown(self, updates: list[Update]) -> list[Update]:
        return [each.with_owner for each in updates]

    def _remember(self, update: Update) -> None:
        self._delivered.pop(update.topic, None)
        self._delivered[update.topic] = update.version
        while len(self._delivered) > 2 * self._capacity:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        """Forget the version that was delivered first; those subscribed to by id are kept."""
        topic = next(iter(self._delivered))
        version = self._delivered.pop(topic)
        if topic in self._uploads:
            self._delivered[topic] = version
        else:
            known = self._forgotten_until
            self._forgotten_until = max(known or version.updated_at, version.updated_at)

    def close(self) -> None:
        """Unsubscribe from everything; ``wait`` returns, and updates in slots can be taken."""
        pending = dict(self._slots)
        self.remove_all()
        self._slots = pending
        self.is_closed = True
        self._index.close(self)
        self.wake()
