"""What an answer means for the caller: which error it is, if it is one.

Errors of this library's routes are problem documents (RFC 9457) with a ``code``; those of other
programs on the way are whatever they are, so that their text is cut, and cleaned, before it is
shown.
"""

import os
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx2
from attrs import frozen

from upload_progress._model.codec import decode_json
from upload_progress.exceptions import (
    InvalidValue,
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedAnswer,
    UploadEnded,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "DEFAULT_RETRY_SECONDS",
    "MOST_SHOWN_CHARACTERS",
    "Refusal",
    "failure_of",
    "network_failure",
    "rejection_of",
]

MOST_SHOWN_CHARACTERS: Final = 200
DEFAULT_RETRY_SECONDS: Final = 1.0

_TAGS: Final = re.compile(r"<[^<>]{0,200}>")
_SPACES: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


@frozen
class Refusal:
    """The parts of an answer that say why it is none.

    Attributes:
        code: The word of a problem document; "" where it is none.
        detail: Why, in the server's words, fit to be shown.
    """

    status: int
    code: str
    detail: str
    where: str
    retry_after_seconds: float
    location: str

    @classmethod
    def of(cls, response: httpx2.Response, body: bytes) -> "Refusal":
        """Read it from *response* and the beginning of its *body*."""
        members = _problem(response, body)
        phrase = f"{response.status_code} {response.reason_phrase}".strip()
        text = members.get("detail") or members.get("title") or _text(body) or phrase
        return cls(
            status=response.status_code,
            code=str(members.get("code") or ""),
            detail=_shown(str(text)),
            where=_shown(str(members.get("where") or "request")),
            retry_after_seconds=_retry_after(response.headers.get("retry-after", "")),
            location=_shown(response.headers.get("location", "")),
        )


def failure_of(refusal: Refusal, address: str) -> UploadProgressError:
    """Return the error of a call of the progress API at *address* that was refused."""
    match refusal.status:
        case 422 if refusal.code:
            return InvalidValue(refusal.where, refusal.detail.removeprefix(f"{refusal.where}: "))
        case 404 if refusal.code == "not_found":
            return UploadNotFound()
        case 409 if refusal.code == "upload_ended":
            return UploadEnded("over")
        case 404 | 405:
            problem = f"answers {refusal.status}: no progress routes are mounted there"
            return UnexpectedAnswer(address, problem)
        case _:
            return _general(refusal, address) or UnexpectedAnswer(
                address, f"answers {refusal.status}: {refusal.detail}"
            )


def rejection_of(refusal: Refusal, address: str) -> UploadProgressError:
    """Return the error of an upload to *address* that was answered so."""
    return _general(refusal, address) or UploadRejected(refusal.status, refusal.detail)


def _general(refusal: Refusal, address: str) -> UploadProgressError | None:
    match refusal.status:
        case 401 | 403 as status:
            return NotAllowed(status, refusal.detail)
        case 429 | 503:
            return ServerBusy(refusal.detail, refusal.retry_after_seconds)
        case 408 | 502 | 504:
            return ServerUnreachable(address, refusal.detail)
        case status if status < HTTPStatus.BAD_REQUEST:
            moved = f", and points to {refusal.location}" if refusal.location else ""
            return UnexpectedAnswer(address, f"answers {status}{moved}: use the address meant")
        case _:
            return None


def network_failure(error: httpx2.TransportError, address: str) -> UploadProgressError:
    """Return what a failure of the network means: the innermost word that says anything."""
    words, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        words = _reason(cause) or words
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        words = f"no answer in time ({type(error).__name__})"
    return ServerUnreachable(address, _shown(words) or type(error).__name__)


def _reason(cause: BaseException) -> str:
    # asyncio puts words of its own, with the address, where the system's would be.
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause)


def _problem(response: httpx2.Response, body: bytes) -> Mapping[str, object]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        return decode_json(body, "problem")
    except InvalidValue:
        return {}


def _text(body: bytes) -> str:
    return _shown(_TAGS.sub(" ", body.decode("utf-8", "replace")))


def _shown(text: str) -> str:
    """Return *text* on one line, without control characters, and not too long."""
    text = _SPACES.sub(" ", text).strip()
    cut = text[:MOST_SHOWN_CHARACTERS]
    return f"{cut}…" if len(text) > len(cut) else cut


def _retry_after(text: str) -> float:
    return float(text) if _SECONDS.fullmatch(text) else DEFAULT_RETRY_SECONDS
