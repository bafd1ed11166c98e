"""HTTP semantics of the routes: error responses, content negotiation, conditions and filters.

Errors are problem documents (RFC 9457), or close codes of a WebSocket. An unknown upload and an
upload of another user get the same constant response, so that no byte tells them apart.

An entity tag names the version of a snapshot: attempt, sequence, state and bytes. It is weak,
because the rate and the remaining time change without a new version.

Sources: RFC 9110 sections 12.5.1 (Accept), 12.5.3 (Accept-Encoding) and 13.1.2 (If-None-Match), RFC
7240 (Prefer).
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from attrs import evolve, frozen
from msgspec import UNSET
from starlette.responses import Response

from upload_progress._model.api_types import Problem
from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress, UploadState
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    InvalidValue,
    QuotaExceeded,
    StoreBusy,
    StoreUnavailable,
    UploadCancelled,
    UploadEnded,
    UploadProgressError,
    WorkerStopping,
)

__all__ = [
    "AUTHENTICATION_UNAVAILABLE",
    "COMMON_HEADERS",
    "DEFAULT_PAGE_SIZE",
    "FOREIGN_ORIGIN",
    "MAX_PAGE_SIZE",
    "MAX_WAIT_SECONDS",
    "MIN_RETRY_SECONDS",
    "NOT_FOUND",
    "RETRY_SPREAD_SECONDS",
    "TOKEN_REQUIRED",
    "UNAUTHENTICATED",
    "WEBSOCKET_NOT_HELD",
    "WEBSOCKET_UNSUPPORTED",
    "Condition",
    "ErrorResponse",
    "ListQuery",
    "RequestRefused",
    "entity_tag",
    "json_response",
    "parse_list_query",
    "parse_wait_seconds",
    "preferred_coding",
    "prefers_event_stream",
    "retry_after_seconds",
    "static_response",
    "version_of",
]

COMMON_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "vary": "Accept, Authorization, Cookie, Origin",
    "x-content-type-options": "nosniff",
}
"""Headers of every response that depends on the user."""


# Responses


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with *value* as its JSON body."""
    return Response(
        encode_json(value),
        status_code=status,
        headers={**COMMON_HEADERS, **(headers or {})},
        media_type="application/json",
    )


def static_response(
    connection: Connection,
    content: bytes,
    *,
    media_type: str,
    cache_control: str,
    compressed: Mapping[str, bytes] | None = None,
) -> Response:
    """Return *content*, which is the same for every user, or 304 if the client has it.

    Args:
        connection: The request.
        content: The content.
        media_type: Its media type.
        cache_control: How it may be cached.
        compressed: The content by content coding, the smallest first; None to send it as it is.
    """
    tag = hashlib.sha256(content).hexdigest()[:32]
    headers = {"cache-control": cache_control, "x-content-type-options": "nosniff"}
    if compressed:
        headers["vary"] = "Accept-Encoding"
        if coding := preferred_coding(connection, compressed):
            # Another representation, so another tag (RFC 9110, section 8.8.3.3).
            content, tag = compressed[coding], f"{tag}-{coding}"
            headers["content-encoding"] = coding
    headers["etag"] = f'"{tag}"'
    if tag in Condition.parse(connection).tags:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


# Errors

MIN_RETRY_SECONDS: Final = 1
RETRY_SPREAD_SECONDS: Final = 5


def retry_after_seconds() -> int:
    """Return a random time for ``Retry-After``, so that not all clients return at once."""
    return MIN_RETRY_SECONDS + secrets.randbelow(RETRY_SPREAD_SECONDS)


_UNAVAILABLE: Final = {StoreBusy: "store_busy", WorkerStopping: "worker_stopping"}
_CLOSE_CODES: Final = {401: 4401, 403: 4403, 404: 4404, 429: 4429, 503: 1013}
_OTHER_CLOSE_CODE: Final = 4422


