"""Messages of an answer: what the application's say, and ours to a client that was cut."""

from typing import Final

from upload_progress.asgi.receive import Message, Scope
from upload_progress.protocols import Headers

__all__ = [
    "cancelled_response",
    "kind_of",
    "response_headers",
]

_CUT_BODY: Final = (
    b'{"type":"about:blank","title":"Upload cancelled","status":409,'
    b'"detail":"The owner of this upload cancelled it."}'
)


def cancelled_response(scope: Scope) -> tuple[Message, Message]:
    """Return what is answered to the request of *scope*, whose upload was cancelled."""
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(_CUT_BODY)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if str(scope.get("http_version", "1.1")).startswith("1"):
        headers.append((b"connection", b"close"))
    start = {"type": "http.response.start", "status": 409, "headers": headers}
    return start, {"type": "http.response.body", "body": _CUT_BODY}


def response_headers(message: Message) -> Headers:
    """Return the headers that the start of an answer carries; of one that comes twice the first."""
    return {
        bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
        for name, value in reversed(list(message.get("headers", ())))
    }


def kind_of(message: Message) -> object:
    """Return the message's type; None of what is no message: to complain is the server's."""
    try:
        return message["type"]
    except Exception:  # noqa: BLE001  # whatever the application sends
        return None
