"""How fast, and how long still: an exponential moving average that is told the time.

Each observation weighs by how long it lasted: after one half-life its share has halved.
The average starts from nothing, so its early value is divided by the weight gathered so
far, which removes the pull towards zero. Nothing is claimed before ``MINIMUM_SECONDS``
of data: one gulp of a buffer says nothing about a line.
"""

from typing import Final

from attrs import frozen

__all__ = [
    "HALF_LIFE_SECONDS",
    "MINIMUM_SECONDS",
    "RateEstimate",
    "eta_seconds",
]

HALF_LIFE_SECONDS: Final = 2.0
MINIMUM_SECONDS: Final = 2.0


@frozen
class RateEstimate:
    """A smoothed rate. Immutable: looking ahead with ``observe`` changes nothing.

    Attributes:
        at_seconds: When it was last observed, on the clock of the caller.
        at_bytes: How many bytes had come by then. What was there at the start is no speed.
        weighted_rate: The average before its early pull towards zero is removed.
        span_seconds: How long it has been observed.
    """

    at_seconds: float
    at_bytes: int = 0
    weighted_rate: float = 0.0
    span_seconds: float = 0.0

    def observe(self, now_seconds: float, total_bytes: int) -> "RateEstimate":
        """Return the estimate after *total_bytes* have come by *now_seconds*."""
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
        """The smoothed rate; None until there are two seconds of data."""
        if self.span_seconds < MINIMUM_SECONDS:
            return None
        gathered: float = 1 - 0.5 ** (self.span_seconds / HALF_LIFE_SECONDS)
        return round(self.weighted_rate / gathered, 1)


def eta_seconds(remaining_bytes: int | None, bytes_per_second: float | None) -> float | None:
    """Return how long *remaining_bytes* take at that rate; None when either is unknown or zero."""
    if remaining_bytes is None or not bytes_per_second:
        return None
    return round(max(remaining_bytes, 0) / bytes_per_second, 1)
