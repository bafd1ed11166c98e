"""The log limiter: one warning in half a minute, without secrets."""

from __future__ import annotations

import logging

import pytest

from upload_progress._runtime.log_limiter import LOG_EVERY_SECONDS, LogLimiter, first_cause
from upload_progress.exceptions import InvalidValue
from upload_progress.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log_limiter(clock: FakeClock) -> LogLimiter:
    return LogLimiter(clock)


def test_each_message_is_logged_once_in_half_a_minute(
    clock: FakeClock, log_limiter: LogLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in (0.0, 1.0, LOG_EVERY_SECONDS - 1.5, 0.5):
        clock.advance(seconds)
        log_limiter.log_warning("this failed", ValueError("secret"))
        log_limiter.log_warning("that failed")

    assert log_limiter.count == 8
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert caplog.messages == 2 * [
        "this failed (ValueError); uploads are not affected",
        "that failed; uploads are not affected",
    ]


def test_messages_of_one_topic_are_limited_together(
    log_limiter: LogLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    log_limiter.log_warning("the publisher failed", topic="broker")
    log_limiter.log_warning("the subscriber failed", topic="broker")
    log_limiter.log_warning("the store failed", effect="uploads continue")

    assert caplog.messages == [
        "the publisher failed; uploads are not affected",
        "the store failed; uploads continue",
    ]


def test_text_of_an_error_of_the_library_is_logged(
    log_limiter: LogLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    log_limiter.log_warning("decoding failed", InvalidValue("sequence", "must not be negative"))

    assert caplog.messages == [
        "decoding failed (sequence: must not be negative); uploads are not affected"
    ]


def test_first_cause_of_nested_groups() -> None:
    error = OSError()

    assert first_cause(error) is error
    assert first_cause(ExceptionGroup("outer", [ExceptionGroup("inner", [error])])) is error
