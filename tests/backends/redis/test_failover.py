"""``RedisStore`` and ``RedisPublisher`` on a cluster, also during failovers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from tests._support.connection_faults import (
    event,
    missed,
    publish_with_retries,
    received,
    until,
)
from tests._support.records import record
from tests._support.server_factories import redis
from tests._support.server_processes import ServerProcess, free_port
from tests.conftest import RequireProgram
from upload_progress import InvalidValue, ProgressTracker
from upload_progress._model.models import TransferRecord
from upload_progress.backends.redis.client import open_client
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore, _Operation
from upload_progress.backends.subscriptions import key_of
from upload_progress.interfaces import ALL_OWNERS
from upload_progress.testing.publisher_contract import next_item, subscribed

pytestmark = pytest.mark.anyio

SECONDS = 30.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis's driver runs on asyncio."""
    return "asyncio"


async def ask(node: ServerProcess, *words: str | int) -> object:
    """Send a command to one node, on a connection of its own."""
    async with Redis(host="127.0.0.1", port=node.port) as client:
        answer: object = await client.execute_command(*words)  # type: ignore[no-untyped-call]  # its gap
        return answer


async def until_response_contains(node: ServerProcess, wanted: str, *words: str) -> None:
    answer: object = None
    while wanted not in str(answer):
        await anyio.sleep(0.02)
        answer = await ask(node, *words)


