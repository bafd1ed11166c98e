"""Reading slowly on purpose, so that a bar can be watched on a fast machine."""

import anyio
from attrs import define, field

__all__ = [
    "Pace",
]


@define
class Pace:
    """Lets bytes pass at a rate; without a rate, at once.

    Attributes:
        bytes_per_second: The rate; None for no limit.
    """

    bytes_per_second: float | None = None
    _due: float = field(default=0.0, init=False)

    async def spend(self, size_bytes: int) -> None:
        """Wait for as long as *size_bytes* take; what was waited too long is not made up for."""
        if self.bytes_per_second is None:
            return
        self._due = max(self._due, anyio.current_time()) + size_bytes / self.bytes_per_second
        await anyio.sleep_until(self._due)
