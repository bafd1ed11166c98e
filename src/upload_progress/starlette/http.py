"""Errors as problem documents (RFC 9457), and as close codes of a WebSocket.

What is not there and what is not yours are one and the same constant here, so that no byte
of an answer can tell them apart.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from attrs import evolve, frozen
from starlette.responses import Response

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress, UploadState
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    InvalidValue,
    QuotaExceeded,
    StoreUnavailable,
    UploadEnded,
    UploadProgressError,
)

__all__ = [
    "COMMON_HEADERS",
    "Condition",
    "DEFAULT_PER_PAGE",
    "FOREIGN_ORIGIN",
    "LONGEST_WAIT_SECONDS",
    "ListQuery",
    "MAX_GROUP_CHARACTERS",
    "MOST_PER_PAGE",
    "NOT_FOUND",
    "Problem",
    "Refused",
    "UNAUTHENTICATED",
    "UNCHECKED",
    "entity_tag",
    "list_query",
    "problem_of",
    "problem_response",
    "version_of",
    "wait_seconds",
    "wants_stream",
]

COMMON_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "vary": "Accept, Authorization, Cookie, Origin",
    "x-content-type-options": "nosniff",
}
"""On every answer: nothing here is for a shared cache, or for guessing at its type."""

_CLOSE_CODES: Final = {401: 4401, 403: 4403, 404: 4404, 429: 4429, 503: 1013}


@frozen
class Problem:
    """What went wrong, for a program (``code``, ``where``) and for a person (``detail``).

    Attributes:
        status: The HTTP status.
        code: A word that stays the same whatever the wording of ``detail``.
        where: Which value is malformed, such as ``body.total_bytes``.
        headers: What the answer carries besides.
    """

    status: int
    code: str
    detail: str
    where: str | None = None
    headers: Mapping[str, str] = {}

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    @property
    def close_code(self) -> int:
        """The code with which a WebSocket is closed for this."""
        return _CLOSE_CODES.get(self.status, 4422)

    def document(self) -> dict[str, object]:
        """Return the members of the problem document."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return members if self.where is None else {**members, "where": self.where}

    def with_headers(self, headers: Mapping[str, str]) -> "Problem":
        """Return the same problem with *headers* added."""
        return evolve(self, headers={**self.headers, **headers})


