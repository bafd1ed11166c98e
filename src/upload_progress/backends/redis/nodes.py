"""What runs a script at the server that has its key: a single server, or a node of a cluster.

redis-py's client for clusters learns all nodes again after an error, and all calls wait for that:
one node that does not respond would delay the calls to all others. So its settings are used, and
each slot finds its node on its own. A node that has failed is asked last for the others.

``ASK`` is not followed: while a slot is moved, its keys are at two nodes, and a script would see
some of them. Until the slot has been moved, the calls for it fail.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from attrs import Factory, define, field
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.commands.core import AsyncScript
from redis.crc import key_slot
from redis.exceptions import MovedError, RedisError, ResponseError, SlotNotCoveredError

from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.backends.redis.client import (
    CALL_SECONDS,
    Client,
    close_client,
    no_retries,
)
from upload_progress.exceptions import InvalidValue

__all__ = [
    "ASK_SECONDS",
    "MAX_REDIRECTS",
    "ClusterNodes",
    "ScriptRunner",
    "SingleServer",
    "runners_of",
]

MAX_REDIRECTS: Final = 3
ASK_SECONDS: Final = CALL_SECONDS / 4
"""How long a node is waited for that is asked which one has a slot, if there are others."""

_Address = tuple[str, int]
_Arguments = Sequence[str | bytes | float]


@define(eq=False, repr=False)
class SingleServer:
    """Runs scripts at a server that is no node of a cluster."""

    client: Redis

    async def run(self, script: AsyncScript, key: str, arguments: _Arguments) -> object:
        """Return the result of *script*.

        Raises:
            InvalidValue: The server is a node of a cluster.
        """
        try:
            return await script(keys=[key], args=arguments, client=self.client)
        except ResponseError as error:
            if not _is_moved(error):
                raise
            raise InvalidValue(
                "url",
                "leads to a node of a Redis Cluster: begin it with redis+cluster:// instead of "
                "redis://, or pass a RedisCluster",
            ) from None

    async def aclose(self) -> None:
        """Do nothing: the client belongs to the caller."""


@define(eq=False, repr=False)
class ClusterNodes:
    """Runs scripts at the nodes of a cluster, over connections of its own.

    Args:
        client: A client of the cluster, whose settings are used.
    """

    client: RedisCluster
    _startup: Sequence[ClusterNode] = field(
        default=Factory(lambda self: _startup_nodes(self.client), takes_self=True), init=False
    )
    _known: dict[_Address, None] = field(
        default=Factory(lambda self: dict.fromkeys(map(_address, self._startup)), takes_self=True),
        init=False,
    )
    _clients: dict[_Address, Redis] = field(factory=dict, init=False)
    _slots: dict[int, _Address] = field(factory=dict, init=False)
    _wanted: set[int] = field(factory=set, init=False)
    _lookup: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def run(self, script: AsyncScript, key: str, arguments: _Arguments) -> object:
        """Return the result of *script* at the node that has the slot of *key*.

        Raises:
            SlotNotCoveredError: No node that responds knows which one has the slot.
        """
        slot = key_slot(key.encode())
        address, redirects = self._slots.get(slot) or await self._find(slot), 0
        while True:
            try:
                return await script(keys=[key], args=arguments, client=self._client(address))
            except ResponseError as error:
                self._slots.pop(slot, None)
                redirects += 1
                if not _is_moved(error) or redirects > MAX_REDIRECTS:
                    raise
                host, _, port = str(error).rpartition(" ")[2].rpartition(":")
                address = self._slots[slot] = self._reachable(host or address[0], int(port))
            except (RedisError, OSError):
                # A replica may have taken over.
                self._mark_failed(address)
                redirects += 1
                failed, address = address, await self._find(slot)
                if address == failed or redirects > MAX_REDIRECTS:
                    raise
            except BaseException:
                # A cancellation: the call took too long.
                self._mark_failed(address)
                raise

    async def _find(self, slot: int) -> _Address:
        """Return which node has *slot*; ask the nodes, one after the other, if it is not known."""
        self._wanted.add(slot)
        async with self._lookup:
            for asked in list(self._known):
                if slot not in self._slots:
                    await self._ask(asked)
        if slot in self._slots:
            return self._slots[slot]
        raise SlotNotCoveredError(f"no node that responds knows the node of slot {slot}")

    async def _ask(self, asked: _Address) -> None:
        """Learn from a node which nodes have the slots that are not known."""
        # Not a cancel scope of anyio: redis-py awaits while it closes the connection.
        limit_seconds = ASK_SECONDS if len(self._known) > 1 else CALL_SECONDS
        command = self._client(asked).execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # redis-py has no annotation here
        try:
            ranges = await asyncio.wait_for(command, limit_seconds)
        except (RedisError, OSError):
            self._mark_failed(asked)
            return
        for first, last, *nodes in ranges:
            found = [self._reachable(_host(node, asked), node[1]) for node in nodes]
            self._known |= dict.fromkeys(found)
            for slot in self._wanted - self._slots.keys():
                if first <= slot <= last:
                    self._slots[slot] = found[0]

    def _mark_failed(self, address: _Address) -> None:
        """Ask this node last, and ask for the nodes of its slots again."""
        self._known.pop(address, None)
        self._known[address] = None
        for slot in [slot for slot, owner in self._slots.items() if owner == address]:
            del self._slots[slot]

    def _reachable(self, host: str, port: int) -> _Address:
        """Return where the client reaches a node that the cluster knows under this address."""
        return self.client.nodes_manager.remap_host_port(host, port)

    def _client(self, address: _Address) -> Redis:
        client = self._clients.get(address)
        if client is None:
            settings, (host, port) = self._startup[0], address
            options = {"host": host, "port": port, "retry": no_retries()}
            pool = ConnectionPool(
                connection_class=settings.connection_class,
                **{**settings.connection_kwargs, **options},
            )
            client = self._clients[address] = Redis.from_pool(pool)
        return client

    async def aclose(self) -> None:
        """Close the connections to all nodes."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            with anyio.move_on_after(CALL_SECONDS, shield=True):
                await client.aclose()


ScriptRunner = ClusterNodes | SingleServer


def runners_of(
    client: Client, reopen: Callable[[], Client] | None
) -> LoopBound[ScriptRunner] | BorrowedClient[ScriptRunner]:
    """Return what runs scripts in all event loops: with clients made by *reopen*, or *client*."""

    async def disconnect(runner: ScriptRunner) -> None:
        await runner.aclose()

    async def close(runner: ScriptRunner) -> None:
        await runner.aclose()
        await close_client(runner.client)

    if reopen is None:
        return BorrowedClient("client", _runner_of(client), disconnect)
    return LoopBound(lambda: _runner_of(reopen()), close)


def _runner_of(client: Client) -> ScriptRunner:
    return ClusterNodes(client) if isinstance(client, RedisCluster) else SingleServer(client)


def _startup_nodes(cluster: RedisCluster) -> Sequence[ClusterNode]:
    return list(cluster.nodes_manager.startup_nodes.values())


def _address(node: ClusterNode) -> _Address:
    return node.host, int(node.port)


def _host(node: Sequence[bytes | int | None], asked: _Address) -> str:
    """Return the host of a node; that of the node that was asked, if this one does not know it."""
    return node[0].decode() if isinstance(node[0], bytes) and node[0] else asked[0]


def _is_moved(error: ResponseError) -> bool:
    # Before version 6, redis-py has no class of its own for it here.
    return isinstance(error, MovedError) or str(error).startswith("MOVED ")
