"""Shared reads: one at a time for each owner, and never older than the call."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from attrs import define, field

from tests._support.simulation import deadline, until
from tests._support.virtual_time import run_in_virtual_time
from upload_progress._reading import shared_reads
from upload_progress._reading.shared_reads import SharedReads
from upload_progress.exceptions import StoreUnavailable

pytestmark = pytest.mark.anyio


@define
class Source:
    """A value that is read slowly: a read lasts until the test ends it."""

    begun: int = 0
    value: int = 0
    may_end: anyio.Event = field(factory=anyio.Event)
    error: StoreUnavailable | None = None

    async def read(self) -> int:
        self.begun += 1
        value = self.value
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return value


@pytest.fixture
def reads() -> SharedReads[str, str, int]:
    return SharedReads()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "MAX_PAUSE_SECONDS", 0.001)


async def test_calls_during_a_read_share_the_next_one(
    reads: SharedReads[str, str, int], source: Source
) -> None:
    """The result is not older than the call; a thousand calls cost two reads."""
    results: list[int] = []

    async def call() -> None:
        results.append(await reads.get("ann", "all", source.read))

    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: source.begun == 1)
            source.value = 7
            for _ in range(1000):
                tasks.start_soon(call)
            await until(lambda: reads._states["ann"].next_reads)
            source.may_end.set()

    assert results[0] == 0
    assert results[1:] == [7] * 1000
    assert source.begun == 2


async def test_queries_of_one_owner_are_read_one_after_the_other(
    reads: SharedReads[str, str, int], source: Source
) -> None:
    """However many different groups a client asks for."""
    with deadline():
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(reads.get, "ann", f"group {number}", source.read)
            await until(lambda: source.begun)
            await until(lambda: len(reads._states["ann"].next_reads) == 19)
            assert source.begun == 1
            source.may_end.set()

    assert source.begun == 20


async def test_owners_are_read_independently(
    reads: SharedReads[str, str, int], source: Source
) -> None:
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reads.get, "ann", "all", source.read)
            tasks.start_soon(reads.get, "bob", "all", source.read)
            await until(lambda: source.begun == 2)
            source.may_end.set()


async def test_an_error_reaches_all_that_wait(
    reads: SharedReads[str, str, int], source: Source
) -> None:
    errors: list[StoreUnavailable] = []

    async def call() -> None:
        try:
            await reads.get("ann", "all", source.read)
        except StoreUnavailable as error:
            errors.append(error)

    source.error = StoreUnavailable()
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: source.begun == 1)
            for _ in range(5):
                tasks.start_soon(call)
            await until(lambda: reads._states["ann"].next_reads)
            source.may_end.set()

    assert len(errors) == 6
    assert source.begun == 2


@pytest.mark.parametrize("has_begun", [False, True])
async def test_another_caller_reads_if_the_first_is_cancelled(
    reads: SharedReads[str, str, int], source: Source, has_begun: bool
) -> None:
    """Whether its read has begun, or waits for another one."""
    results: list[int] = []
    scope = anyio.CancelScope()

    async def call() -> None:
        results.append(await reads.get("ann", "all", source.read))

    async def cancelled_call() -> None:
        with scope:
            await reads.get("ann", "all", source.read)

    with deadline():
        async with anyio.create_task_group() as tasks:
            if not has_begun:
                tasks.start_soon(call)
                await until(lambda: source.begun == 1)
            tasks.start_soon(cancelled_call)
            await until(lambda: reads._states.get("ann"))
            await until(lambda: has_begun or reads._states["ann"].next_reads)
            for _ in range(3):
                tasks.start_soon(call)
            await until(lambda: source.begun == 1)
            scope.cancel()
            source.may_end.set()

    assert len(results) == 3 + (not has_begun)


async def test_idle_owners_are_removed(reads: SharedReads[str, str, int], source: Source) -> None:
    """Owners that are being read are kept."""
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reads.get, "slow", "all", source.read)
            await until(lambda: source.begun == 1)
            fast = Source()
            fast.may_end.set()
            for number in range(500):
                await reads.get(str(number), "all", fast.read)
            await anyio.sleep(shared_reads.MAX_PAUSE_SECONDS)
            for number in range(500):
                await reads.get(str(number % 2), "all", fast.read)

            assert "slow" in reads._states
            assert len(reads) < 10
            source.may_end.set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_pause_depends_on_the_duration_of_the_read(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "MAX_PAUSE_SECONDS", 60.0)

    async def read(seconds: float) -> int:
        await anyio.sleep(seconds)
        return 1

    async def main() -> list[float]:
        reads, pauses = SharedReads[str, str, int](), list[float]()
        for owner, seconds in [("fast", 0.01), ("slow", 0.05), ("very slow", 1000)]:
            await reads.get(owner, "all", partial(read, seconds))
            pauses.append(reads._states[owner].paused_until - anyio.current_time())
        return pauses

    factor, longest = shared_reads.PAUSE_FACTOR, shared_reads.MAX_PAUSE_SECONDS
    assert run_in_virtual_time(main, backend) == pytest.approx(
        [factor * 0.01, factor * 0.05, longest]
    )
