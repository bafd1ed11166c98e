"""The counted ``receive`` by itself: what it calls, and that nothing of ours comes out of it."""

from __future__ import annotations

import pytest

from tests._support.scripted_server import Message, ScriptedServer, body_messages
from upload_progress import EveryBytes
from upload_progress.asgi.receive import counting
from upload_progress.throttling import NEVER, Meter

pytestmark = pytest.mark.anyio


class Notices:
    """Records what the counted ``receive`` calls, and may fail each time."""

    def __init__(self, *, fails: bool = False, wanted: int = 1) -> None:
        self.called: list[tuple[str, object]] = []
        self.fails = fails
        self.wanted = wanted

    def first(self, message: Message) -> bool:
        self._note("first", message)
        self.wanted -= 1
        return self.wanted > 0

    def gate(self, message: Message) -> Message:
        return self._note("gate", message)

    def last(self, message: Message) -> Message:
        return self._note("last", message)

    def failed(self, error: Exception) -> None:
        self.called.append(("failed", type(error)))

    def _note(self, name: str, message: Message) -> Message:
        self.called.append((name, message.get("body")))
        if self.fails:
            raise LookupError
        return {"type": f"instead.of.{name}"} if name != "first" else message


async def received(messages: list[Message], meter: Meter, notices: Notices) -> list[Message]:
    receive = counting(
        ScriptedServer(messages).receive,
        meter,
        on_first=notices.first,
        on_gate=notices.gate,
        on_last=notices.last,
        on_error=notices.failed,
    )
    return [await receive() for _ in messages]


async def test_only_the_first_the_gate_and_the_last_are_noticed() -> None:
    meter, notices = Meter(EveryBytes(1), gate_bytes=5), Notices()
    messages = body_messages(b"ab", b"cd", b"e")

    got = await received(messages, meter, notices)

    assert notices.called == [("first", b"ab"), ("gate", b"e"), ("last", b"")]
    assert got[:2] == messages[:2]
    assert [message["type"] for message in got[2:]] == ["instead.of.gate", "instead.of.last"]
    assert meter.received_bytes == 5


async def test_the_first_messages_are_shown_while_they_are_wanted() -> None:
    notices = Notices(wanted=2)

    await received(
        body_messages(b"ab", b"cd", b"e"), Meter(EveryBytes(1), gate_bytes=NEVER), notices
    )

    assert notices.called[:2] == [("first", b"ab"), ("first", b"cd")]
    assert [name for name, _ in notices.called[2:]] == ["last"]


async def test_what_fails_in_here_stays_in_here() -> None:
    """I2: the message goes on to the application, and is counted."""
    meter, notices = Meter(EveryBytes(1), gate_bytes=0), Notices(fails=True)
    messages = body_messages(b"ab", b"cd")

    got = await received(messages, meter, notices)

    assert all(mine is theirs for mine, theirs in zip(got, messages, strict=True))
    assert [name for name, _ in notices.called] == [
        *("first", "failed"),
        *("gate", "failed"),
        *("gate", "failed"),
        *("last", "failed"),
    ]
    assert meter.received_bytes == 4


@pytest.mark.parametrize(
    ("message", "called"),
    [
        ({"type": "http.request", "more_body": True}, []),
        ({"type": "http.request", "body": None, "more_body": True}, [("failed", TypeError)]),
        ({"type": "http.request"}, [("last", None)]),
        ({"type": "http.stranger"}, [("last", None)]),
    ],
)
async def test_odd_messages_are_counted_as_nothing(
    message: Message, called: list[tuple[str, object]]
) -> None:
    """I13: what a server leaves out, or should not send."""
    meter, notices = Meter(EveryBytes(1), gate_bytes=NEVER), Notices()

    await received([message], meter, notices)

    assert notices.called[1:] == called
    assert meter.received_bytes == 0
