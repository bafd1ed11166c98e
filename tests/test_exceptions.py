"""Exceptions: their messages name the cause and the fix."""

from __future__ import annotations

import pytest

from upload_progress.exceptions import (
    CertificateInvalid,
    InvalidValue,
    MiddlewareMissing,
    MissingExtra,
    NotAllowed,
    NotEntered,
    QuotaExceeded,
    SchemaMissing,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadProgressError,
    UploadRejected,
)

ERRORS = [
    CertificateInvalid("https://example.org", "self-signed certificate"),
    InvalidValue("body.total_bytes", "must not be negative"),
    NotAllowed(403, "not yours"),
    NotEntered("RedisPublisher"),
    QuotaExceeded("sockets_per_owner", 20),
    SchemaMissing("public"),
    ServerBusy("too many requests", 5.0),
    ServerUnreachable("https://example.org", "connection refused"),
    UnexpectedResponse("https://example.org", "sent HTML"),
    UploadRejected(None, "virus"),
    UploadRejected(413, "too large"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_message_contains_the_attributes(error: UploadProgressError) -> None:
    values = [value for name, value in vars(error).items() if name != "retry_after_seconds"]

    assert [value for value in values if value is not None and str(value) not in str(error)] == []


def test_error_messages_name_the_fix() -> None:
    assert "UploadProgressMiddleware" in str(MiddlewareMissing())
    missing = MissingExtra("redis", "redis")
    assert "pip install 'upload-progress[redis]'" in str(missing)
    assert (missing.package, missing.extra) == ("redis", "redis")
    assert isinstance(missing, ImportError)
