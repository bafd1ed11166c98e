from __future__ import annotations

import errno
import ssl

import httpx2
import pytest

from tests._support import recording_server as acts
from upload_progress.client.responses import (
    MOST_SHOWN_CHARACTERS,
    Refusal,
    failure_of,
    network_failure,
    rejection_of,
)
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


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    act = acts.problem(status, code, **headers)
    assert not isinstance(act, Exception)
    return act(httpx2.Request("GET", acts.URL))


def refusal(response: httpx2.Response) -> Refusal:
    return Refusal.of(response, response.content)


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (problem(401, "unauthenticated"), NotAllowed, "refuses (401): It is unauthenticated."),
        (problem(403, "foreign_origin"), NotAllowed, "403"),
        (problem(404, "not_found"), UploadNotFound, "no such upload"),
        (problem(409, "upload_ended"), UploadEnded, "ended"),
        (problem(422, "invalid_value"), InvalidValue, "request: It is invalid_value."),
        (problem(429, "quota_exceeded"), ServerBusy, "busy: It is quota_exceeded."),
        (problem(503, "store_unavailable"), ServerBusy, "busy"),
        (httpx2.Response(404, text="nope"), UnexpectedAnswer, "no progress routes"),
        (httpx2.Response(405), UnexpectedAnswer, "no progress routes"),
        (httpx2.Response(422, text="nope"), UnexpectedAnswer, "answers 422: nope"),
        (httpx2.Response(502, html="<h1>Bad</h1> Gateway"), ServerUnreachable, "Bad Gateway"),
        (httpx2.Response(500), UnexpectedAnswer, "500 Internal Server Error"),
        (httpx2.Response(301, headers={"location": "/x"}), UnexpectedAnswer, "points to /x"),
        (httpx2.Response(304), UnexpectedAnswer, "answers 304: use"),
    ],
)
def test_a_refused_call_is_an_error_of_ours(
    response: httpx2.Response, kind: type[UploadProgressError], words: str
) -> None:
    error = failure_of(refusal(response), "http://h/uploads")

    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (problem(413, "too_large"), UploadRejected),
        (httpx2.Response(404), UploadRejected),
        (httpx2.Response(500), UploadRejected),
        (httpx2.Response(403), NotAllowed),
        (httpx2.Response(504), ServerUnreachable),
    ],
)
def test_a_refused_upload_is_an_error_of_ours(
    response: httpx2.Response, kind: type[UploadProgressError]
) -> None:
    assert type(rejection_of(refusal(response), "http://h/f")) is kind


def test_what_a_server_says_is_made_harmless() -> None:
    said = refusal(httpx2.Response(400, text="a\x1b[2J\r\nb" + 1000 * "c"))

    assert said.detail.startswith("a [2J b")
    assert len(said.detail) == MOST_SHOWN_CHARACTERS + 1


def test_a_broken_problem_is_shown_as_it_is() -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "soon"}
    said = refusal(httpx2.Response(503, headers=headers, text="{oops"))

    assert (said.code, said.detail, said.retry_after_seconds) == ("", "{oops", 1.0)


def test_a_server_says_when_to_come_back() -> None:
    error = failure_of(refusal(problem(429, "quota_exceeded", retry_after="7")), "")

    assert isinstance(error, ServerBusy)
    assert error.retry_after_seconds == 7


def caused(error: httpx2.TransportError, cause: BaseException | None) -> httpx2.TransportError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            caused(
                httpx2.ConnectError("All connection attempts failed"),
                ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 5)"),
            ),
            "Connection refused",
        ),
        (caused(httpx2.ConnectError("x"), ssl.SSLError(1, "certificate verify failed")), "verify"),
        (caused(httpx2.ConnectError("x"), ValueError("inner")), "inner"),
        (caused(httpx2.ReadError("outer"), ConnectionResetError()), "outer"),
        (httpx2.ConnectTimeout(""), "no answer in time (ConnectTimeout)"),
        (httpx2.ReadError(""), "ReadError"),
    ],
)
def test_the_innermost_reason_is_told(error: httpx2.TransportError, words: str) -> None:
    told = str(network_failure(error, "http://h"))

    assert told.startswith("http://h cannot be reached: ")
    assert words in told
