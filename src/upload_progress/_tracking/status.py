"""What is known of a live upload, and what is reported of it; the time by both clocks."""

from enum import Enum, auto
from typing import Final

from msgspec import Struct

__all__ = ["TO_BE_COMPARED", "TO_BE_LOADED", "Moment", "PriorState", "Reporting"]


class Moment(Struct, frozen=True, gc=False):
    """One reading of both clocks.

    Attributes:
        monotonic: Seconds on the monotonic clock.
        wall: Seconds since the Unix epoch.
    """

    monotonic: float
    wall: float


class PriorState(Enum):
    """What is known of the records that the store has of an upload."""

    UNKNOWN = auto()
    """They have not been loaded."""
    LOADED = auto()
    """They were loaded before the own record was stored: another worker may have begun since."""
    COMPARED = auto()
    """They were loaded again after that, and will be once more after the next version of the own
    record: of two that have begun at once, only the one that was stored last sees the other."""
    OTHER = auto()
    """They are of another upload, which this one replaces if its first request is accepted."""
    CONFIRMED = auto()
    """No other record is expected."""
    ENDED = auto()
    """The upload has ended elsewhere, and late requests change nothing."""


TO_BE_LOADED: Final = frozenset({PriorState.UNKNOWN, PriorState.OTHER})
TO_BE_COMPARED: Final = frozenset({PriorState.LOADED, PriorState.COMPARED})


class Reporting(Enum):
    """Whether an upload is reported."""

    UNTRACKED = auto()
    """It has no owner, or there was no room for it."""
    CURRENT = auto()
    """The last report is current."""
    DUE_HERE = auto()
    """A report is due to the subscriptions of this process, which watch the upload."""
    DUE = auto()
    """A report is due, which is also stored and published."""
    ENDED = auto()
    """The end was reported."""
    SUPERSEDED = auto()
    """A newer upload has its id, or its only request was refused: it is not reported any more."""
