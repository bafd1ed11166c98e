"""The directory of workers: whose tokens are recognised, and what an unknown one may cause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, field

from tests._support.simulation import deadline, until
from upload_progress._cluster.directory import WorkerDirectory
from upload_progress._cluster.messages import MessageSeal, WorkerIntroduction, pack
from upload_progress._cluster.rpc import ALL_WORKERS, RpcEndpoint
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.worker import Worker
from upload_progress.backends import MemoryPublisher
from upload_progress.interfaces import EventsMissed, SystemClock

pytestmark = pytest.mark.anyio


@define(eq=False)
class CountingBroker(MemoryPublisher):
    """Records to whom messages were sent; loses them while it ``is_lossy``."""

    sent_to: list[str] = field(factory=list, init=False)
    is_lossy: bool = field(default=False, init=False)

    async def send(self, worker: str, message: bytes) -> None:
        """Deliver *message*, unless it gets lost."""
        self.sent_to.append(worker)
        if not self.is_lossy:
            await super().send(worker, message)


async def do_nothing() -> None:
    return


def directory_at(broker: MemoryPublisher | None) -> WorkerDirectory:
    clock, worker = SystemClock(), Worker()
    rpc = RpcEndpoint(
        transport=broker,
        breaker=CircuitBreaker("the message transport", clock),
        worker=worker,
        seal=MessageSeal("upload-progress"),
        log_limiter=LogLimiter(clock),
        on_missed=do_nothing,
    )
    return WorkerDirectory(worker, rpc)


async def opened(rpc: RpcEndpoint) -> None:
    await until(lambda: rpc._is_open)


@asynccontextmanager
async def running(*directories: WorkerDirectory) -> AsyncIterator[None]:
    """Run the endpoints of *directories*, one after the other."""
    with deadline():
        async with anyio.create_task_group() as tasks:
            for each in directories:
                tasks.start_soon(each.rpc.run)
                await opened(each.rpc)
            yield
            tasks.cancel_scope.cancel()


@pytest.fixture
def broker() -> CountingBroker:
    return CountingBroker()


async def test_workers_know_each_other_without_being_asked(broker: CountingBroker) -> None:
    """Both the one that starts later and the one that runs already."""
    first, second = directory_at(broker), directory_at(broker)
    async with running(first, second):
        await until(lambda: first._keys and second._keys)
        sent = len(broker.sent_to)
        for one, other in [(first, second), (second, first)]:
            token = one.make_token("ticket", 24)

            assert await other.issuer_of("ticket", token) == one.worker.name
            assert await one.issuer_of("ticket", token) is None
            assert await other.issuer_of("client_id", token) is None
            assert await other.issuer_of("ticket", token + "x") is None
            assert await other.issuer_of("ticket", token[:-1] + "~") is None
            assert await other.issuer_of("ticket", f"{one.worker.name}.\udcff") is None
        assert broker.sent_to[sent:] == []


async def test_flood_of_unknown_names_causes_one_question(broker: CountingBroker) -> None:
    """The amount of work does not depend on the number of requests, which hold no place."""
    directory = directory_at(broker)
    answers: list[str | None] = []
    async with running(directory):
        await until(lambda: broker.sent_to)
        broker.sent_to.clear()

        async def ask(number: int) -> None:
            answers.append(await directory.issuer_of("ticket", f"w{number}.x"))

        async with anyio.create_task_group() as tasks:
            for number in range(2000):
                tasks.start_soon(ask, number)
        await ask(2000)

        assert answers == [None] * 2001
        assert broker.sent_to == [ALL_WORKERS]
        assert not directory.rpc._pending
        assert directory._keys == {}


async def test_lost_introduction_is_asked_for(broker: CountingBroker) -> None:
    first, second = directory_at(broker), directory_at(broker)
    async with running(first):
        await until(lambda: broker.sent_to)
        broker.is_lossy = True
        async with running(second):
            await until(lambda: len(broker.sent_to) == 2)
            broker.is_lossy = False

            token = second.make_token("client_id", 16)
            assert await first.issuer_of("client_id", token) == second.worker.name


async def test_worker_introduces_itself_again_after_missed_messages(
    broker: CountingBroker,
) -> None:
    directory = directory_at(broker)
    async with running(directory):
        await until(lambda: broker.sent_to == [ALL_WORKERS])
        broker._table.notify(EventsMissed())
        await until(lambda: broker.sent_to == [ALL_WORKERS] * 2)


async def test_without_other_workers_no_token_is_theirs(broker: CountingBroker) -> None:
    alone = directory_at(None)
    await alone.introduce()

    assert await alone.issuer_of("ticket", "other.x") is None
    assert await directory_at(broker).issuer_of("ticket", "no worker") is None
    assert broker.sent_to == []


async def test_number_of_known_workers_is_bounded(
    broker: CountingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.directory.MAX_WORKERS", 3)
    directory = directory_at(broker)
    for name in ["a", "b", "c", "a", "d"]:
        await directory._handle_introduction(pack(WorkerIntroduction(name, b"key")))

    assert list(directory._keys) == ["c", "a", "d"]


def test_key_is_in_no_repr() -> None:
    worker = Worker()

    assert repr(worker.key) not in repr(worker)
    assert repr(worker.key) not in repr(WorkerIntroduction(worker.name, worker.key))
