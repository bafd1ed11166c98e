"""One tracker in several processes and event loops: after a fork, one loop per call, in threads."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import threading

import anyio
import pytest
from asgiref.sync import async_to_sync

from tests._support.simulation import Simulation, deadline
from tests.servers.forking_app import CHILDREN, READS
from upload_progress import ProgressTracker, UploadNotFound, UploadState
from upload_progress._internals import internals_of
from upload_progress.starlette import capability, progress_routes

STORES = ["redis_url", "migrated_postgres_url"]


@pytest.mark.parametrize("store", STORES)
def test_forked_processes_receive_no_answers_of_each_other(
    store: str, request: pytest.FixtureRequest
) -> None:
    """P16: the children are forked while the parent receives an upload, with open connections."""
    owner = f"fork-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "tests.servers.forking_app", request.getfixturevalue(store)]

    ended = subprocess.run(
        [*command, owner], check=False, capture_output=True, text=True, timeout=60
    )

    owners = [*(f"{owner}-{number}" for number in range(CHILDREN)), owner]
    expected = [f"{each}: {READS + 1} of {READS + 1} right" for each in owners]
    assert sorted(ended.stdout.splitlines()) == sorted(expected), ended.stderr


async def upload(tracker: ProgressTracker, upload_id: str) -> UploadState:
    async with tracker.track(owner="ann", upload_id=upload_id, total_bytes=2) as received:
        received.advance(2)
    return (await tracker.get(upload_id, owner="ann")).state


@pytest.mark.parametrize("store", [*STORES, "memory"])
def test_one_event_loop_per_call(store: str, request: pytest.FixtureRequest) -> None:
    """As tests with ``asyncio.run`` and bridges from WSGI have it; no connection stays open."""
    url = "memory:" if store == "memory" else request.getfixturevalue(store)
    tracker, name = ProgressTracker.from_url(url), secrets.token_hex(4)

    ends = [asyncio.run(upload(tracker, f"{name}-{number}")) for number in range(3)]
    ends += [async_to_sync(upload)(tracker, f"{name}-bridge")]

    assert ends == [UploadState.COMPLETED] * 4
    assert tracker.statistics().store_failures == 0


@pytest.mark.parametrize("store", STORES)
def test_lifespan_on_several_event_loops(store: str, request: pytest.FixtureRequest) -> None:
    url, name = request.getfixturevalue(store), secrets.token_hex(4)
    receiver, watcher = ProgressTracker.from_url(url), ProgressTracker.from_url(url)

    async def watch(upload_id: str) -> list[int]:
        async with receiver.lifespan(), watcher.lifespan():
            async with receiver.track(owner="ann", upload_id=upload_id, total_bytes=2) as received:
                await internals_of(receiver).flusher.flush(everything=True)
                watch = watcher.watch(upload_id, owner="ann")
                seen = [await anext(watch)]
                received.advance(2)
            return [each.bytes_transferred async for each in watch] + [len(seen)]

    def run(number: int) -> list[int]:
        return asyncio.run(watch(f"{name}-{number}"))[-2:]

    assert [*map(run, range(2))] == [[2, 1]] * 2
    counters = [each.statistics() for each in (receiver, watcher)]
    assert [each.publisher_failures for each in counters] == [0, 0]


@pytest.mark.parametrize("store", [*STORES, "memory"])
def test_event_loops_in_threads_at_the_same_time(
    store: str, request: pytest.FixtureRequest
) -> None:
    url = "memory:" if store == "memory" else request.getfixturevalue(store)
    tracker, name = ProgressTracker.from_url(url), secrets.token_hex(4)
    ends: list[UploadState] = []

    def run(number: int) -> None:
        ends.append(asyncio.run(upload(tracker, f"{name}-{number}")))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ends == [UploadState.COMPLETED] * 4


def test_upload_is_watched_from_the_event_loop_of_another_thread() -> None:
    tracker, begun = ProgressTracker(), threading.Event()
    seen: list[int] = []

    async def watch() -> None:
        with deadline():
            async for snapshot in tracker.watch("up", owner="ann"):
                seen.append(snapshot.bytes_transferred)
                begun.set()

    async def receive() -> None:
        async with tracker.track(owner="ann", upload_id="up", total_bytes=2) as received:
            received.advance(1)
            watcher.start()
            await asyncio.to_thread(begun.wait, 30)
            received.advance(1)

    watcher = threading.Thread(target=asyncio.run, args=(watch(),))
    asyncio.run(receive())
    watcher.join()

    assert seen[-1] == 2


def test_asyncio_after_trio_and_trio_after_asyncio() -> None:
    tracker = ProgressTracker()

    async def use(upload_id: str) -> tuple[UploadState, int]:
        async with tracker.lifespan():
            first = await upload(tracker, f"{upload_id}-1")
        await upload(tracker, f"{upload_id}-2")
        page = await tracker.list(owner="ann")
        return first, len(page.uploads)

    counts = [
        anyio.run(use, backend, backend=backend.partition("-")[0])
        for backend in ("trio", "asyncio", "trio-again")
    ]

    assert counts == [(UploadState.COMPLETED, number) for number in (2, 4, 6)]


@pytest.mark.anyio
async def test_forked_process_starts_without_the_uploads_of_its_parent(sim: Simulation) -> None:
    progress_routes(sim.tracker, authenticate=capability())
    internals = internals_of(sim.tracker)
    kinds = set(internals.rpc.handlers)
    async with sim.tracker.track(owner="ann", upload_id="up") as received:
        received.advance(1)
        subscription = internals.subscribe()
        assert len(internals.registry) == 1

        internals.start_again()

        assert len(internals.registry) == len(internals.hub) == 0
        assert set(internals.rpc.handlers) == kinds
        with pytest.raises(UploadNotFound):
            await sim.tracker.get("up", owner="ann")
    subscription.close()