class Refused(UploadProgressError):
    """Ends the handling of a request with a problem; never leaves this package."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


NOT_FOUND: Final = Problem(404, "not_found", "There is nothing here, or nothing for you.")
UNAUTHENTICATED: Final = Problem(401, "unauthenticated", "Say who you are.")
UNCHECKED: Final = Problem(
    503, "unchecked", "Who you are cannot be checked now.", headers={"retry-after": "5"}
)
FOREIGN_ORIGIN: Final = Problem(
    403, "foreign_origin", "Pages of this origin may not act for you here."
)


def problem_of(error: UploadProgressError) -> Problem:
    """Return how *error* is told to a client; what is not known to be told is not found."""
    match error:
        case Refused():
            return error.problem
        case InvalidValue():
            return Problem(422, "invalid_value", str(error), error.where)
        case UploadEnded():
            return Problem(409, "upload_ended", str(error))
        case QuotaExceeded():
            wait = {"retry-after": str(error.retry_after_seconds)}
            return Problem(429, "quota_exceeded", str(error), headers=wait)
        case StoreUnavailable():
            return Problem(503, "store_unavailable", str(error), headers={"retry-after": "2"})
        case _:
            return NOT_FOUND


def problem_response(problem: Problem) -> Response:
    """Return the answer that tells of *problem*."""
    return Response(
        encode_json(problem.document()),
        status_code=problem.status,
        headers={**COMMON_HEADERS, **problem.headers},
        media_type="application/problem+json",
    )


# FROM starlette.negotiation: What a request asks for beside its path: representation, conditions, patience, filters.
#
# Sources: RFC 9110 sections 12.5.1 (Accept) and 13.1.2 (If-None-Match), RFC 7240 (Prefer). An
# entity tag names the version of a snapshot: attempt, sequence, state and bytes. It is weak,
# because rate and time left change without a new version.
#

LONGEST_WAIT_SECONDS: Final = 60
MOST_PER_PAGE: Final = 1000
DEFAULT_PER_PAGE: Final = 100
MAX_GROUP_CHARACTERS: Final = 128

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.ASCII | re.IGNORECASE)


def wants_stream(connection: Connection) -> bool:
    """Tell whether events are preferred to JSON; what accepts both alike gets JSON."""
    qualities: dict[str, float] = {}
    for offer in ",".join(connection.headers("accept")).split(","):
        media_type, *parameters = (part.strip() for part in offer.split(";"))
        matches = (_QUALITY.fullmatch(parameter) for parameter in parameters)
        quality = next((float(match[1]) for match in matches if match), 1.0)
        qualities[media_type.lower()] = quality
    stream = qualities.get("text/event-stream", 0.0)
    return stream > qualities.get("application/json", 0.0)


def version_of(progress: UploadProgress) -> str:
    """Return what changes with every stored change of an upload, and with nothing else."""
    return f"{progress.attempt}.{progress.sequence}.{progress.state}"


def entity_tag(progress: UploadProgress) -> str:
    """Return the entity tag of a snapshot."""
    return f'W/"{version_of(progress)}.{progress.bytes_transferred}"'


@frozen
class Condition:
    """What a client knows already, by ``If-None-Match``.

    Attributes:
        tags: The entity tags, without weakness and quotes.
        is_any: Whether it is ``*``.
    """

    tags: frozenset[str]
    is_any: bool

    @classmethod
    def of(cls, connection: Connection) -> "Condition":
        """Read it; what is malformed is no condition."""
        text = ",".join(connection.headers("if-none-match"))
        return cls(frozenset(_TAG.findall(text)), text.strip() == "*")

    def knows(self, progress: UploadProgress) -> bool:
        """Tell whether the client has just that snapshot."""
        return self.is_any or entity_tag(progress)[3:-1] in self.tags

    def at(self, progress: UploadProgress) -> "Condition":
        """Return the condition with ``*`` replaced by the snapshot that it stands for."""
        return Condition(frozenset({entity_tag(progress)[3:-1]}), False) if self.is_any else self

    def knows_version(self, progress: UploadProgress) -> bool:
        """Tell whether the client has that version, be it with fewer bytes."""
        versions = {tag.rpartition(".")[0] for tag in self.tags}
        return self.is_any or version_of(progress) in versions


def wait_seconds(connection: Connection) -> int:
    """Return how long to wait for news: ``?wait=`` or ``Prefer: wait=``, at most a minute.

    Raises:
        InvalidValue: It is no number of seconds.
    """
    text, where = connection.query.get("wait"), "query.wait"
    if text is None:
        text, where = _preference(connection, "wait"), "header.prefer"
    if text is None:
        return 0
    if not _DIGITS.fullmatch(text):
        raise InvalidValue(where, "is no number of seconds")
    return min(int(text), LONGEST_WAIT_SECONDS)


def _preference(connection: Connection, name: str) -> str | None:
    for preference in ",".join(connection.headers("prefer")).split(","):
        key, _, value = preference.partition(";")[0].partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return None


@frozen
class ListQuery:
    """Which uploads are asked for; ``states`` None stands for the open and recent ones."""

    states: frozenset[UploadState] | None
    group: str | None
    cursor: str | None
    limit: int


def list_query(connection: Connection) -> ListQuery:
    """Read ``?state=``, ``?group=``, ``?cursor=`` and ``?limit=``.

    Raises:
        InvalidValue: One of them is malformed.
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
    words = [word.strip() for text in texts for word in text.split(",")]
    try:
        states = frozenset(UploadState(word) for word in words if word)
    except ValueError:
        known = ", ".join(UploadState)
        raise InvalidValue("query.state", f"knows the states {known}") from None
    return states or None


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_PER_PAGE
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MOST_PER_PAGE:
        raise InvalidValue("query.limit", f"must be a number from 1 to {MOST_PER_PAGE}")
    return int(text)
