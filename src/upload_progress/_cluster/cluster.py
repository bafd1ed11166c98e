"""What connects this worker with the others: the relay, the recheck, the correspondence."""

from typing import Protocol

import anyio
from attrs import frozen

from upload_progress._cluster.follower import Follower
from upload_progress._cluster.reconciler import Reconciler
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._fanout.hub import Hub
from upload_progress._resources import CircuitBreakers
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.registry import Registry
from upload_progress.backends.memory import MemoryStore
from upload_progress.interfaces import Clock, EventSubscriber, MessageTransport, SessionStore

__all__ = [
    "Cluster",
    "Terms",
]


class Terms(Protocol):
    """How workers are connected: what the tracker was told."""

    store: SessionStore
    feed: EventSubscriber | None
    post: MessageTransport | None
    mount_path: str
    clock: Clock

    @property
    def worker(self) -> str:
        """The name of this process."""


@frozen(eq=False, repr=False)
class Cluster:
    """What one worker has of the others."""

    follower: Follower
    reconciler: Reconciler
    rpc: RpcEndpoint

    @classmethod
    def assemble(
        cls,
        terms: Terms,
        circuit_breakers: CircuitBreakers,
        hub: Hub,
        registry: Registry,
        log_limiter: LogLimiter,
    ) -> "Cluster":
        """Put the parts together; nothing runs and nothing connects yet."""
        store, store_breaker = terms.store, circuit_breakers.of(terms.store, "the session store")
        # A store in memory that nothing is heard of is this tracker's own.
        is_alone = terms.feed is None and isinstance(store, MemoryStore)
        reconciler = Reconciler(store, store_breaker, registry.everything, is_alone)
        post_guard = circuit_breakers.of(terms.post, "the post between workers")
        rpc = RpcEndpoint(terms.post, post_guard, lambda: terms.worker, log_limiter)
        rpc.on_missed = reconciler.everything
        follower = Follower(
            feed=terms.feed,
            subscriber_breaker=circuit_breakers.of(terms.feed, "the event feed"),
            store=store,
            store_breaker=store_breaker,
            hub=hub,
            registry=registry,
            reconciler=reconciler,
            clock=terms.clock,
            mount_path=terms.mount_path,
            log_limiter=log_limiter,
            is_alone=is_alone,
        )
        return cls(follower, reconciler, rpc)

    async def run(self) -> None:
        """Follow, look and answer for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.follower.run)
            tasks.start_soon(self.reconciler.run)
            tasks.start_soon(self.rpc.run)
