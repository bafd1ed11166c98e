"""Letters between workers: asked, answered, lost and spoiled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from tests._support.fake_connections import Mail
from tests._support.simulation import deadline
from upload_progress._cluster.messages import ANSWER, RpcMessage, SocketReply, pack, read
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import EventsMissed, SystemClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def mail() -> Mail:
    return Mail()


@pytest.fixture
def desk(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> RpcEndpoint:
    monkeypatch.setattr("upload_progress._cluster.rpc.AGAIN_SECONDS", 0.01)
    clock = SystemClock()
    return RpcEndpoint(
        mail,
        CircuitBreaker("the transport", clock, LogLimiter(clock)),
        lambda: "me",
        LogLimiter(clock),
    )


@asynccontextmanager
async def open_for_letters(desk: RpcEndpoint, mail: Mail) -> AsyncIterator[None]:
    """Run *desk* while the block does, from when its box is open."""
    with deadline():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.run)
            await until(lambda: desk._is_open)
            assert mail.opened
            yield
            tasks.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    is_so = False
    while not is_so:
        await anyio.sleep(0.002)
        is_so = bool(condition())


async def test_a_question_is_answered(desk: RpcEndpoint, mail: Mail) -> None:
    answers: list[bytes | None] = []

    async def ask() -> None:
        answers.append(await desk.ask("you", "cancel", SocketReply("p")))

    async with open_for_letters(desk, mail), anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: mail.sent)
        [(worker, sent)] = mail.sent
        letter = read(sent, RpcMessage)
        assert (worker, letter.kind, letter.reply_to) == ("you", "cancel", "me")
        mail.put(pack(RpcMessage(ANSWER, "of somebody else", body=b"no")))
        mail.put(pack(RpcMessage(ANSWER, letter.id, body=b"yes")))

    assert answers == [b"yes"]
    assert not desk._asked


async def test_nobody_is_asked_in_vain(
    desk: RpcEndpoint, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_for_letters(desk, mail):
        assert await desk.ask("me", "cancel", None) is None
        mail.send_trouble = OSError()
        assert await desk.ask("you", "cancel", None) is None
        # It rests, and is not asked again at once.
        assert await desk.ask("you", "cancel", None) is None
        monkeypatch.setattr("upload_progress._cluster.rpc.MAX_PENDING", 0)
        assert await desk.ask("you", "cancel", None) is None

    assert desk.breaker.failures == 1
    assert not mail.sent


async def test_no_answer_comes_in_time(
    desk: RpcEndpoint, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress._cluster.rpc.ANSWER_SECONDS", 0.02)
    async with open_for_letters(desk, mail):
        assert await desk.ask("you", "cancel", None) is None
    assert await desk.ask("you", "cancel", None) is None
    assert len(mail.sent) == 1


async def test_a_box_that_cannot_be_had_or_breaks_is_opened_again(
    desk: RpcEndpoint, mail: Mail
) -> None:
    mail.troubles = [OSError()]
    missed: list[int] = []

    async def on_missed() -> None:
        missed.append(mail.opened)

    desk.on_missed = on_missed
    async with open_for_letters(desk, mail):
        await until(lambda: missed == [1])
        assert mail.box is not None
        mail.box.close()
        await until(lambda: missed == [1, 2])
        mail.put(EventsMissed())
        await until(lambda: missed == [1, 2, 2])

    assert desk.breaker.failures == 1


async def test_who_asks_before_the_box_is_open_waits_for_it(desk: RpcEndpoint, mail: Mail) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.ask, "you", "cancel", None)
        await until(lambda: desk._opened)
        assert not mail.sent
        async with open_for_letters(desk, mail):
            await until(lambda: mail.sent)
        tasks.cancel_scope.cancel()


async def test_letters_nobody_can_read_or_answer_end_nothing(
    desk: RpcEndpoint, mail: Mail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B07: what came wrongly is counted, and the box stays open."""
    asked: list[bytes] = []

    async def fail(body: bytes) -> bytes | None:
        asked.append(body)
        raise StoreUnavailable if body == b"away" else ValueError

    async def answer(body: bytes) -> bytes | None:
        return b"answer to " + body

    desk.on("fails", fail)
    desk.on("works", answer)
    async with open_for_letters(desk, mail):
        mail.put(b"\xff no letter")
        mail.put(pack(RpcMessage("fails", "1", "you", b"away")))
        mail.put(pack(RpcMessage("fails", "2", "you", b"broken")))
        await until(lambda: len(asked) == 2 and not desk._answering)
        mail.put(pack(RpcMessage("works", "3", "you", b"it")))
        mail.put(pack(RpcMessage("unheard of", "4", "you", b"it")))
        await until(lambda: len(mail.sent) == 2)
        monkeypatch.setattr("upload_progress._cluster.rpc.MAX_PENDING", 0)
        mail.put(pack(RpcMessage("works", "5", "you", b"it")))
        await until(lambda: desk.spoiled == 2)

    answers = [read(letter, RpcMessage) for _worker, letter in mail.sent]
    assert {(each.id, each.body) for each in answers} == {("3", b"answer to it"), ("4", b"")}
    assert desk.log_limiter.count == 2
