"""What responses say: which bytes the server has, and which exception stands for an error.

The routes of this package answer errors with problem documents (RFC 9457) that have a ``code``.
Other servers and proxies on the way answer anything, so their text is shortened, and stripped of
tags and control characters, before it becomes part of an error message.
"""

import os
import re
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx2
from attrs import frozen

from upload_progress._model.codec import decode_json
from upload_progress.exceptions import (
    CertificateInvalid,
    InvalidValue,
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadEnded,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "DEFAULT_RETRY_SECONDS",
    "MAX_DETAIL_CHARACTERS",
    "FailedResponse",
    "api_error",
    "confirmed_offset",
    "network_error",
    "parse_retry_after",
    "upload_error",
]

MAX_DETAIL_CHARACTERS: Final = 200
DEFAULT_RETRY_SECONDS: Final = 1.0

_PROBLEM_TYPE: Final = "application/problem+json"
_JSON_TYPES: Final = (_PROBLEM_TYPE, "application/json")
_TAGS: Final = re.compile(r"<[^<>]{0,200}>")
_SPACES: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_RANGE: Final = re.compile(
    r"\s*(?:bytes\s*[=: ]\s*)?0*0\s*-\s*([0-9]{1,18})\s*", re.ASCII | re.IGNORECASE
)
_OFFSET: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


@frozen
class FailedResponse:
    """The reason that an unsuccessful HTTP response gives.

    Attributes:
        status: The HTTP status code.
        code: ``code`` of the problem document; empty if the body is not one.
        detail: The reason as one printable line of at most ``MAX_DETAIL_CHARACTERS``.
        where: The invalid value that the problem document names; ``request`` if none.
        retry_after_seconds: From ``Retry-After`` (RFC 9110 section 10.2.3), in seconds.
        location: From ``Location``; empty if absent.
        has_reason: Whether the body gives the reason, not just the status.
    """

    status: int
    code: str
    detail: str
    where: str
    retry_after_seconds: float
    location: str
    has_reason: bool

    @classmethod
    def from_response(cls, response: httpx2.Response, content: bytes) -> "FailedResponse":
        """Read it from the headers of a response and the beginning of its body."""
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        members = _members(content) if media_type in _JSON_TYPES else {}
        # FastAPI's errors have a detail, too, but they are no problem documents.
        problem = members if media_type == _PROBLEM_TYPE else {}
        phrase = f"{response.status_code} {response.reason_phrase}".strip()
        text = _text_of(members) or _plain_text(content)
        return cls(
            status=response.status_code,
            code=str(problem.get("code") or ""),
            detail=_one_line(text or phrase),
            where=_one_line(str(problem.get("where") or "request")),
            retry_after_seconds=parse_retry_after(response.headers.get("retry-after", "")),
            location=_one_line(response.headers.get("location", "")),
            has_reason=bool(text),
        )


def api_error(response: FailedResponse, address: str) -> UploadProgressError:
    """Return the exception for an error response of the progress API at *address*."""
    match response.status:
        case 422 if response.code:
            problem = response.detail.removeprefix(f"{response.where}: ")
            return InvalidValue(response.where, problem)
        case 404 if response.code == "not_found":
            return UploadNotFound()
        case 409 if response.code == "upload_ended":
            return UploadEnded("over")
        case 404 | 405 as status:
            problem = f"answered {status}: no progress routes are mounted at this URL"
            return UnexpectedResponse(address, problem)
        case status:
            return _common_error(response, address) or UnexpectedResponse(
                address, f"answered {status}: {response.detail}"
            )


def upload_error(response: FailedResponse, address: str) -> UploadProgressError:
    """Return the exception for an error response to an upload to *address*."""
    return _common_error(response, address) or UploadRejected(response.status, response.detail)


def _common_error(response: FailedResponse, address: str) -> UploadProgressError | None:
    match response.status:
        case 401 | 403 as status:
            return NotAllowed(status, response.detail)
        case 429 | 503:
            return ServerBusy(response.detail, response.retry_after_seconds)
        case 408 | 502 | 504:
            return ServerUnreachable(address, response.detail)
        case status if status < HTTPStatus.BAD_REQUEST:
            target = f" to {response.location}" if response.location else ""
            problem = f"answered {status}, a redirect{target}: use the final URL"
            return UnexpectedResponse(address, problem)
        case _:
            return None


def network_error(error: httpx2.TransportError, address: str) -> UploadProgressError:
    """Return the exception for a failed connection, with the innermost reason that has a text."""
    reason, cause = str(error), error.__cause__ or error.__context__
    error_type = ServerUnreachable
    while cause is not None:
        reason = _reason(cause) or reason
        if isinstance(cause, ssl.SSLCertVerificationError):
            error_type = CertificateInvalid
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.TimeoutException):
        reason = f"timed out ({type(error).__name__})"
    return error_type(address, _one_line(reason) or type(error).__name__)


def _reason(cause: BaseException) -> str:
    # asyncio replaces strerror by a text of its own, which contains the IP address.
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause)


def _members(content: bytes) -> Mapping[str, object]:
    try:
        return decode_json(content, "problem")
    except InvalidValue:
        return {}


def _text_of(members: Mapping[str, object]) -> str | None:
    values = (members.get("detail"), members.get("title"))
    return next((each for each in values if isinstance(each, str) and each.strip()), None)


def _plain_text(content: bytes) -> str:
    return _one_line(_TAGS.sub(" ", content.decode("utf-8", "replace")))


def _one_line(text: str) -> str:
    text = _SPACES.sub(" ", text).strip()
    cut = text[:MAX_DETAIL_CHARACTERS]
    return f"{cut}…" if len(text) > len(cut) else cut


def parse_retry_after(text: str) -> float:
    """Return the seconds until the time in a header ``Retry-After``; a default if it has none."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return DEFAULT_RETRY_SECONDS


def confirmed_offset(response: httpx2.Response) -> int | None:
    """Return the offset of the first byte that the server does not have; None if it names none.

    A server names it with ``Upload-Offset``, or by answering 308 with ``Range: bytes=0-N``.

    >>> confirmed_offset(httpx2.Response(308, headers={"range": "bytes=0-41"}))
    42
    >>> confirmed_offset(httpx2.Response(204, headers={"upload-offset": "42"}))
    42
    >>> confirmed_offset(httpx2.Response(201))
    """
    is_answered = response.is_success or response.status_code == HTTPStatus.PERMANENT_REDIRECT
    offset = response.headers.get("upload-offset", "")
    if is_answered and _OFFSET.fullmatch(offset):
        return int(offset)
    received = _RANGE.fullmatch(response.headers.get("range", ""))
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT and received:
        return int(received[1]) + 1
    return None
