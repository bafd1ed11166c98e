"""Remote procedure calls between workers: calls, replies, lost and invalid messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import define, field

from tests._support.fake_connections import FakeTransport
from tests._support.simulation import deadline, until
from upload_progress._cluster.messages import REPLY, MessageSeal, RpcMessage, SocketReply
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.worker import Worker
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import ConnectionLost, EventsMissed, SystemClock

pytestmark = pytest.mark.anyio

WORKER = Worker()
SEAL = MessageSeal("shop", b"a secret of sixteen bytes or more")


@define
class Missed:
    """Records how many inboxes had been opened at each call."""

    transport: FakeTransport
    opened: list[int] = field(factory=list)

    async def __call__(self) -> None:
        self.opened.append(self.transport.opened)


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def on_missed(transport: FakeTransport) -> Missed:
    return Missed(transport)


@pytest.fixture
def rpc(
    transport: FakeTransport, on_missed: Missed, monkeypatch: pytest.MonkeyPatch
) -> RpcEndpoint:
    monkeypatch.setattr("upload_progress._cluster.rpc.RETRY_SECONDS", 0.01)
    clock = SystemClock()
    return RpcEndpoint(
        transport=transport,
        breaker=CircuitBreaker("the message transport", clock),
        worker=WORKER,
        seal=SEAL,
        log_limiter=LogLimiter(clock),
        on_missed=on_missed,
    )


def sealed(message: RpcMessage, seal: MessageSeal = SEAL) -> bytes:
    """Return *message* as another worker sends it to this one."""
    return seal.seal(WORKER.name, message)


@asynccontextmanager
async def running(rpc: RpcEndpoint) -> AsyncIterator[None]:
    """Run *rpc* while the block runs, once its inbox is open."""
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rpc.run)
            await until(lambda: rpc._is_open)
            yield
            tasks.cancel_scope.cancel()


async def test_call_returns_the_reply(rpc: RpcEndpoint, transport: FakeTransport) -> None:
    replies: list[bytes | None] = []

    async def call() -> None:
        replies.append(await rpc.call("other", "cancel", SocketReply("p")))

    async with running(rpc), anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(lambda: transport.sent)
        [(worker, sent)] = transport.sent
        request = SEAL.unseal("other", sent)
        assert (worker, request.kind, request.reply_to) == ("other", "cancel", WORKER.name)
        transport.put(sealed(RpcMessage(REPLY, "of another call", body=b"no")))
        transport.put(sealed(RpcMessage(REPLY, request.id, body=b"yes")))

    assert replies == [b"yes"]
    assert not rpc._pending


async def test_call_that_cannot_succeed_is_not_sent(
    rpc: RpcEndpoint, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(rpc):
        assert await rpc.call(WORKER.name, "cancel", None) is None
        transport.send_error = OSError()
        assert await rpc.call("other", "cancel", None) is None
        # The circuit breaker is open.
        assert await rpc.call("other", "cancel", None) is None
        monkeypatch.setattr("upload_progress._cluster.rpc.MAX_PENDING", 0)
        assert await rpc.call("other", "cancel", None) is None

    assert rpc.breaker.failures == 1
    assert not transport.sent


async def test_call_times_out(
    rpc: RpcEndpoint, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.rpc.REPLY_SECONDS", 0.02)
    async with running(rpc):
        assert await rpc.call("other", "cancel", None) is None
    assert await rpc.call("other", "cancel", None) is None
    assert len(transport.sent) == 1


async def test_inbox_that_fails_or_ends_is_opened_again(
    rpc: RpcEndpoint, transport: FakeTransport, on_missed: Missed
) -> None:
    transport.open_errors = [OSError()]
    async with running(rpc):
        await until(lambda: on_missed.opened == [1])
        assert transport.inbox_stream is not None
        transport.inbox_stream.close()
        await until(lambda: on_missed.opened == [1, 2])
        transport.put(ConnectionLost())
        transport.put(EventsMissed())
        await until(lambda: on_missed.opened == [1, 2, 2])

    assert rpc.breaker.failures == 1


async def test_call_waits_for_the_inbox(rpc: RpcEndpoint, transport: FakeTransport) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rpc.call, "other", "cancel", None)
        await until(lambda: rpc._opened)
        assert not transport.sent
        async with running(rpc):
            await until(lambda: transport.sent)
        tasks.cancel_scope.cancel()


async def test_invalid_messages_and_failing_handlers_do_not_end_the_endpoint(
    rpc: RpcEndpoint, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B07: an invalid message is counted, and the inbox stays open."""
    requested: list[bytes] = []

    async def fail(body: bytes) -> bytes | None:
        requested.append(body)
        raise StoreUnavailable if body == b"away" else ValueError

    async def reply(body: bytes) -> bytes | None:
        return b"reply to " + body

    rpc.register("fails", fail)
    rpc.register("works", reply)
    async with running(rpc):
        transport.put(b"\xff no message")
        transport.put(sealed(RpcMessage("fails", "1", "other", b"away")))
        transport.put(sealed(RpcMessage("fails", "2", "other", b"broken")))
        await until(lambda: len(requested) == 2 and not rpc._handling)
        transport.put(sealed(RpcMessage("works", "3", "other", b"it")))
        transport.put(sealed(RpcMessage("unknown", "4", "other", b"it")))
        await until(lambda: len(transport.sent) == 2)
        monkeypatch.setattr("upload_progress._cluster.rpc.MAX_PENDING", 0)
        transport.put(sealed(RpcMessage("works", "5", "other", b"it")))
        await until(lambda: rpc.rejected == 2)

    replies = [SEAL.unseal(worker, message) for worker, message in transport.sent]
    assert {(each.id, each.body) for each in replies} == {("3", b"reply to it"), ("4", b"")}
    assert rpc.log_limiter.count == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (sealed(RpcMessage("works", "1"), MessageSeal("forum", SEAL.secret)), "another system"),
        (sealed(RpcMessage("works", "1"), MessageSeal("shop")), "secret"),
        (sealed(RpcMessage("works", "1"), MessageSeal("shop", b"another")), "secret"),
        (SEAL.seal("other", RpcMessage("works", "1")), "secret"),
    ],
    # The messages contain random bytes, and each process of pytest must know the same tests.
    ids=["another namespace", "no secret", "another secret", "another recipient"],
)
async def test_request_of_another_system_or_sender_is_rejected(
    rpc: RpcEndpoint,
    transport: FakeTransport,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
    problem: str,
) -> None:
    """Also one that was recorded on its way to another worker."""
    requested: list[bytes] = []

    async def reply(body: bytes) -> bytes | None:
        requested.append(body)
        return None

    rpc.register("works", reply)
    async with running(rpc):
        transport.put(data)
        await until(lambda: rpc.rejected)
        transport.put(sealed(RpcMessage("works", "2", body=b"own")))
        await until(lambda: requested)

    assert requested == [b"own"]
    assert problem in caplog.text


async def test_worker_without_a_secret_rejects_signed_requests(
    rpc: RpcEndpoint, transport: FakeTransport
) -> None:
    rpc.seal = MessageSeal("shop")
    async with running(rpc):
        transport.put(sealed(RpcMessage("works", "1")))
        await until(lambda: rpc.rejected)


async def test_request_that_arrives_again_is_not_handled_again(
    rpc: RpcEndpoint, transport: FakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been recorded; the number of remembered requests is bounded."""
    monkeypatch.setattr("upload_progress._cluster.rpc.MAX_REMEMBERED", 2)
    requested: list[bytes] = []

    async def record(body: bytes) -> bytes | None:
        requested.append(body)
        return None

    rpc.register("works", record)
    async with running(rpc):
        for request_id in ("1", "1", "2", "2", "3"):
            transport.put(sealed(RpcMessage("works", request_id, body=request_id.encode())))
        await until(lambda: len(requested) == 3)

    assert requested == [b"1", b"2", b"3"]
    assert rpc.rejected == 2
    assert set(rpc._remembered) == {"2", "3"}
