"""Retries after network failures: how many, and how long to wait before each."""

from typing import Final

import anyio
from attrs import define, field

from upload_progress._runtime.backoff import Backoff
from upload_progress.exceptions import ServerBusy, UploadProgressError

__all__ = ["MAX_DELAY_SECONDS", "RetryPolicy"]

MAX_DELAY_SECONDS: Final = 30.0


@define(eq=False, repr=False)
class RetryPolicy:
    """Limits the consecutive failures of one operation, and waits between them.

    Attributes:
        retries: How many consecutive failures are allowed.
        backoff: The delays between them.
    """

    retries: int
    backoff: Backoff
    _failures: int = field(default=0, init=False)

    @classmethod
    def create(cls, retries: int, first_delay_seconds: float) -> "RetryPolicy":
        """Return a policy whose delays grow from *first_delay_seconds* to 30 s."""
        backoff = Backoff(first_seconds=first_delay_seconds, maximum_seconds=MAX_DELAY_SECONDS)
        return cls(retries, backoff)

    def reset(self) -> None:
        """Count from zero again, after a success."""
        self._failures = 0
        self.backoff.reset()

    async def wait(self, error: UploadProgressError) -> None:
        """Wait before the next attempt; at least as long as a busy server asked for.

        Raises:
            UploadProgressError: The given *error*, if no retry is left.
        """
        if self._failures >= self.retries:
            raise error
        self._failures += 1
        requested = error.retry_after_seconds if isinstance(error, ServerBusy) else 0.0
        delay = max(self.backoff.next_delay_seconds(), min(requested, MAX_DELAY_SECONDS))
        await anyio.sleep(delay)
