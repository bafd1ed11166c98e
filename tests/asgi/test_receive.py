"""The counting ``receive()``: its callbacks, and that it raises no exceptions of its own."""

from __future__ import annotations

import pytest

from tests._support.scripted_server import Message, ScriptedServer, body_messages
from upload_progress import EveryBytes
from upload_progress.asgi.receive import counting
from upload_progress.throttling import NEVER, Meter

pytestmark = pytest.mark.anyio


class Callbacks:
    """Records calls of the callbacks.

    Attributes:
        calls: Name of each callback, and the body of its message.
        fails: Whether each callback raises ``LookupError``.
        wanted_messages: Number of messages for which ``on_first`` is called.
    """

    def __init__(self, *, fails: bool = False, wanted_messages: int = 1) -> None:
        self.calls: list[tuple[str, object]] = []
        self.fails = fails
        self.wanted_messages = wanted_messages

    def on_first(self, message: Message) -> bool:
        self._record("on_first", message)
        self.wanted_messages -= 1
        return self.wanted_messages > 0

    def on_gate(self, message: Message) -> Message:
        return self._record("on_gate", message)

    def on_last(self, message: Message) -> Message:
        return self._record("on_last", message)

    def on_error(self, error: Exception) -> None:
        self.calls.append(("on_error", type(error)))

    def _record(self, name: str, message: Message) -> Message:
        self.calls.append((name, message.get("body")))
        if self.fails:
            raise LookupError
        return {"type": f"instead.of.{name}"} if name != "on_first" else message


async def receive_all(messages: list[Message], meter: Meter, callbacks: Callbacks) -> list[Message]:
    receive = counting(
        ScriptedServer(messages).receive,
        meter,
        on_first=callbacks.on_first,
        on_gate=callbacks.on_gate,
        on_last=callbacks.on_last,
        on_error=callbacks.on_error,
    )
    return [await receive() for _ in messages]


async def test_callbacks_of_first_gate_and_last_message() -> None:
    meter, callbacks = Meter(EveryBytes(1), gate_bytes=5), Callbacks()
    messages = body_messages(b"ab", b"cd", b"e")

    received = await receive_all(messages, meter, callbacks)

    assert callbacks.calls == [("on_first", b"ab"), ("on_gate", b"e"), ("on_last", b"")]
    assert received[:2] == messages[:2]
    assert [message["type"] for message in received[2:]] == [
        "instead.of.on_gate",
        "instead.of.on_last",
    ]
    assert meter.received_bytes == 5


async def test_on_first_is_called_while_it_returns_true() -> None:
    callbacks = Callbacks(wanted_messages=2)

    await receive_all(
        body_messages(b"ab", b"cd", b"e"), Meter(EveryBytes(1), gate_bytes=NEVER), callbacks
    )

    assert callbacks.calls[:2] == [("on_first", b"ab"), ("on_first", b"cd")]
    assert [name for name, _ in callbacks.calls[2:]] == ["on_last"]


async def test_exceptions_of_callbacks_are_not_raised() -> None:
    """I2: the message is passed on, and counted."""
    meter, callbacks = Meter(EveryBytes(1), gate_bytes=0), Callbacks(fails=True)
    messages = body_messages(b"ab", b"cd")

    received = await receive_all(messages, meter, callbacks)

    assert all(ours is theirs for ours, theirs in zip(received, messages, strict=True))
    assert [name for name, _ in callbacks.calls] == [
        *("on_first", "on_error"),
        *("on_gate", "on_error"),
        *("on_gate", "on_error"),
        *("on_last", "on_error"),
    ]
    assert meter.received_bytes == 4


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        ({"type": "http.request", "more_body": True}, []),
        ({"type": "http.request", "body": None, "more_body": True}, [("on_error", TypeError)]),
        ({"type": "http.request"}, [("on_last", None)]),
        ({"type": "http.stranger"}, [("on_last", None)]),
    ],
)
async def test_invalid_messages_are_not_counted(
    message: Message, calls: list[tuple[str, object]]
) -> None:
    """I13: missing keys, and values that a server should not send."""
    meter, callbacks = Meter(EveryBytes(1), gate_bytes=NEVER), Callbacks()

    await receive_all([message], meter, callbacks)

    assert callbacks.calls[1:] == calls
    assert meter.received_bytes == 0
