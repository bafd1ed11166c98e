"""What connects this worker with the others: the relay, the recheck, the correspondence."""

from typing import Protocol

import anyio
from attrs import frozen

from upload_progress._cluster.follower import Relay
from upload_progress._cluster.reconciler import Recheck
from upload_progress._cluster.rpc import Correspondence
from upload_progress._fanout.hub import Hub
from upload_progress._resources import Guards
from upload_progress._runtime.log_limiter import Complaints
from upload_progress._tracking.registry import Registry
from upload_progress.backends.memory import MemoryStore
from upload_progress.interfaces import Clock, EventFeed, Post, SessionStore

__all__ = [
    "Cluster",
    "Terms",
]


class Terms(Protocol):
    """How workers are connected: what the tracker was told."""

    store: SessionStore
    feed: EventFeed | None
    post: Post | None
    mount_path: str
    clock: Clock

    @property
    def worker(self) -> str:
        """The name of this process."""


@frozen(eq=False, repr=False)
class Cluster:
    """What one worker has of the others."""

    relay: Relay
    recheck: Recheck
    correspondence: Correspondence

    @classmethod
    def assemble(
        cls, terms: Terms, guards: Guards, hub: Hub, registry: Registry, complaints: Complaints
    ) -> "Cluster":
        """Put the parts together; nothing runs and nothing connects yet."""
        store, store_guard = terms.store, guards.of(terms.store, "the session store")
        # A store in memory that nothing is heard of is this tracker's own.
        is_alone = terms.feed is None and isinstance(store, MemoryStore)
        recheck = Recheck(store, store_guard, registry.everything, is_alone)
        post_guard = guards.of(terms.post, "the post between workers")
        correspondence = Correspondence(terms.post, post_guard, lambda: terms.worker, complaints)
        correspondence.on_missed = recheck.everything
        relay = Relay(
            feed=terms.feed,
            feed_guard=guards.of(terms.feed, "the event feed"),
            store=store,
            store_guard=store_guard,
            hub=hub,
            registry=registry,
            recheck=recheck,
            clock=terms.clock,
            mount_path=terms.mount_path,
            complaints=complaints,
            is_alone=is_alone,
        )
        return cls(relay, recheck, correspondence)

    async def run(self) -> None:
        """Follow, look and answer for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.relay.run)
            tasks.start_soon(self.recheck.run)
            tasks.start_soon(self.correspondence.run)