@pytest.fixture
async def nodes(
    require_program: RequireProgram,
) -> AsyncIterator[tuple[ServerProcess, ServerProcess]]:
    """Run a node with all slots, and its replica."""
    buses = [str(free_port()) for _ in range(2)]
    first, second = (
        redis(
            require_program,
            *("--cluster-enabled", "yes", "--cluster-port", bus),
            *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
        ).start()
        for bus in buses
    )
    try:
        with anyio.fail_after(SECONDS):
            await ask(first, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            name = await ask(first, "CLUSTER", "MYID")
            await ask(second, "CLUSTER", "MEET", "127.0.0.1", first.port, buses[0])
            assert isinstance(name, bytes)
            await until_response_contains(second, name.decode(), "CLUSTER", "NODES")
            await ask(second, "CLUSTER", "REPLICATE", name.decode())
            await until_response_contains(
                second, "'master_link_status': 'up'", "INFO", "replication"
            )
            for node in (first, second):
                # A node that joins refuses commands for a moment.
                await until_response_contains(node, "cluster_state:ok", "CLUSTER", "INFO")
                # From this answer, clients learn the nodes to which they may turn later.
                await until_response_contains(node, str(second.port), "CLUSTER", "SLOTS")
        yield first, second
    finally:
        first.stop()
        second.stop()


def records(sequence: int) -> list[TransferRecord]:
    """Return records of many owners."""
    owners = range(40)
    return [record(owner=f"owner-{number}", sequence=sequence) for number in owners]


async def stored_sequences(store: RedisStore) -> set[int]:
    found = await store.load(*(each.key for each in records(1)))
    assert len(found) == len(records(1))
    return {each.sequence for each in found}


async def test_promoted_replica_is_found(nodes: tuple[ServerProcess, ServerProcess]) -> None:
    """S05: ``MOVED`` after the replica took over, and again after that node was killed."""
    first, second = nodes
    with anyio.fail_after(SECONDS):
        async with (
            RedisCluster(host="127.0.0.1", port=first.port) as cluster,
            RedisStore(cluster) as store,
        ):
            await store.save(records(1))
            assert await stored_sequences(store) == {1}

            await ask(second, "CLUSTER", "FAILOVER")
            await until_response_contains(second, "'role': 'master'", "INFO", "replication")
            await store.save(records(2))
            assert await stored_sequences(store) == {2}

            await until_response_contains(
                first, "'master_link_status': 'up'", "INFO", "replication"
            )
            second.kill()
            await ask(first, "CLUSTER", "FAILOVER", "TAKEOVER")
            await until_response_contains(first, "'role': 'master'", "INFO", "replication")
            await store.save(records(3))
            assert await stored_sequences(store) == {3}


async def test_events_and_messages_reach_the_subscribers_of_every_node(
    nodes: tuple[ServerProcess, ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go on after the node of a publisher was killed."""
    first, second = nodes
    url = f"redis+cluster://127.0.0.1:{first.port}"
    chosen = iter([second.port, first.port, first.port, first.port])

    def choose(found: list[ClusterNode]) -> ClusterNode:
        port = next(chosen, first.port)
        return next(node for node in found if node.port == port)

    monkeypatch.setattr("upload_progress.backends.redis.client.choice", choose)
    with anyio.fail_after(SECONDS):
        await until_response_contains(first, str(second.port), "CLUSTER", "SLOTS")
        async with (
            RedisPublisher.open(url, heartbeat_seconds=5) as one,
            subscribed(one, "ann") as stream,
            RedisPublisher.open(url, heartbeat_seconds=5) as other,
            subscribed(other, ALL_OWNERS) as all_owners,
            other.inbox("w") as inbox,
        ):
            for sequence, publisher in enumerate([one, other], 1):
                await publisher.publish([event(sequence)])
                for each in (stream, all_owners):
                    # A connection that is lost under load shows as a gap, -1, before the event.
                    found = await received(each, sequence)
                    assert [number for number in found if number != -1] == [sequence]
            await one.send("w", b"message")
            assert await next_item(inbox) == b"message"
            second.kill()
            await publish_with_retries(one, event(3))
            await missed(stream)
            await publish_with_retries(one, event(4))

            assert (await received(stream, 4))[-1] == 4


async def test_tracker_with_the_url_of_a_cluster(
    nodes: tuple[ServerProcess, ServerProcess],
) -> None:
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    with anyio.fail_after(SECONDS):
        one, other = ProgressTracker.from_url(url), ProgressTracker.from_url(url)
        async with one.lifespan(), other.lifespan():
            announced = await one.announce(owner="ann")
            assert await other.get(announced.upload_id, owner="ann") == announced
            async with one.track(owner="ann", upload_id="up", total_bytes=9) as upload:
                upload.advance(5)
                await until(lambda: one.statistics().records_written)
                watch = other.watch("up", owner="ann")
                seen = [await anext(watch)]
                upload.advance(4)
            seen += [snapshot async for snapshot in watch]

    assert one.statistics().events_published
    assert seen[-1].bytes_transferred == 9


async def test_first_calls_at_the_same_time(nodes: tuple[ServerProcess, ServerProcess]) -> None:
    """The client does not know the nodes yet."""
    with anyio.fail_after(SECONDS):
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        async with RedisStore.open(url) as store, anyio.create_task_group() as tasks:
            for each in records(1):
                tasks.start_soon(store.load, each.key)
            tasks.start_soon(partial(store.renew, "w", seconds=9))


async def test_url_of_one_node_is_refused_with_the_url_of_the_cluster(
    nodes: tuple[ServerProcess, ServerProcess],
) -> None:
    with anyio.fail_after(SECONDS):
        async with RedisStore.open(nodes[1].url) as store:
            with pytest.raises(InvalidValue, match=r"url: leads to a node .* redis\+cluster://"):
                await store.load(*(each.key for each in records(1)))


class StoreWithoutShard(RedisStore):
    """A store one shard of which is not available."""

    missing = -1

    async def _run(self, operation: _Operation, shard: int, *args: str | bytes | float) -> object:
        if shard == self.missing:
            raise TimeoutError
        return await super()._run(operation, shard, *args)


async def test_shard_that_fails_stops_only_its_part(
    nodes: tuple[ServerProcess, ServerProcess],
) -> None:
    """The others are saved and renewed, and the call raises."""
    async with StoreWithoutShard.open(f"redis+cluster://127.0.0.1:{nodes[0].port}") as store:
        store.missing = store._shard(key_of("owner-0"))
        with pytest.raises(TimeoutError):
            await store.save(records(1))
        with pytest.raises(TimeoutError):
            await store.renew("w", seconds=9)
        store.missing = -1
        saved = {each.owner for each in await store.load(*(each.key for each in records(1)))}

    missing = store._shard(key_of("owner-0"))
    expected = {each.owner for each in records(1) if store._shard(key_of(each.owner)) != missing}
    assert saved == expected


def test_cluster_has_no_databases() -> None:
    with pytest.raises(InvalidValue, match=r"redis\+cluster://HOST:PORT"):
        open_client("redis+cluster://host/1")
