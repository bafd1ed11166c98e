"""Did the bytes come as the client sent them, or in one gulp from a buffering proxy?

Nothing that a server sees proves either, so both need two witnesses, or nothing is claimed.

``buffered``: the body came faster than networks bring one, as it does from a proxy's disk,
and there was a proxy (its mark is in the head), or a wait between announcement and first byte.
nginx buffers so unless told not to (``proxy_request_buffering``).

``streamed``: the body took its time, and it was the application that waited for bytes. An
application that reads slowly would make the contents of any buffer last.
"""

from typing import Final

from upload_progress.model import Arrival

__all__ = [
    "GULP_BYTES",
    "GULP_BYTES_PER_SECOND",
    "STREAM_SECONDS",
    "WAITED_SECONDS",
    "judge_arrival",
]

STREAM_SECONDS: Final = 1.0
GULP_BYTES_PER_SECOND: Final = 64 * 1024 * 1024
GULP_BYTES: Final = 1024 * 1024
WAITED_SECONDS: Final = 0.5


def judge_arrival(
    *,
    received_bytes: int,
    body_seconds: float,
    waited_seconds: float,
    is_proxied: bool,
    is_led_by_client: bool,
) -> Arrival | None:
    """Return how a body came.

    Args:
        received_bytes: Its size.
        body_seconds: From its first byte to its last.
        waited_seconds: From the announcement of the upload to its first byte; 0 without one.
        is_proxied: Whether a proxy left its mark in the head.
        is_led_by_client: Whether the application waited for bytes, and not the bytes for it.
    """
    if body_seconds >= STREAM_SECONDS:
        return Arrival.STREAMED if is_led_by_client else None
    is_gulp = received_bytes >= max(GULP_BYTES, GULP_BYTES_PER_SECOND * body_seconds)
    if is_gulp and (is_proxied or waited_seconds >= WAITED_SECONDS):
        return Arrival.BUFFERED
    return None
