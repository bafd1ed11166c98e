"""Streamed, buffered, or nothing claimed."""

from __future__ import annotations

import pytest

from upload_progress._model.activity import (
    BUFFERED_BYTES,
    BUFFERED_BYTES_PER_SECOND,
    STREAM_SECONDS,
    WAITED_SECONDS,
    judge_arrival,
)
from upload_progress._model.models import Arrival

GULP_SECONDS = BUFFERED_BYTES / BUFFERED_BYTES_PER_SECOND


@pytest.mark.parametrize(
    ("size", "seconds", "waited", "proxied", "led", "expected"),
    [
        (1, STREAM_SECONDS, 0.0, False, True, Arrival.STREAMED),
        (BUFFERED_BYTES, STREAM_SECONDS, 9.0, True, True, Arrival.STREAMED),
        (BUFFERED_BYTES, STREAM_SECONDS, 9.0, True, False, None),
        (BUFFERED_BYTES, GULP_SECONDS, 0.0, True, False, Arrival.BUFFERED),
        (BUFFERED_BYTES, GULP_SECONDS, WAITED_SECONDS, False, True, Arrival.BUFFERED),
        (BUFFERED_BYTES, GULP_SECONDS, 0.0, False, True, None),
        (BUFFERED_BYTES - 1, 0.0, 9.0, True, True, None),
        (BUFFERED_BYTES, GULP_SECONDS + 0.001, 9.0, True, True, None),
    ],
)
def test_what_is_claimed(
    *, size: int, seconds: float, waited: float, proxied: bool, led: bool, expected: Arrival | None
) -> None:
    assert expected == judge_arrival(
        received_bytes=size,
        body_seconds=seconds,
        waited_seconds=waited,
        is_proxied=proxied,
        is_led_by_client=led,
    )
