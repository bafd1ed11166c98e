"""The answers of the HTTP calls, as OpenAPI response objects."""

from typing import Final

from upload_progress.openapi.messages import Problem
from upload_progress.openapi.schemas import JsonObject, json_content, reference

__all__ = [
    "PROBLEM_TYPE",
    "answered",
    "refused",
    "streamed",
]

PROBLEM_TYPE: Final = "application/problem+json"
_EVENT_STREAM: Final = "text/event-stream"

_WHY: Final = {
    400: "The body ended early.",
    401: "Nobody has said who is asking.",
    403: "The call relies on a cookie, and its `Origin` is not allowed.",
    404: "There is no such upload, or it is somebody else's: the same answer, byte for byte.",
    408: "The body did not come in time.",
    409: "It has already completed or failed.",
    413: "The body is larger than `Limits.message_bytes`.",
    422: "A value is malformed; `where` says which one.",
    429: "A limit is reached; `Retry-After` says when to try again.",
    503: "The session store does not answer, and this process is not receiving the upload.",
}
_HEADERS: Final[dict[str, JsonObject]] = {
    "Cache-Control": {"schema": {"const": "no-store"}},
    "ETag": {"schema": {"type": "string"}, "description": "Changes with every snapshot."},
    "Location": {"schema": {"type": "string"}, "description": "The path of the progress."},
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 1},
        "description": "Seconds. While the upload is open: when to ask again.",
    },
    "WWW-Authenticate": {"schema": {"type": "string"}},
    "Upload-Offset": {"schema": {"type": "integer"}, "description": "Bytes received."},
    "Upload-Length": {"schema": {"type": "integer"}, "description": "The size, once known."},
    "Upload-Complete": {"schema": {"enum": ["?0", "?1"]}, "description": "Every byte is here."},
    "X-Accel-Buffering": {"schema": {"const": "no"}},
}


def answered(
    status: int, description: str, content: JsonObject | None = None, headers: str = ""
) -> JsonObject:
    """Return a response, keyed by its status, with the *headers* of those names."""
    names = ["Cache-Control", *headers.split()]
    response: JsonObject = {
        "description": description,
        "headers": {name: _HEADERS[name] for name in names},
    }
    if content is not None:
        response["content"] = content
    return {str(status): response}


def refused(*statuses: int) -> JsonObject:
    """Return the problem responses of *statuses*."""
    responses: JsonObject = {}
    for status in statuses:
        headers = "Retry-After" if status in {429, 503} else ""
        content = json_content(Problem, PROBLEM_TYPE)
        responses |= answered(status, _WHY[status], content, headers)
    return responses


def streamed(once: type, *, event: type) -> JsonObject:
    """Return the content of an answer that is JSON *once*, or a stream whose data is *event*."""
    stream: JsonObject = {
        "schema": {"type": "string", "contentMediaType": _EVENT_STREAM},
        "x-event-data": reference(event),
    }
    return {**json_content(once), _EVENT_STREAM: stream}
