"""``RedisStore`` on a cluster during failovers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster

from tests._support.records import record
from tests._support.server_factories import redis
from tests._support.server_processes import ServerProcess, free_port
from tests.conftest import RequireProgram
from upload_progress._model.models import TransferRecord
from upload_progress.backends.redis.store import RedisStore

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
            *("--repl-diskless-sync-delay", "0"),
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
        async with RedisCluster(host="127.0.0.1", port=first.port) as cluster:
            store = RedisStore(cluster)
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
