"""Exponential backoff with jitter: how long to wait before the next attempt to connect.

The delays grow by a factor of two up to a maximum, and each is shortened by a random factor
between 0.5 and 1.0, so that workers that lost the same server do not all return at the same
moment (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: "equal jitter").
"""

import random as _random
from collections.abc import Callable
from typing import Final

from attrs import Attribute, define, field

from upload_progress.exceptions import InvalidValue

__all__ = ["Backoff"]

_FACTOR: Final = 2.0
_LEAST_JITTER: Final = 0.5


def _check_positive(_backoff: "Backoff", attribute: "Attribute[float]", seconds: float) -> None:
    if seconds <= 0:
        raise InvalidValue(attribute.name, "must be greater than 0")


@define(eq=False)
class Backoff:
    """The sequence of delays between attempts. It has no clock and does not sleep.

    >>> backoff = Backoff(first_seconds=0.1, maximum_seconds=3.0, random=lambda: 1.0)
    >>> [backoff.next_delay_seconds() for _ in range(6)]
    [0.1, 0.2, 0.4, 0.8, 1.6, 3.0]
    >>> backoff.reset()
    >>> backoff.next_delay_seconds()
    0.1

    Args:
        first_seconds: Delay after the first failure, before jitter.
        maximum_seconds: No delay is longer than this.
        random: Returns a number from 0.0 to 1.0: 0.0 halves a delay, 1.0 leaves it as it is.

    Raises:
        InvalidValue: A delay is 0 or negative.
    """

    first_seconds: float = field(kw_only=True, validator=_check_positive)
    maximum_seconds: float = field(kw_only=True, validator=_check_positive)
    random: Callable[[], float] = field(default=_random.random, kw_only=True, repr=False)
    _delay_seconds: float | None = field(default=None, init=False)

    @property
    def has_failed(self) -> bool:
        """Whether a delay was taken since the last reset."""
        return self._delay_seconds is not None

    def next_delay_seconds(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        if self._delay_seconds is None:
            delay_seconds = self.first_seconds
        else:
            delay_seconds = self._delay_seconds * _FACTOR
        self._delay_seconds = min(delay_seconds, self.maximum_seconds)
        return self._delay_seconds * (_LEAST_JITTER + (1.0 - _LEAST_JITTER) * self.random())

    def reset(self) -> None:
        """Begin again with the first delay, after a success."""
        self._delay_seconds = None
