"""The one piece of this library that runs for every chunk of every upload.

Per message: one addition and one comparison. No clock, no ``await`` but the server's own
``receive()``, nothing allocated; a subscript, as it costs half of what ``get`` costs, and few
servers leave a key out. All else happens when the meter's gate is passed, with the
first message, and with the last one or a disconnect.

``receive()`` of the server is called only inside the application's own ``receive()``: to look
ahead would answer ``Expect: 100-continue`` for the application, and defeat the server's
backpressure (ASGI 3.0, HTTP "receive" events). Messages are passed on as they are: the same
object, also of types this library does not know.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from upload_progress.throttling import Meter

__all__ = [
    "Message",
    "Notice",
    "Receive",
    "Scope",
    "Send",
    "counting",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Notice = Callable[[Message], Message]


def counting(
    receive: Receive,
    meter: Meter,
    *,
    first: Callable[[Message], bool],
    gate: Notice,
    last: Notice,
    failed: Callable[[Exception], None],
) -> Receive:
    """Return a ``receive`` that counts body bytes into *meter*.

    Args:
        receive: The server's.
        meter: Counts; its gate says when *gate* is called.
        first: Called with the first message, whatever it is; returns whether it wants to see
            the next one, too.
        gate: Called with a message that passes the gate; returns what the application gets.
        last: Called with a message after which no body follows, and with any other type.
        failed: Called when counting itself raises; the message goes on to the application.
    """
    notice = _noticing(meter, gate=gate, last=last, failed=failed)
    source = receive

    async def opening() -> Message:
        """Receive the first messages; all others come straight from the server."""
        nonlocal source
        message = await receive()
        source = receive
        try:
            source = opening if first(message) else receive
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            failed(error)
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
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            failed(error)
        return notice(message)

    source = opening
    return counted


def _noticing(
    meter: Meter, *, gate: Notice, last: Notice, failed: Callable[[Exception], None]
) -> Notice:
    def notice(message: Message) -> Message:
        """Do what few messages need; its bytes are counted, unless it is the last."""
        try:
            if not message.get("more_body"):
                return last(message)
            if meter.received_bytes >= meter.gate_bytes:
                return gate(message)
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            failed(error)
        return message

    return notice
