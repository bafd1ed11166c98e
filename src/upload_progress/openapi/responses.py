"""Response objects of the OpenAPI document."""

from typing import Final

from upload_progress._model.api_types import Problem
from upload_progress.openapi.schemas import JsonObject, json_content, schema_reference

__all__ = [
    "PROBLEM_MEDIA_TYPE",
    "error_responses",
    "response",
    "snapshot_or_stream",
    "static_responses",
]

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_EVENT_STREAM: Final = "text/event-stream"

_ERRORS: Final = {
    400: "The request body ended before it was complete.",
    401: "The request has no valid credentials.",
    403: "The request relies on a cookie or cached credentials, and its `Origin` is not allowed.",
    404: "The upload does not exist, or belongs to another user. Both responses are identical.",
    408: "The request body did not arrive in time.",
    409: "The upload has ended, or its response is being sent.",
    413: "The request body is larger than `Limits.message_bytes`.",
    422: "A value is invalid; `where` names it.",
    429: "A limit is reached; retry after `Retry-After`.",
    503: "The store does not answer, or too many requests wait for it, and this process is not "
    "receiving the upload; or the credentials cannot be checked.",
}
_HEADERS: Final[dict[str, JsonObject]] = {
    "Cache-Control": {
        "schema": {"enum": ["no-store", "no-store, no-transform"]},
        "description": "`no-transform` for event streams.",
    },
    "ETag": {"schema": {"type": "string"}, "description": "Changes with every snapshot."},
    "Location": {"schema": {"type": "string"}, "description": "The path of the progress."},
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 1},
        "description": "Seconds after which to send the request again.",
    },
    "Upload-Offset": {
        "schema": {"type": "integer"},
        "description": "The first byte that is not accepted: 0 before the response, for an upload "
        "in one request.",
    },
    "Upload-Length": {"schema": {"type": "integer"}, "description": "The size, if it is known."},
    "Upload-Complete": {
        "schema": {"enum": ["?0", "?1"]},
        "description": "`?1` if the upload has completed.",
    },
}


def response(
    status: int, description: str, content: JsonObject | None = None, headers: str = ""
) -> JsonObject:
    """Return a response by its status.

    Args:
        status: The HTTP status.
        description: The meaning of the response.
        content: The body by media type; None for no body.
        headers: The names of its headers, separated by spaces, besides ``Cache-Control``.
    """
    names = ["Cache-Control", *headers.split()]
    value: JsonObject = {
        "description": description,
        "headers": {name: _HEADERS[name] for name in names},
    }
    if content is not None:
        value["content"] = content
    return {str(status): value}


def error_responses(*statuses: int) -> JsonObject:
    """Return the problem responses of *statuses*."""
    responses: JsonObject = {}
    for status in statuses:
        headers = "Retry-After" if status in {429, 503} else ""
        content = json_content(Problem, PROBLEM_MEDIA_TYPE)
        responses |= response(status, _ERRORS[status], content, headers)
    return responses


def static_responses(description: str, content: JsonObject) -> JsonObject:
    """Return the responses of a resource that is the same for every user."""
    return {
        "200": {
            "description": description,
            "headers": {"ETag": {"schema": {"type": "string"}}},
            "content": content,
        },
        "304": {"description": "The client has the version that `If-None-Match` names."},
    }


def snapshot_or_stream(kind: type, *, event: type) -> JsonObject:
    """Return the content of a response: *kind* as JSON, or a stream of *event*."""
    stream: JsonObject = {
        "schema": {"type": "string", "contentMediaType": _EVENT_STREAM},
        "x-event-data": schema_reference(event),
    }
    return {**json_content(kind), _EVENT_STREAM: stream}
