"""Exceptions: their messages name the cause and the fix."""

from __future__ import annotations

from upload_progress.exceptions import MiddlewareMissing, MissingExtra


def test_error_messages_name_the_fix() -> None:
    assert "UploadProgressMiddleware" in str(MiddlewareMissing())
    missing = MissingExtra("redis", "redis")
    assert "pip install 'upload-progress[redis]'" in str(missing)
    assert (missing.package, missing.extra) == ("redis", "redis")
    assert isinstance(missing, ImportError)
