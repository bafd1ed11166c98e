"""A cluster of three nodes, one of which is away: it stops only its part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count
from typing import Final

import anyio
import pytest
from anyio import to_thread
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import SlotNotCoveredError

from tests._support.asgi_client import as_user, build_app, client
from tests._support.connection_faults import until
from tests._support.records import record
from tests._support.server_factories import redis
from tests._support.server_processes import ServerProcess, free_port
from tests.conftest import RequireProgram
from upload_progress import ProgressTracker, StoreUnavailable, UploadProgress, UploadState
from upload_progress._internals import internals_of
from upload_progress.backends.redis.store import RedisStore

pytestmark = [
    pytest.mark.anyio,
    # A connection of redis-py that was cancelled while it was made may be closed by its finalizer.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RANGES: Final = (0, 5460), (5461, 10922), (10923, 16383)
SECONDS: Final = 60.0
LEASE_SECONDS: Final = 4.5
SIZE: Final = 1000


@pytest.fixture
def anyio_backend() -> str:
    """Redis's driver runs on asyncio."""
    return "asyncio"


async def ask(node: ServerProcess, *words: str | int) -> str:
    async with Redis(host="127.0.0.1", port=node.port) as connection:
        return str(await connection.execute_command(*words))  # type: ignore[no-untyped-call]  # its gap


async def until_response_contains(node: ServerProcess, wanted: str, *words: str) -> None:
    response = ""
    while wanted not in response:
        await anyio.sleep(0.02)
        response = await ask(node, *words)


@pytest.fixture
async def nodes(require_program: RequireProgram) -> AsyncIterator[Sequence[ServerProcess]]:
    """Run three nodes, each with a third of the slots, which go on without the others."""
    buses = [str(free_port()) for _ in RANGES]
    found = [
        redis(
            require_program,
            *("--cluster-enabled", "yes", "--cluster-port", bus),
            *("--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000"),
        ).start()
        for bus in buses
    ]
    try:
        with anyio.fail_after(SECONDS):
            for node, slots in zip(found, RANGES, strict=True):
                await ask(node, "CLUSTER", "ADDSLOTSRANGE", *slots)
            for node, bus in zip(found[1:], buses[1:], strict=True):
                await ask(found[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
            for node in found:
                for other in found:
                    await until_response_contains(node, str(other.port), "CLUSTER", "SLOTS")
                await until_response_contains(node, "cluster_state:ok", "CLUSTER", "INFO")
        yield found
    finally:
        for node in found:
            node.stop()


def owner_at(number: int, store: RedisStore) -> str:
    """Return an owner whose uploads are at that one of the nodes."""
    first, last = RANGES[number]
    return next(
        owner
        for owner in (f"owner-{n}" for n in count())
        if first <= key_slot(f"{{{store.part_of(owner)}}}".encode()) <= last
    )


def store_of(tracker: ProgressTracker) -> RedisStore:
    store = internals_of(tracker).backends.store
    assert isinstance(store, RedisStore)
    return store


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [
        pytest.param(ServerProcess.kill, ServerProcess.start, id="killed"),
        pytest.param(ServerProcess.pause, ServerProcess.resume, id="hung"),
    ],
)
async def test_node_that_is_away_stops_only_its_part(
    nodes: Sequence[ServerProcess],
    stop: Callable[[ServerProcess], object],
    go_on: Callable[[ServerProcess], object],
) -> None:
    """For longer than a lease: other owners are served, and no upload ends wrongly."""
    url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    one, other = (ProgressTracker.from_url(url, lease_seconds=LEASE_SECONDS) for _ in range(2))
    affected, unaffected = (owner_at(number, store_of(one)) for number in (0, 2))
    seen: dict[str, list[UploadProgress]] = {}

    async def follow(owner: str) -> None:
        seen[owner] = []
        async for snapshot in other.watch("up", owner=owner):
            seen[owner].append(snapshot)

    with anyio.fail_after(SECONDS):
        async with (
            one.lifespan(),
            other.lifespan(),
            client(build_app(other)) as http,
            anyio.create_task_group() as watchers,
            one.track(owner=affected, upload_id="up", total_bytes=SIZE) as stuck,
        ):
            async with one.track(owner=unaffected, upload_id="up", total_bytes=SIZE) as going_on:
                for upload in (stuck, going_on):
                    upload.advance(1)
                await until(lambda: one.statistics().records_written >= 2)
                for owner in (affected, unaffected):
                    watchers.start_soon(follow, owner)
                await until(lambda: len(seen) == 2 and all(seen.values()))
                await to_thread.run_sync(stop, nodes[0])
                ends_at, refused = anyio.current_time() + 1.5 * LEASE_SECONDS, 0
                while anyio.current_time() < ends_at:
                    going_on.advance(1)
                    [away, present] = [
                        await http.get("/uploads/up/progress", headers=as_user(owner))
                        for owner in (affected, unaffected)
                    ]
                    refused += away.status_code == 503 and int(away.headers["retry-after"]) > 0
                    assert present.status_code == 200
                    await anyio.sleep(0.2)
                read = await other.get("up", owner=unaffected)
                going_on.advance(SIZE - going_on.received_bytes)
            await until(lambda: seen[unaffected][-1].state is UploadState.COMPLETED)
            with pytest.raises(StoreUnavailable):
                await other.get("up", owner=affected)
            is_open = one.statistics().open_circuits["store"]
            await to_thread.run_sync(go_on, nodes[0])
            stuck.advance(SIZE - stuck.received_bytes)

    assert refused
    assert read.bytes_transferred > 2
    assert is_open
    assert [each.statistics().reaped for each in (one, other)] == [0, 0]
    ends = {(end.state, end.attempt, end.bytes_transferred) for *_, end in seen.values()}
    assert ends == {(UploadState.COMPLETED, 1, SIZE)}


async def test_nodes_that_do_not_respond_are_asked_last(nodes: Sequence[ServerProcess]) -> None:
    absent, present = (ClusterNode("127.0.0.1", port) for port in (free_port(), nodes[1].port))
    uploads = [record(owner=f"owner-{number}") for number in range(30)]
    async with (
        RedisCluster(startup_nodes=[absent, present]) as cluster,
        RedisStore(cluster, shards=40) as store,
    ):
        await store.save(uploads)
        assert len(await store.load(*(each.key for each in uploads))) == 30


async def test_cluster_without_a_node_that_responds() -> None:
    async with RedisStore.open(f"redis+cluster://127.0.0.1:{free_port()}") as store:
        with pytest.raises(SlotNotCoveredError, match="no node that responds"):
            await store.load(record().key)
