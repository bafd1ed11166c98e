"""Deliver updates to the subscriptions of this process."""

from collections import Counter
from collections.abc import Iterator

from attrs import Factory, define, field

from upload_progress._fanout.broadcast import Broadcaster
from upload_progress._fanout.subscription import Subscription, SubscriptionIndex, Transport
from upload_progress._fanout.update import Topic, Update
from upload_progress._runtime.task_spawner import TaskSpawner

__all__ = ["Hub"]


def _broadcaster_of(hub: "Hub") -> Broadcaster:
    return Broadcaster(hub.recipients, hub.tasks)


@define(eq=False, repr=False)
class Hub:
    """Opens subscriptions and delivers updates to those that match.

    Args:
        tasks: Starts the tasks in which updates are broadcast.

    Attributes:
        delivered: How many updates were put into slots or sent.
    """

    tasks: TaskSpawner
    delivered: int = field(default=0, init=False)
    _index: SubscriptionIndex = field(factory=SubscriptionIndex, init=False)
    _broadcaster: Broadcaster = field(default=Factory(_broadcaster_of, takes_self=True), init=False)

    def __len__(self) -> int:
        """Return the number of open subscriptions."""
        return len(self._index)

    def subscribe(
        self,
        *,
        now: float,
        capacity: int = 1000,
        max_pending: int = 4000,
        transport: Transport = Transport.ITERATOR,
    ) -> Subscription:
        """Open a subscription, to nothing yet. Close it after use.

        Args:
            now: The monotonic time, in seconds.
            capacity: How many uploads and groups it may name.
            max_pending: A subscription with more unread snapshots is closed.
            transport: How its updates are sent.
        """
        subscription = Subscription(self._index, capacity, max_pending, transport)
        self._index.open(subscription, now=now)
        return subscription

    def by_transport(self) -> Counter[Transport]:
        """Return the number of open subscriptions by how their updates are sent."""
        return Counter(each.transport for each in self._index.everything())

    def has_subscribers(self, owner: str | None) -> bool:
        """Return whether a subscription of this process receives updates of *owner*."""
        return self._index.has_owner(owner)

    def is_watched(self, owner: str | None, upload_id: str, group: str | None) -> bool:
        """Return whether a subscription of this process matches this upload."""
        return self._index.is_watched(owner, upload_id, group)

    def owners(self) -> list[str | None]:
        """Return the owners whose updates are subscribed to, or ``ALL_OWNERS``."""
        return self._index.owners()

    async def owners_changed(self) -> None:
        """Wait until the set of ``owners()`` has changed since the last call; for one task."""
        await self._index.owners_changed.wait()

    def topics(self) -> set[Topic]:
        """Return the uploads that are subscribed to by id."""
        return {topic for each in self._index.everything() for topic in each.uploads}

    def open_topics(self) -> set[Topic]:
        """Return the uploads whose end a subscription has not been shown."""
        return {topic for each in self._index.everything() for topic in each.open_topics()}

    def broad_owners(self) -> set[str | None]:
        """Return the owners, or ``ALL_OWNERS``, of a group or everything that is subscribed to."""
        return {owner for each in self._index.everything() for owner in each.broad_owners}

    def deliver(self, update: Update) -> None:
        """Deliver *update* to all matching subscriptions."""
        if any(each.has_direct_sender for each in self._index.of_owner(update.owner)):
            self._broadcaster.add(update)
        else:
            for subscription, _ in self.recipients(update.owner, [update]):
                subscription.offer(update)

    def recipients(
        self, owner: str, updates: list[Update]
    ) -> Iterator[tuple[Subscription, list[Update]]]:
        """Return the subscriptions that match some *updates* of *owner*, and which they match."""
        for subscription in list(self._index.of_owner(owner)):
            matching = subscription.matching(owner, updates)
            if matching:
                self.delivered += len(matching)
                yield subscription, matching

    def wake_for_heartbeats(self, now: float, limit: int) -> bool:
        """Wake up to *limit* subscriptions whose heartbeat is due; return whether more may be."""
        return self._index.wake_for_heartbeats(now, limit)

    @property
    def is_broadcasting(self) -> bool:
        """Whether some subscription has not received everything yet."""
        return self._broadcaster.is_busy

    def close(self) -> None:
        """Close every subscription, because the server stops."""
        self._broadcaster.stop_round()
        for subscription in self._index.everything():
            subscription.close()
