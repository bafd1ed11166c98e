"""Errors as problem documents (RFC 9457), and as close codes of a WebSocket.

What is not there and what is not yours are one and the same constant here, so that no byte
of an answer can tell them apart.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from attrs import evolve, frozen
from starlette.responses import Response

from upload_progress.errors import (
    InvalidValue,
    QuotaExceeded,
    StoreUnavailable,
    UploadEnded,
    UploadProgressError,
)
from upload_progress.wire import encode_json

__all__ = [
    "COMMON_HEADERS",
    "FOREIGN_ORIGIN",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "UNCHECKED",
    "Problem",
    "Refused",
    "problem_of",
    "problem_response",
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
