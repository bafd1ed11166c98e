"""Response messages: reading those of the application, and the response to a cancelled upload."""

from typing import Final

from upload_progress.asgi.receive import Message, Scope
from upload_progress.protocols import Headers

__all__ = ["cancelled_response", "message_type", "response_headers", "with_listed_headers"]

_CANCELLED_BODY: Final = (
    b'{"type":"about:blank","title":"Upload cancelled","status":409,'
    b'"detail":"The owner of this upload cancelled it."}'
)


def cancelled_response(scope: Scope) -> tuple[Message, Message]:
    """Return the two messages of the response to a request whose upload was cancelled.

    HTTP/1 connections are closed, as the rest of the body is still to come.
    """
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(_CANCELLED_BODY)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if str(scope.get("http_version", "1.1")).startswith("1"):
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": 409, "headers": headers}
    return start, {"type": "http.response.body", "body": _CANCELLED_BODY}


def response_headers(message: Message) -> Headers:
    """Return the headers of ``http.response.start``; of a repeated header the first value."""
    return {
        bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
        for name, value in reversed(list(message.get("headers", ())))
    }


def message_type(message: Message) -> object:
    """Return the type of a message; None for an invalid one, which the server rejects itself."""
    try:
        return message["type"]
    except Exception:  # noqa: BLE001  # applications can send anything
        return None


def with_listed_headers(message: Message) -> Message:
    """Return ``http.response.start`` with a list of headers: an iterator can be read only once."""
    try:
        return {**message, "headers": list(message["headers"])}
    except Exception:  # noqa: BLE001  # applications can send anything
        return message
