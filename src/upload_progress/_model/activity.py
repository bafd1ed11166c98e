"""What only time shows about an upload: how fast bytes come, and since when none came.

Nothing here reads a clock. It is looked at now and then, not per chunk, so the moment of
the last byte is as exact as the looks are frequent.
"""

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from upload_progress._model.models import Arrival
from upload_progress._model.rate import RateEstimate

__all__ = [
    "GULP_BYTES",
    "GULP_BYTES_PER_SECOND",
    "LOOK_SECONDS",
    "STREAM_SECONDS",
    "WAITED_SECONDS",
    "Activity",
    "judge_arrival",
]

LOOK_SECONDS: Final = 1.0
"""How often an upload whose bytes come is looked at: how exact ``last_byte_at`` is."""


@define
class Activity:
    """Follows one transfer while its bytes come.

    Attributes:
        began_at: When the first byte could come, on the monotonic clock.
        seen_bytes: How many had come at the last look.
        changed_at: The last look at which there were more than before.
        last_byte_at: The same moment on the wall clock; None before the first byte.
        is_stalled: Whether no byte has come for too long.
        looks: How often bytes had come since the look before.
        waits: How often of those the application was waiting for more.
        estimate: The smoothed rate.
    """

    began_at: float
    seen_bytes: int = 0
    changed_at: float = field(init=False)
    last_byte_at: float | None = None
    is_stalled: bool = False
    looks: int = 0
    waits: int = 0
    estimate: RateEstimate = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the clockwork at the beginning."""
        self.changed_at = self.began_at
        self.estimate = RateEstimate(self.began_at, self.seen_bytes)

    def observe(
        self,
        now: float,
        wall: float,
        received_bytes: int,
        stall_after_seconds: float,
        *,
        is_waiting: bool = False,
    ) -> bool:
        """Take note of *received_bytes*; return whether a stall has begun or ended."""
        was_stalled = self.is_stalled
        if received_bytes != self.seen_bytes:
            self.seen_bytes, self.changed_at, self.last_byte_at = received_bytes, now, wall
            self.is_stalled = False
            self.looks += 1
            self.waits += is_waiting
        else:
            self.is_stalled = now - self.changed_at >= stall_after_seconds
        if was_stalled and not self.is_stalled:
            self.estimate = RateEstimate(now, received_bytes)
        self.estimate = self.estimate.observe(now, received_bytes)
        return was_stalled is not self.is_stalled

    @property
    def is_led_by_client(self) -> bool:
        """Whether the application mostly waited for bytes, and not the bytes for it."""
        return self.waits > 0 and self.waits * 2 >= self.looks

    def next_look(
        self, now: float, gates: Sequence[float], stall_after_seconds: float
    ) -> float | None:
        """Return when to look again; None when there is nothing to see until a byte comes.

        Args:
            now: The time of this look.
            gates: When a report may fall due, if a byte comes by then.
            stall_after_seconds: How long without a byte is a stall.
        """
        if now - self.changed_at < LOOK_SECONDS:
            return now + LOOK_SECONDS
        waits = list(gates) if self.is_stalled else [*gates, self.changed_at + stall_after_seconds]
        return max(min(waits), now) if waits else None


# FROM arrival: Did the bytes come as the client sent them, or in one gulp from a buffering proxy?
#
# Nothing that a server sees proves either, so both need two witnesses, or nothing is claimed.
#
# ``buffered``: the body came faster than networks bring one, as it does from a proxy's disk,
# and there was a proxy (its mark is in the head), or a wait between announcement and first byte.
# nginx buffers so unless told not to (``proxy_request_buffering``).
#
# ``streamed``: the body took its time, and it was the application that waited for bytes. An
# application that reads slowly would make the contents of any buffer last.
#

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
