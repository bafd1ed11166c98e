"""Smoothed rate and remaining time: an exponential moving average without a clock.

Each observation weighs by its duration: after one half-life its share has halved. The average
starts from zero, so its early value is divided by the weight so far, which removes the bias
towards zero. There is no rate before ``MINIMUM_SECONDS`` of data: the contents of one buffer say
nothing about the rate of a connection.
"""

from typing import Final

from msgspec import Struct

__all__ = [
    "HALF_LIFE_SECONDS",
    "MINIMUM_SECONDS",
    "SILENT_SECONDS",
    "RateEstimate",
    "eta_seconds",
]

HALF_LIFE_SECONDS: Final = 2.0
MINIMUM_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 3.0
"""After how long without a byte the worker that receives an upload reports no rate."""


class RateEstimate(Struct, frozen=True, gc=False):
    """A smoothed rate. Immutable: ``observe`` returns a new estimate.

    Attributes:
        at_seconds: When it was last observed, on the clock of the caller.
        at_bytes: The bytes at that time. Bytes that were there at the start do not count.
        weighted_rate: The average before the early bias towards zero is removed.
        span_seconds: The duration of all observations.
    """

    at_seconds: float
    at_bytes: int = 0
    weighted_rate: float = 0.0
    span_seconds: float = 0.0

    def observe(self, now_seconds: float, total_bytes: int) -> "RateEstimate":
        """Return the estimate after *total_bytes* have arrived by *now_seconds*."""
        elapsed = now_seconds - self.at_seconds
        if elapsed <= 0:
            return self
        keep = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
        rate = (total_bytes - self.at_bytes) / elapsed
        return RateEstimate(
            at_seconds=now_seconds,
            at_bytes=total_bytes,
            weighted_rate=keep * self.weighted_rate + (1 - keep) * rate,
            span_seconds=self.span_seconds + elapsed,
        )

    @property
    def bytes_per_second(self) -> float | None:
        """The smoothed rate; None until there are 2 s of data."""
        if self.span_seconds < MINIMUM_SECONDS:
            return None
        weight: float = 1 - 0.5 ** (self.span_seconds / HALF_LIFE_SECONDS)
        return round(self.weighted_rate / weight, 1)


def eta_seconds(remaining_bytes: int | None, bytes_per_second: float | None) -> float | None:
    """Return the time for *remaining_bytes* at a rate; None if either is unknown, or no rate."""
    if remaining_bytes is None or not bytes_per_second:
        return None
    return round(max(remaining_bytes, 0) / bytes_per_second, 1)
