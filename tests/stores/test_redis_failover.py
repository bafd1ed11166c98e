"""A cluster of Redis in which another node takes over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster

from tests.conftest import RequireProgram
from tests.daemons import Daemon, free_port
from tests.recipes import redis
from tests.stores.records import record
from upload_progress.model import TransferRecord
from upload_progress.stores.redis import RedisStore

pytestmark = pytest.mark.anyio

SECONDS = 30.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis' driver runs on asyncio."""
    return "asyncio"


async def ask(node: Daemon, *words: str | int) -> object:
    """Send a command to one node, which need not answer for long."""
    async with Redis(host="127.0.0.1", port=node.port) as client:
        answer: object = await client.execute_command(*words)  # type: ignore[no-untyped-call]  # its gap
        return answer


async def until_says(node: Daemon, wanted: str, *words: str) -> None:
    answer: object = None
    while wanted not in str(answer):
        await anyio.sleep(0.02)
        answer = await ask(node, *words)


@pytest.fixture
async def nodes(require_program: RequireProgram) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """Run a node that has all slots, and its replica."""
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
            await until_says(second, name.decode(), "CLUSTER", "NODES")
            await ask(second, "CLUSTER", "REPLICATE", name.decode())
            await until_says(second, "'master_link_status': 'up'", "INFO", "replication")
            for node in (first, second):
                await until_says(node, "cluster_state:ok", "CLUSTER", "INFO")
        yield first, second
    finally:
        first.stop()
        second.stop()


def told(sequence: int) -> list[TransferRecord]:
    """Return records for many slots."""
    owners = range(40)
    return [record(owner=f"owner-{number}", sequence=sequence) for number in owners]


async def seen(store: RedisStore) -> set[int]:
    found = await store.load(*(each.key for each in told(1)))
    assert len(found) == len(told(1))
    return {each.sequence for each in found}


async def test_whoever_leads_is_found(nodes: tuple[Daemon, Daemon]) -> None:
    """S05: MOVED, after the replica took over; and again after its node was killed."""
    first, second = nodes
    with anyio.fail_after(SECONDS):
        async with RedisCluster(host="127.0.0.1", port=first.port) as cluster:
            store = RedisStore(cluster)
            await store.save(told(1))
            assert await seen(store) == {1}

            await ask(second, "CLUSTER", "FAILOVER")
            await until_says(second, "'role': 'master'", "INFO", "replication")
            await store.save(told(2))
            assert await seen(store) == {2}

            await until_says(first, "'master_link_status': 'up'", "INFO", "replication")
            second.kill()
            await ask(first, "CLUSTER", "FAILOVER", "TAKEOVER")
            await until_says(first, "'role': 'master'", "INFO", "replication")
            await store.save(told(3))
            assert await seen(store) == {3}
