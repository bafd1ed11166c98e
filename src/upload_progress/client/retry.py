"""Retries after network failures: how many, and how long to wait before each."""

from collections.abc import Callable
from typing import Final

import anyio
from attrs import define, field, frozen

from upload_progress._runtime.backoff import Backoff
from upload_progress.exceptions import CertificateInvalid, ServerBusy, UploadProgressError

__all__ = ["MAX_DELAY_SECONDS", "MAX_RETRY_AFTER_SECONDS", "Retry", "RetryPolicy", "ignore"]

MAX_DELAY_SECONDS: Final = 30.0
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A longer time that a busy server asks for is shortened to this."""
_RETRY_AFTER_JITTER: Final = 0.25


def ignore(*_values: object) -> None:
    """Do nothing: the default of a callback."""


@frozen
class Retry:
    """A failure after which a request is sent again.

    Attributes:
        error: The failure.
        delay_seconds: How long the client waits before it tries again, in seconds.
        number: How many consecutive failures there were, this one included.
        retries: How many consecutive failures are allowed.
    """

    error: UploadProgressError
    delay_seconds: float
    number: int
    retries: int


@define(eq=False, repr=False)
class RetryPolicy:
    """Limits the consecutive failures of one operation, and waits between them.

    Attributes:
        retries: How many consecutive failures are allowed.
        backoff: The delays between them.
        on_retry: Called with each failure before the wait.
    """

    retries: int
    backoff: Backoff
    on_retry: Callable[[Retry], object] = ignore
    _failures: int = field(default=0, init=False)

    @classmethod
    def create(
        cls,
        retries: int,
        first_delay_seconds: float,
        on_retry: Callable[[Retry], object] = ignore,
    ) -> "RetryPolicy":
        """Return a policy whose delays grow from *first_delay_seconds* to 30 s."""
        backoff = Backoff(first_seconds=first_delay_seconds, maximum_seconds=MAX_DELAY_SECONDS)
        return cls(retries, backoff, on_retry)

    def reset(self) -> None:
        """Count from zero again, after a success."""
        self._failures = 0
        self.backoff.reset()

    async def wait(self, error: UploadProgressError) -> None:
        """Wait before the next attempt; at least as long as a busy server asked for.

        Up to a quarter is added to that time at random, so that not all clients return at once.

        Raises:
            UploadProgressError: The given *error*, if no retry is left or none can help.
        """
        if self._failures >= self.retries or isinstance(error, CertificateInvalid):
            raise error
        self._failures += 1
        requested = error.retry_after_seconds if isinstance(error, ServerBusy) else 0.0
        requested = min(requested, MAX_RETRY_AFTER_SECONDS)
        requested *= 1.0 + _RETRY_AFTER_JITTER * self.backoff.random()
        delay = max(self.backoff.next_delay_seconds(), requested)
        self.on_retry(Retry(error, delay, self._failures, self.retries))
        await anyio.sleep(delay)
