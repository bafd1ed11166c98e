"""The life of an upload: the only place where states are compared.

An upload is announced (``pending``), its bytes come (``receiving``), may rest between two
requests of a resumable protocol (``paused``), are all here but not yet answered for
(``processing``), and end in exactly one of three ways. *Received is not processed*: the
client hears of success only when the application has answered, so the last byte leads to
``processing`` and only the answer to ``completed``.

A signal that has no row is ignored. That makes final states absorbing: whatever comes
late (a disconnect after the answer, an exception of a background task, a second cancel)
changes nothing. A disconnect while ``processing`` is ignored too: every byte is here, and
what becomes of them is the application's word, not the client's.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from upload_progress._model.models import ErrorCode, UploadError, UploadState

__all__ = [
    "ABORTED",
    "CANCELLED",
    "DISCONNECTED",
    "FINAL_STATES",
    "LOST",
    "LOWEST_ERROR_STATUS",
    "OPEN_STATES",
    "RAISED",
    "TRANSITIONS",
    "WAITING_STATES",
    "Signal",
    "ending_of",
    "is_final",
    "is_receiving",
    "is_waiting",
    "next_state",
]


@unique
class Signal(StrEnum):
    """What can happen to an upload."""

    BEGIN = "begin"
    """A request that carries its bytes has arrived."""
    PAUSE = "pause"
    """The request ended early, or was not taken, and its protocol can resume."""
    BODY_END = "body_end"
    """The last byte is here."""
    ACCEPT = "accept"
    """The application answered with a status below 400."""
    REJECT = "reject"
    """The application answered with a status of 400 or more, or called ``fail()``."""
    RAISE = "raise"
    """The application raised an exception."""
    DISCONNECT = "disconnect"
    """The client went away before the last byte."""
    CANCEL = "cancel"
    """The owner cancelled, or the server cancelled the application's task."""
    LOSE = "lose"
    """The lease of the worker that received it ran out."""
    EXPIRE = "expire"
    """It waited too long without a byte."""


OPEN_STATES: Final = frozenset(
    {UploadState.PENDING, UploadState.RECEIVING, UploadState.PAUSED, UploadState.PROCESSING}
)
FINAL_STATES: Final = frozenset(UploadState) - OPEN_STATES
WAITING_STATES: Final = frozenset({UploadState.PENDING, UploadState.PAUSED})
"""Open, but no worker is receiving: these expire, and hold no lease."""

_ENDINGS: Final = {
    Signal.ACCEPT: UploadState.COMPLETED,
    Signal.REJECT: UploadState.FAILED,
    Signal.RAISE: UploadState.FAILED,
    Signal.CANCEL: UploadState.CANCELLED,
    Signal.LOSE: UploadState.FAILED,
}

TRANSITIONS: Final[Mapping[tuple[UploadState, Signal], UploadState]] = MappingProxyType(
    {
        (UploadState.PENDING, Signal.BEGIN): UploadState.RECEIVING,
        (UploadState.PENDING, Signal.REJECT): UploadState.FAILED,
        (UploadState.PENDING, Signal.CANCEL): UploadState.CANCELLED,
        (UploadState.PENDING, Signal.EXPIRE): UploadState.FAILED,
        (UploadState.PAUSED, Signal.BEGIN): UploadState.RECEIVING,
        (UploadState.PAUSED, Signal.REJECT): UploadState.FAILED,
        (UploadState.PAUSED, Signal.CANCEL): UploadState.CANCELLED,
        (UploadState.PAUSED, Signal.EXPIRE): UploadState.FAILED,
        (UploadState.RECEIVING, Signal.PAUSE): UploadState.PAUSED,
        (UploadState.RECEIVING, Signal.BODY_END): UploadState.PROCESSING,
        (UploadState.PROCESSING, Signal.PAUSE): UploadState.PAUSED,
        (UploadState.RECEIVING, Signal.DISCONNECT): UploadState.FAILED,
        **{
            (state, signal): ending
            for state in (UploadState.RECEIVING, UploadState.PROCESSING)
            for signal, ending in _ENDINGS.items()
        },
    }
)
"""State × signal → next state. The documentation draws its diagram from this table."""


def next_state(state: UploadState, signal: Signal) -> UploadState | None:
    """Return where *signal* leads from *state*; None when it changes nothing."""
    return TRANSITIONS.get((state, signal))


def is_final(state: UploadState) -> bool:
    """Tell whether nothing follows *state* within its attempt."""
    return state in FINAL_STATES


def is_receiving(state: UploadState) -> bool:
    """Tell whether bytes may come right now."""
    return state is UploadState.RECEIVING


def is_waiting(state: UploadState) -> bool:
    """Tell whether *state* is open without a worker that receives."""
    return state in WAITING_STATES


# FROM endings: How an upload ends: the signal for the table, and the error that is shown.

LOWEST_ERROR_STATUS: Final = 400

CANCELLED: Final = UploadError(ErrorCode.CANCELLED_BY_OWNER, "The owner cancelled the upload.")
RAISED: Final = UploadError(ErrorCode.APP_ERROR, "The application raised an error.")
ABORTED: Final = UploadError(
    ErrorCode.APP_ERROR, "The server stopped the request before it was answered."
)
DISCONNECTED: Final = UploadError(
    ErrorCode.CLIENT_DISCONNECTED, "The client disconnected before the last byte."
)
LOST: Final = UploadError(
    ErrorCode.WORKER_LOST, "The server process that received the upload is gone."
)


def ending_of(status: int | None, verdict: str | None) -> tuple[Signal, UploadError | None]:
    """Return what an answer means for the upload it answers.

    Args:
        status: The status of the response; None for an upload without HTTP.
        verdict: Why the application condemned it, whatever the status.
    """
    if verdict is None and (status is None or status < LOWEST_ERROR_STATUS):
        return Signal.ACCEPT, None
    message = verdict or f"The server answered with status {status}."
    return Signal.REJECT, UploadError(ErrorCode.REJECTED, message, status)
