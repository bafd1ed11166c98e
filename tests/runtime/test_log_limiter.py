"""LogLimiter are few, and say no secret."""

from __future__ import annotations

import logging

import pytest
from attrs import define

from upload_progress._runtime.log_limiter import LOG_EVERY_SECONDS, LogLimiter


@define
class StoppedClock:
    """A clock that is set by hand."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Return what it is set to."""
        return self.now

    def time(self) -> float:
        """Return what it is set to."""
        return self.now


def test_each_kind_is_said_once_in_half_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """I11: however often it goes wrong; all are counted."""
    clock = StoppedClock()
    log_limiter = LogLimiter(clock)

    for clock.now in (0.0, 1.0, LOG_EVERY_SECONDS - 0.1, LOG_EVERY_SECONDS):
        log_limiter.log_warning("this failed", ValueError("secret"))
        log_limiter.log_warning("that failed")

    assert log_limiter.count == 8
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert (
        caplog.messages
        == [
            "this failed (ValueError); uploads are not affected",
            "that failed; uploads are not affected",
        ]
        * 2
    )
    assert clock.time() == clock.now
