from __future__ import annotations

import errno
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from tests._support import recording_server
from upload_progress.client.responses import (
    MAX_DETAIL_CHARACTERS,
    FailedResponse,
    api_error,
    network_error,
    upload_error,
)
from upload_progress.exceptions import (
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


def problem_response(status: int, code: str, **headers: str) -> httpx2.Response:
    reply = recording_server.problem_reply(status, code, **headers)
    assert not isinstance(reply, Exception)
    return reply(httpx2.Request("GET", recording_server.URL))


def parse(response: httpx2.Response) -> FailedResponse:
    return FailedResponse.from_response(response, response.content)


@pytest.mark.parametrize(
    ("response", "error_type", "text"),
    [
        (
            problem_response(401, "unauthenticated"),
            NotAllowed,
            "refused the request (401): It is unauthenticated.",
        ),
        (problem_response(403, "foreign_origin"), NotAllowed, "403"),
        (problem_response(404, "not_found"), UploadNotFound, "no such upload"),
        (problem_response(409, "upload_ended"), UploadEnded, "ended"),
        (problem_response(422, "invalid_value"), InvalidValue, "request: It is invalid_value."),
        (problem_response(429, "quota_exceeded"), ServerBusy, "busy: It is quota_exceeded."),
        (problem_response(503, "store_unavailable"), ServerBusy, "busy"),
        (httpx2.Response(404, text="nope"), UnexpectedResponse, "no progress routes"),
        (httpx2.Response(405), UnexpectedResponse, "no progress routes"),
        (httpx2.Response(422, text="nope"), UnexpectedResponse, "answered 422: nope"),
        (httpx2.Response(502, html="<h1>Bad</h1> Gateway"), ServerUnreachable, "Bad Gateway"),
        (httpx2.Response(500), UnexpectedResponse, "500 Internal Server Error"),
        (httpx2.Response(301, headers={"location": "/x"}), UnexpectedResponse, "redirect to /x"),
        (httpx2.Response(304), UnexpectedResponse, "answered 304, a redirect: use"),
    ],
)
def test_error_response_of_the_api_becomes_an_exception(
    response: httpx2.Response, error_type: type[UploadProgressError], text: str
) -> None:
    error = api_error(parse(response), "http://h/uploads")

    assert type(error) is error_type
    assert text in str(error)


@pytest.mark.parametrize(
    ("response", "error_type"),
    [
        (problem_response(413, "too_large"), UploadRejected),
        (httpx2.Response(404), UploadRejected),
        (httpx2.Response(500), UploadRejected),
        (httpx2.Response(403), NotAllowed),
        (httpx2.Response(504), ServerUnreachable),
    ],
)
def test_error_response_to_an_upload_becomes_an_exception(
    response: httpx2.Response, error_type: type[UploadProgressError]
) -> None:
    assert type(upload_error(parse(response), "http://h/f")) is error_type


def test_detail_is_one_short_printable_line() -> None:
    error = parse(httpx2.Response(400, text="a\x1b[2J\r\nb" + 1000 * "c"))

    assert error.detail.startswith("a [2J b")
    assert len(error.detail) == MAX_DETAIL_CHARACTERS + 1


def test_malformed_problem_document_is_shown_as_text() -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "soon"}
    error = parse(httpx2.Response(503, headers=headers, text="{oops"))

    assert (error.code, error.detail, error.retry_after_seconds) == ("", "{oops", 1.0)


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ({"detail": "Only wheels.", "code": "not_found"}, "Only wheels."),
        ({"detail": [{"loc": "body"}], "title": "Invalid"}, "Invalid"),
        ({"detail": [1]}, '{"detail":[1]}'),
        (["no"], '["no"]'),
    ],
)
def test_detail_of_other_json_is_read_but_no_code(document: object, detail: str) -> None:
    """FastAPI answers errors with a detail."""
    error = parse(httpx2.Response(404, json=document))

    assert (error.code, error.detail) == ("", detail)


@pytest.mark.parametrize(("ahead", "least", "most"), [(60, 50, 60), (-60, 0, 0)])
def test_retry_after_may_be_a_date(ahead: int, least: int, most: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)

    response = parse(problem_response(503, "busy", retry_after=date))
    assert least <= response.retry_after_seconds <= most


def test_retry_after_is_read() -> None:
    error = api_error(parse(problem_response(429, "quota_exceeded", retry_after="7")), "")

    assert isinstance(error, ServerBusy)
    assert error.retry_after_seconds == 7


def with_cause(error: httpx2.TransportError, cause: BaseException | None) -> httpx2.TransportError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            with_cause(
                httpx2.ConnectError("All connection attempts failed"),
                ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 5)"),
            ),
            "Connection refused",
        ),
        (
            with_cause(httpx2.ConnectError("x"), ssl.SSLError(1, "certificate verify failed")),
            "verify",
        ),
        (with_cause(httpx2.ConnectError("x"), ValueError("inner")), "inner"),
        (with_cause(httpx2.ReadError("outer"), ConnectionResetError()), "outer"),
        (httpx2.ConnectTimeout(""), "timed out (ConnectTimeout)"),
        (httpx2.ReadError(""), "ReadError"),
    ],
)
def test_message_contains_the_innermost_reason(error: httpx2.TransportError, text: str) -> None:
    message = str(network_error(error, "http://h"))

    assert message.startswith("http://h cannot be reached: ")
    assert text in message
