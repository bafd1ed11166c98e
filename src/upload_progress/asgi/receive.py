"""The wrapped ``receive()`` that counts the bytes of a request's body.

This is the only code of the package that runs for every chunk of every upload: one addition and
one comparison. It reads no clock, allocates nothing, and awaits only the server's ``receive()``.
It subscripts messages, at half the cost of ``get``, as few servers omit a key. Everything else
happens in callbacks: at the first message, when the meter's gate is reached, and at the last
message or a disconnect.

The server's ``receive()`` is called only inside the application's own call: reading ahead would
answer ``Expect: 100-continue`` for the application and defeat the server's backpressure (ASGI 3.0,
HTTP "receive" events). Messages are passed on as the same objects, also those of unknown types.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from upload_progress.throttling import Meter

__all__ = ["Message", "MessageHook", "Receive", "Scope", "Send", "counting"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
MessageHook = Callable[[Message], Message]
"""Called with a message from the server; returns the message for the application."""


def counting(
    receive: Receive,
    meter: Meter,
    *,
    on_first: Callable[[Message], bool],
    on_gate: MessageHook,
    on_last: MessageHook,
    on_error: Callable[[Exception], None],
) -> Receive:
    """Return a ``receive()`` that counts body bytes into *meter*.

    Args:
        receive: The server's ``receive()``.
        meter: Counts the bytes; its gate determines when *on_gate* is called.
        on_first: Called with the first message, of whatever type. Called with the next one too,
            as long as it returns True.
        on_gate: Called with each message that brings the count to the gate or beyond.
        on_last: Called with a message that no part of the body follows, and with any other type.
        on_error: Called with an exception of the counting or of a callback; the message is then
            passed on unchanged.
    """
    handle = _slow_path(meter, on_gate=on_gate, on_last=on_last, on_error=on_error)
    source = receive

    async def receive_first() -> Message:
        """Receive the first messages; later ones come directly from the server."""
        nonlocal source
        message = await receive()
        source = receive
        try:
            source = receive_first if on_first(message) else receive
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            on_error(error)
        return message

    async def counted() -> Message:
        meter.is_waiting = True
        message = await source()
        meter.is_waiting = False
        try:
            if message["more_body"]:
                received = meter.received_bytes = meter.received_bytes + len(message["body"])
                if received < meter.gate_bytes:
                    return message
        except KeyError:
            pass
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            on_error(error)
        return handle(message)

    source = receive_first
    return counted


def _slow_path(
    meter: Meter,
    *,
    on_gate: MessageHook,
    on_last: MessageHook,
    on_error: Callable[[Exception], None],
) -> MessageHook:
    def handle(message: Message) -> Message:
        """Call back for a message; its bytes are counted already, unless it is the last one."""
        try:
            if not message.get("more_body"):
                return on_last(message)
            if meter.received_bytes >= meter.gate_bytes:
                return on_gate(message)
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            on_error(error)
        return message

    return handle