@frozen
class ErrorResponse:
    """A response that reports an error.

    Attributes:
        problem: The problem document, which is the body.
        headers: Headers in addition to the common ones.
    """

    problem: Problem
    headers: Mapping[str, str] = {}

    @classmethod
    def build(
        cls,
        status: int,
        code: str,
        detail: str,
        *,
        where: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "ErrorResponse":
        """Return an error response whose title is the reason phrase of *status*.

        Args:
            status: The HTTP status.
            code: The error for programs; it stays the same if the wording of *detail* changes.
            detail: The error for people.
            where: The path of the invalid value, such as ``body.total_bytes``.
            headers: Headers in addition to the common ones.
        """
        problem = Problem(
            type="about:blank",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            code=code,
            where=UNSET if where is None else where,
        )
        return cls(problem, headers or {})

    @classmethod
    def for_exception(cls, error: UploadProgressError) -> "ErrorResponse":
        """Return the response to *error*; an error that clients must not see becomes a 404."""
        match error:
            case RequestRefused():
                return error.response
            case InvalidValue():
                return cls.build(422, "invalid_value", str(error), where=error.where)
            case UploadEnded() | UploadCancelled():
                is_cancelled = isinstance(error, UploadCancelled)
                code = "upload_cancelled" if is_cancelled else "upload_ended"
                return cls.build(409, code, str(error))
            case QuotaExceeded():
                headers = {"retry-after": str(error.retry_after_seconds)}
                return cls.build(429, "quota_exceeded", str(error), headers=headers)
            case StoreUnavailable():
                code = _UNAVAILABLE.get(type(error), "store_unavailable")
                headers = {"retry-after": str(retry_after_seconds())}
                return cls.build(503, code, str(error), headers=headers)
            case _:
                return NOT_FOUND

    @property
    def close_code(self) -> int:
        """The close code of a WebSocket that ends with this error."""
        return _CLOSE_CODES.get(self.problem.status, _OTHER_CLOSE_CODE)

    def with_headers(self, headers: Mapping[str, str]) -> "ErrorResponse":
        """Return a copy with *headers* added."""
        return evolve(self, headers={**self.headers, **headers})

    def to_response(self) -> Response:
        """Return the HTTP response."""
        return Response(
            encode_json(self.problem),
            status_code=self.problem.status,
            headers={**COMMON_HEADERS, **self.headers},
            media_type="application/problem+json",
        )


class RequestRefused(UploadProgressError):
    """Ends the handling of a request with an error response; never leaves this package."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.problem.detail)
        self.response = response


NOT_FOUND: Final = ErrorResponse.build(
    404, "not_found", "The resource does not exist, or you may not access it."
)
UNAUTHENTICATED: Final = ErrorResponse.build(401, "unauthenticated", "Authentication required.")
TOKEN_REQUIRED: Final = ErrorResponse.build(
    401,
    "unauthenticated",
    "The token of a hand-over is required, as a bearer token.",
    headers={"www-authenticate": 'Bearer realm="upload-progress"'},
)
AUTHENTICATION_UNAVAILABLE: Final = ErrorResponse.build(
    503,
    "authentication_unavailable",
    "Your credentials cannot be checked at the moment.",
    headers={"retry-after": "5"},
)
WEBSOCKET_UNSUPPORTED: Final = ErrorResponse.build(
    501,
    "websocket_unsupported",
    "The server supports no WebSockets: it has passed the handshake on as an ordinary request.",
)
WEBSOCKET_NOT_HELD: Final = ErrorResponse.build(
    501,
    "websocket_unsupported",
    "The proxy in front of this server holds event streams, and no WebSockets.",
)
FOREIGN_ORIGIN: Final = ErrorResponse.build(
    403, "foreign_origin", "Pages of this origin may not send requests on behalf of a user."
)


# Content negotiation and conditional requests

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_MAX_PREFERENCES: Final = 100
_MAX_PARAMETERS: Final = 10
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.ASCII | re.IGNORECASE)


def prefers_event_stream(connection: Connection) -> bool:
    """Tell whether ``Accept`` prefers an event stream to JSON; with equal quality JSON wins."""
    if not any("event-stream" in each.lower() for each in connection.headers("accept")):
        return False  # most polls, without reading the header further
    qualities = _qualities(connection, "accept")
    stream_quality = qualities.get("text/event-stream", 0.0)
    return stream_quality > qualities.get("application/json", 0.0)


def preferred_coding(connection: Connection, codings: Iterable[str]) -> str | None:
    """Return which content coding ``Accept-Encoding`` prefers (RFC 9110, section 12.5.3).

    Args:
        connection: The request.
        codings: The codings; with equal quality, the first of them wins.

    Returns:
        None if none of them is accepted.
    """
    qualities = _qualities(connection, "accept-encoding")
    others = qualities.get("*", 0.0)
    best = max(codings, key=lambda coding: qualities.get(coding, others))
    return best if qualities.get(best, others) > 0 else None


def _qualities(connection: Connection, header: str) -> dict[str, float]:
    """Return the quality of each value in a header of preferences; without ``q`` it is 1.

    Of a long header, only the beginning is read: this is done for clients of whom nothing is known.
    """
    qualities: dict[str, float] = {}
    items = ",".join(connection.headers(header)).split(",", _MAX_PREFERENCES)
    for item in items[:_MAX_PREFERENCES]:
        value, *parameters = (part.strip() for part in item.split(";", _MAX_PARAMETERS))
        matches = (_QUALITY.fullmatch(parameter) for parameter in parameters)
        qualities[value.lower()] = next((float(match[1]) for match in matches if match), 1.0)
    return qualities


def version_of(progress: UploadProgress) -> str:
    """Return the version of a snapshot: it changes with every stored change of the upload."""
    return f"{progress.attempt}.{progress.sequence}.{progress.state}"


def entity_tag(progress: UploadProgress) -> str:
    """Return the entity tag of a snapshot."""
    return f'W/"{version_of(progress)}.{progress.bytes_transferred}"'


@frozen
class Condition:
    """The snapshots that a client has, by ``If-None-Match``.

    Attributes:
        tags: The entity tags, without ``W/`` and quotes.
        is_any: Whether the header is ``*``.
    """

    tags: frozenset[str]
    is_any: bool

    @classmethod
    def parse(cls, connection: Connection) -> "Condition":
        """Return the condition of a request; a malformed header is no condition."""
        text = ",".join(connection.headers("if-none-match"))
        return cls(frozenset(_ENTITY_TAG.findall(text)), text.strip() == "*")

    def matches(self, progress: UploadProgress) -> bool:
        """Tell whether the client has exactly this snapshot."""
        if not self.tags:
            return self.is_any
        return self.is_any or entity_tag(progress)[3:-1] in self.tags

    def matches_version(self, progress: UploadProgress) -> bool:
        """Tell whether the client has this version, possibly with fewer bytes."""
        versions = {tag.rpartition(".")[0] for tag in self.tags}
        return self.is_any or version_of(progress) in versions

    def resolved(self, progress: UploadProgress) -> "Condition":
        """Return the condition with ``*`` replaced by the tag of *progress*."""
        return Condition(frozenset({entity_tag(progress)[3:-1]}), False) if self.is_any else self


# Parameters

MAX_WAIT_SECONDS: Final = 60
MAX_PAGE_SIZE: Final = 1000
DEFAULT_PAGE_SIZE: Final = 100

_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse_wait_seconds(connection: Connection) -> int:
    """Return the duration of a long poll: ``?wait=`` or ``Prefer: wait=``, at most 60 seconds.

    A preference that is not understood is ignored (RFC 7240, section 2).

    Raises:
        InvalidValue: The query parameter is not a number of seconds.
    """
    text, preferred = connection.query.get("wait"), _preference(connection, "wait")
    if text is None and preferred is not None and _DIGITS.fullmatch(preferred):
        text = preferred
    if text is None:
        return 0
    if not _DIGITS.fullmatch(text):
        raise InvalidValue("query.wait", "must be a whole number of seconds")
    return min(int(text), MAX_WAIT_SECONDS)


def _preference(connection: Connection, name: str) -> str | None:
    for preference in ",".join(connection.headers("prefer")).split(","):
        key, _, value = preference.partition(";")[0].partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return None


@frozen
class ListQuery:
    """The filters of a list.

    Attributes:
        states: Only uploads in these states; None for the open and recently ended ones.
        group: Only uploads of this group; None for all.
        cursor: The ``next`` of the previous page; None for the first page.
        limit: Maximum number of uploads on a page.
    """

    states: frozenset[UploadState] | None
    group: str | None
    cursor: str | None
    limit: int


def parse_list_query(connection: Connection) -> ListQuery:
    """Return the filters ``?state=``, ``?group=``, ``?cursor=`` and ``?limit=``.

    Raises:
        InvalidValue: A filter is malformed.
    """
    query = connection.query
    return ListQuery(
        states=_states(connection),
        group=query.get("group"),
        cursor=query.get("cursor"),
        limit=_limit(query.get("limit")),
    )


def _states(connection: Connection) -> frozenset[UploadState] | None:
    raw = bytes(connection.scope.get("query_string", b"")).decode("latin-1")
    texts = [value for name, value in parse_qsl(raw) if name == "state"]
    names = [name.strip() for text in texts for name in text.split(",")]
    try:
        states = frozenset(UploadState(name) for name in names if name)
    except ValueError:
        allowed = ", ".join(UploadState)
        raise InvalidValue("query.state", f"must be one or more of {allowed}") from None
    return states or None


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE_SIZE
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise InvalidValue("query.limit", f"must be a whole number from 1 to {MAX_PAGE_SIZE}")
    return int(text)
