"""Response messages: reading those of the application, and the response to a cancelled upload."""

from typing import Final

import anyio
import msgspec

from upload_progress._model.codec import encode_json
from upload_progress.asgi.receive import Message, Receive, Scope, Send
from upload_progress.protocols import Headers

__all__ = [
    "DIAGNOSIS_HEADER",
    "DISCARD_SECONDS",
    "HOLD_SECONDS",
    "IDLE_SECONDS",
    "cancelled_response",
    "is_http1",
    "may_have_reason",
    "message_type",
    "reason_in",
    "response_headers",
    "send_while_discarding",
    "with_listed_headers",
]

_REASON_TYPES: Final = frozenset({"application/problem+json", "application/json"})

DIAGNOSIS_HEADER: Final = "upload-diagnosis"
"""A request with it asks why it is not tracked; the response has the reason in this header, too."""

HOLD_SECONDS: Final = 5.0
"""For how long the last byte of a response is held back while the client is sending."""

DISCARD_SECONDS: Final = 30.0
"""For how long after that the rest of the client's body is discarded."""

IDLE_SECONDS: Final = 1.0
"""How long the client may send nothing, before the response is ended."""

_CANCELLED_STATUS: Final = {"tus": 410}
"""The status of the response to a cancelled upload, where 409 does not end the client's retries: a
tus client takes it for a wrong offset, asks for the right one, and goes on (tus 1.0.0, PATCH)."""

_PROTOCOL_HEADERS: Final = {"tus": [(b"tus-resumable", b"1.0.0")]}


def cancelled_response(scope: Scope, protocol: str | None = None) -> tuple[Message, Message]:
    """Return the two messages of the response to a request whose upload was cancelled.

    HTTP/1 connections are closed, as the rest of the body may still be to come.

    Args:
        scope: The ASGI scope of the request.
        protocol: The name of the protocol that read the request, if one did.
    """
    status = _CANCELLED_STATUS.get(protocol or "", 409)
    body = encode_json(
        {
            "type": "about:blank",
            "title": "Upload cancelled",
            "status": status,
            "detail": "The owner of this upload cancelled it.",
        }
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *_PROTOCOL_HEADERS.get(protocol or "", ()),
    ]
    if is_http1(scope):
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


def is_http1(scope: Scope) -> bool:
    """Return whether the connection carries one request after the other (RFC 9112)."""
    return str(scope.get("http_version", "1.1")).startswith("1")


async def send_while_discarding(
    body: Message, receive: Receive, send: Send, *, holds: bool
) -> None:
    """Send the body of a response while the client may still be sending that of the request.

    Many clients read no response before they have sent everything. The end of a response closes an
    HTTP/1 connection, and the bytes on their way then reset it, which can take the response from
    the client (RFC 9112, section 9.6). So the rest is received and discarded, for a limited time.

    Args:
        body: The message with the whole body of the response.
        receive: The server's ``receive()``.
        send: The server's ``send()``.
        holds: Whether to hold the last byte back at first: some servers close a connection as
            soon as they have the last announced byte. It is sent after ``HOLD_SECONDS``, as other
            clients stop sending when they have the whole response.
    """
    content = body["body"]
    held = content[-1:] if holds else b""
    await send({**body, "body": content.removesuffix(held), "more_body": True})
    if await _discard(receive, HOLD_SECONDS):
        await send({**body, "body": held, "more_body": True})
        await _discard(receive, DISCARD_SECONDS)
        held = b""
    await send({**body, "body": held})


async def _discard(receive: Receive, seconds: float) -> bool:
    """Receive the rest of a body; return whether the client is still sending after that time."""
    with anyio.move_on_after(seconds) as in_time:
        has_more = True
        while has_more:
            has_more = False
            with anyio.move_on_after(IDLE_SECONDS):
                has_more = (await receive()).get("more_body", False)
    return in_time.cancelled_caught


def response_headers(message: Message) -> Headers:
    """Return the headers of ``http.response.start``; of a repeated header the first value."""
    return {
        bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
        for name, value in reversed(list(message.get("headers", ())))
    }


def may_have_reason(message: Message) -> bool:
    """Return whether ``http.response.start`` of an error announces its reason in JSON."""
    headers = response_headers(message)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in _REASON_TYPES and "content-encoding" not in headers


def reason_in(content: bytes) -> str | None:
    """Return the ``detail`` of a problem document (RFC 9457), else its ``title``; None without one.

    Other documents with such a ``detail`` are read as well: FastAPI's errors have one.
    """
    try:
        document = msgspec.json.decode(content)
    except (ValueError, RecursionError):
        return None
    values = (
        [document.get(key) for key in ("detail", "title")] if isinstance(document, dict) else []
    )
    return next((value for value in values if isinstance(value, str) and value.strip()), None)


def message_type(message: Message) -> object:
    """Return the type of a message; None for an invalid one, which the server rejects itself."""
    try:
        return message["type"]
    except Exception:  # noqa: BLE001  # applications can send anything
        return None


def with_listed_headers(message: Message) -> Message:
    """Return ``http.response.start`` with headers that can be read twice: an iterator cannot."""
    try:
        headers = message["headers"]
        return {**message, "headers": list(headers)} if hasattr(headers, "__next__") else message
    except Exception:  # noqa: BLE001  # applications can send anything
        return message
