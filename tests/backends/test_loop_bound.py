"""Values of drivers: one for each event loop of each process, closed when the loop ends."""

from __future__ import annotations

import asyncio
import os
import threading
from itertools import count

import pytest
from attrs import define, field

from upload_progress.backends.loop_bound import BorrowedClient, LoopBound
from upload_progress.exceptions import InvalidValue


@define
class Values:
    """Makes numbers, and records which were closed and abandoned."""

    numbers: count[int] = field(factory=lambda: count(1))
    closed: list[int] = field(factory=list)
    abandoned: list[int] = field(factory=list)

    def bound(self) -> LoopBound[int]:
        return LoopBound(lambda: next(self.numbers), self.close, self.abandon)

    async def close(self, value: int) -> None:
        self.closed.append(value)

    async def abandon(self, value: int) -> None:
        self.abandoned.append(value)


async def get_twice(bound: LoopBound[int]) -> tuple[int, int]:
    return await bound.get(), await bound.get()


def test_each_event_loop_has_its_own_value() -> None:
    values = Values()
    bound = values.bound()

    found = [asyncio.run(get_twice(bound)) for _ in range(3)]

    assert found == [(1, 1), (2, 2), (3, 3)]
    assert values.closed == [1, 2, 3]


def test_event_loops_that_run_at_the_same_time() -> None:
    values = Values()
    bound, barrier = values.bound(), threading.Barrier(3, timeout=30)
    found: list[tuple[int, int]] = []

    async def get() -> None:
        first = await bound.get()
        await asyncio.to_thread(barrier.wait)
        found.append((first, await bound.get()))

    threads = [threading.Thread(target=asyncio.run, args=(get(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == [(1, 1), (2, 2), (3, 3)]
    assert sorted(values.closed) == [1, 2, 3]


def test_closed_value_is_replaced() -> None:
    values = Values()
    bound = values.bound()

    async def close_between() -> list[int]:
        await bound.aclose()
        first = await bound.get()
        await bound.aclose()
        return [first, await bound.get()]

    assert asyncio.run(close_between()) == [1, 2]
    assert values.closed == [1, 2]


def test_value_of_a_loop_that_was_only_closed_is_forgotten() -> None:
    values = Values()
    bound = values.bound()
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(bound.get()) == 1
    loop.close()

    assert asyncio.run(bound.get()) == 2
    assert values.closed == [2]


def test_value_of_the_parent_process_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    values = Values()
    bound, silent = values.bound(), LoopBound(lambda: next(values.numbers), values.close)
    parent = os.getpid()

    async def use() -> list[int]:
        inherited = [await bound.get(), await silent.get()]
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        await bound.aclose()
        return [*inherited, await bound.get(), await silent.get()]

    assert asyncio.run(use()) == [1, 2, 3, 4]
    assert values.abandoned == [1]
    assert sorted(values.closed) == [3, 4]


def test_forked_process_that_ends_the_loop_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = Values()
    parent = os.getpid()

    async def fork() -> None:
        await values.bound().get()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)

    asyncio.run(fork())

    assert values.closed == []


async def get_client(client: BorrowedClient[int]) -> int:
    return await client.get()


def test_client_of_the_application_is_refused_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    client = BorrowedClient("client", 7)
    assert [asyncio.run(get_client(client)) for _ in range(2)] == [7, 7]
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)

    with pytest.raises(InvalidValue, match=r"client: was used before .* create it in each worker"):
        asyncio.run(get_client(client))
    assert asyncio.run(get_client(BorrowedClient("client", 8))) == 8


def test_what_was_opened_with_a_client_is_closed() -> None:
    values = Values()

    async def close() -> None:
        await BorrowedClient("client", 1).aclose()
        await BorrowedClient("client", 2, values.close).aclose()

    asyncio.run(close())

    assert values.closed == [2]
