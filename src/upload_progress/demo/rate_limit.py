"""Artificial rate limit, so that a progress bar moves visibly on a fast machine."""

import anyio
from attrs import define, field

__all__ = ["RateLimit"]


@define
class RateLimit:
    """Delays the consumer of a byte stream to a maximum rate.

    Attributes:
        bytes_per_second: The maximum rate; None for no limit.
    """

    bytes_per_second: float | None = None
    _due: float = field(default=0.0, init=False)

    async def wait(self, size_bytes: int) -> None:
        """Sleep as long as *size_bytes* take at this rate; unused time is not credited."""
        if self.bytes_per_second is None:
            return
        self._due = max(self._due, anyio.current_time()) + size_bytes / self.bytes_per_second
        await anyio.sleep_until(self._due)
