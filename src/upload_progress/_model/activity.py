"""What depends on time about an upload: its rate, silence, a stall, and how its body arrived.

No function reads a clock. An upload is observed once in a while, not per chunk, so the time of its
last byte is as exact as the observations are frequent.

An upload is silent after 3 s without a byte: its rate is unknown then, instead of an average that
falls slowly. A stall is a longer silence, of a configured time.
"""

from collections.abc import Sequence
from typing import Final

from attrs import define, field

from upload_progress._model.models import Arrival
from upload_progress._model.rate import SILENT_SECONDS, RateEstimate

__all__ = [
    "BUFFERED_BYTES",
    "BUFFERED_BYTES_PER_SECOND",
    "OBSERVE_SECONDS",
    "STREAM_SECONDS",
    "WAITED_SECONDS",
    "Activity",
    "judge_arrival",
]

OBSERVE_SECONDS: Final = 1.0
"""How often an upload is observed while bytes arrive: how exact ``last_byte_at`` is."""


@define(weakref_slot=False)
class Activity:
    """The activity of an upload while it is receiving.

    Attributes:
        began_at: When the first byte could arrive, in monotonic seconds.
        received_bytes: The number of bytes at the last observation.
        changed_at: The last observation at which there were new bytes, in monotonic seconds.
        last_byte_at: The same in seconds since the epoch; None before the first byte.
        is_silent: Whether no byte has arrived for 3 s.
        is_stalled: Whether no byte has arrived for the configured time.
        changes: How many observations found new bytes.
        waits: At how many of these the application was waiting for more bytes.
        began_bytes: The number of bytes at the beginning.
        estimate: The smoothed rate.
    """

    began_at: float
    received_bytes: int = 0
    changed_at: float = field(init=False)
    last_byte_at: float | None = None
    is_silent: bool = False
    is_stalled: bool = False
    changes: int = 0
    waits: int = 0
    began_bytes: int = field(init=False)
    estimate: RateEstimate = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the rate and the time of the last change at the beginning."""
        self.changed_at = self.began_at
        self.began_bytes = self.received_bytes
        self.estimate = RateEstimate(self.began_at, self.received_bytes)

    def observe(
        self,
        now: float,
        wall: float,
        received_bytes: int,
        stall_after_seconds: float,
        *,
        is_waiting: bool = False,
    ) -> bool:
        """Observe the number of bytes; return whether a silence or a stall has begun or ended.

        Args:
            now: Monotonic seconds.
            wall: Seconds since the epoch.
            received_bytes: The number of bytes received so far.
            stall_after_seconds: How long without a byte is a stall.
            is_waiting: Whether the application waits for more bytes.
        """
        before = (self.is_silent, self.is_stalled)
        if received_bytes != self.received_bytes:
            self.received_bytes, self.changed_at, self.last_byte_at = received_bytes, now, wall
            self.is_silent = self.is_stalled = False
            self.changes += 1
            self.waits += is_waiting
        else:
            self.is_silent = now - self.changed_at >= SILENT_SECONDS
            self.is_stalled = now - self.changed_at >= stall_after_seconds
        has_changed = before != (self.is_silent, self.is_stalled)
        if has_changed and not (self.is_silent or self.is_stalled):
            self.estimate = RateEstimate(now, received_bytes)
        return has_changed

    def update_rate(self, now: float) -> None:
        """Include the bytes of the last observation, made at *now*, in the rate.

        Time without bytes does not lower the rate before more bytes arrive: the rate that was
        reported stays the same until it is unknown.
        """
        if self.received_bytes != self.estimate.at_bytes:
            self.estimate = self.estimate.observe(now, self.received_bytes)

    @property
    def bytes_per_second(self) -> float | None:
        """The smoothed rate; None until there are 2 s of data, and while no byte arrives."""
        return None if self.is_silent or self.is_stalled else self.estimate.bytes_per_second

    @property
    def average_bytes_per_second(self) -> float | None:
        """The average rate from the first byte to the last; None if that took no time."""
        seconds = self.changed_at - self.began_at
        return (self.received_bytes - self.began_bytes) / seconds if seconds > 0 else None

    @property
    def is_led_by_client(self) -> bool:
        """Whether the application mostly waited for bytes, and not the bytes for it."""
        return self.waits > 0 and self.waits * 2 >= self.changes

    def next_observation(
        self, now: float, gates: Sequence[float], stall_after_seconds: float
    ) -> float | None:
        """Return when to observe again; None if nothing can change until a byte arrives.

        Args:
            now: The time of this observation, in monotonic seconds.
            gates: When a report may become due, in monotonic seconds.
            stall_after_seconds: How long without a byte is a stall.
        """
        times = list(gates)
        if now - self.changed_at < OBSERVE_SECONDS:
            times.append(now + OBSERVE_SECONDS)
        if not self.is_silent:
            times.append(self.changed_at + SILENT_SECONDS)
        if not self.is_stalled:
            times.append(self.changed_at + stall_after_seconds)
        return max(min(times), now) if times else None


# How a body arrived. A server cannot prove either way, so two signs are required for each.
#
# Buffered: the body came faster than over a network, as from the disk of a proxy, and there was a
# proxy (by the request head), or a delay between announcement and first byte. nginx buffers
# request bodies by default (``proxy_request_buffering``).
#
# Streamed: the body took its time, and the application waited for bytes. An application that reads
# slowly would make even a buffered body last.

STREAM_SECONDS: Final = 1.0
BUFFERED_BYTES_PER_SECOND: Final = 64 * 1024 * 1024
BUFFERED_BYTES: Final = 1024 * 1024
WAITED_SECONDS: Final = 0.5


def judge_arrival(
    *,
    received_bytes: int,
    body_seconds: float,
    waited_seconds: float,
    is_proxied: bool,
    is_led_by_client: bool,
) -> Arrival | None:
    """Return how a body arrived; None if that is not certain.

    Args:
        received_bytes: The size of the body.
        body_seconds: From the first byte to the last.
        waited_seconds: From the announcement of the upload to its first byte; 0 without one.
        is_proxied: Whether the request head shows a proxy.
        is_led_by_client: Whether the application waited for bytes, and not the bytes for it.
    """
    if body_seconds >= STREAM_SECONDS:
        return Arrival.STREAMED if is_led_by_client else None
    is_fast = received_bytes >= max(BUFFERED_BYTES, BUFFERED_BYTES_PER_SECOND * body_seconds)
    if is_fast and (is_proxied or waited_seconds >= WAITED_SECONDS):
        return Arrival.BUFFERED
    return None
