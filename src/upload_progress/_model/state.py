"""The states of an upload, the transitions between them, and how an upload ends.

An upload is announced (``pending``), its bytes arrive (``receiving``), it may wait between two
requests of a resumable protocol (``paused``), all bytes have arrived but the application has not
responded (``processing``), and it ends in one of three final states. *Received is not processed*:
a client learns of success only by the response, so the last byte leads to ``processing``, and only
the response to ``completed``.

A signal without a row in the table is ignored. So final states are final: late signals (a
disconnect after the response, an exception of a background task, a second cancel) change nothing.
A disconnect while ``processing`` is ignored as well, because every byte has arrived.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final

from upload_progress._model.models import ErrorCode, UploadError, UploadState

__all__ = [
    "ABANDONED",
    "ABORTED",
    "CANCELLED",
    "DISCONNECTED",
    "FINAL_STATES",
    "INFERRED_CODES",
    "LOST",
    "NOT_RESUMED",
    "OPEN_STATES",
    "RAISED",
    "RUNNING_STATES",
    "TASK_LOST",
    "TASK_STOPPED",
    "TRANSITIONS",
    "WAITING_STATES",
    "Signal",
    "is_final",
    "is_receiving",
    "is_waiting",
    "next_state",
    "result_of",
]


@unique
class Signal(StrEnum):
    """An event that may change the state of an upload."""

    BEGIN = "begin"
    """A request that carries bytes of the upload has begun."""
    PAUSE = "pause"
    """The request ended early or was refused, and its protocol can resume."""
    BODY_END = "body_end"
    """The last byte has arrived."""
    ACCEPT = "accept"
    """The application responded with 2xx, or with 302 or 303 after the whole body."""
    REDIRECT = "redirect"
    """The application responded with 301, 307 or 308: the client repeats the request elsewhere."""
    REJECT = "reject"
    """The application responded with another status, or called ``fail()``."""
    RAISE = "raise"
    """The application raised an exception."""
    DISCONNECT = "disconnect"
    """The client disconnected before the last byte."""
    CANCEL = "cancel"
    """The owner cancelled, or the server cancelled the application's task."""
    LOSE = "lose"
    """The lease of the worker that received the upload ran out."""
    EXPIRE = "expire"
    """The upload waited too long: for a byte, or for a task to which it was handed over."""


OPEN_STATES: Final = frozenset(
    {UploadState.PENDING, UploadState.RECEIVING, UploadState.PAUSED, UploadState.PROCESSING}
)
FINAL_STATES: Final = frozenset(UploadState) - OPEN_STATES
RUNNING_STATES: Final = frozenset({UploadState.RECEIVING, UploadState.PROCESSING})
"""Open states in which a worker receives the upload."""
WAITING_STATES: Final = frozenset({UploadState.PENDING, UploadState.PAUSED})
"""Open states in which no worker receives the upload: it expires, and has no lease."""

_RESULTS: Final = {
    Signal.ACCEPT: UploadState.COMPLETED,
    Signal.REDIRECT: UploadState.PENDING,
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
        (UploadState.PROCESSING, Signal.EXPIRE): UploadState.FAILED,
        (UploadState.RECEIVING, Signal.DISCONNECT): UploadState.FAILED,
        **{
            (state, signal): result
            for state in (UploadState.RECEIVING, UploadState.PROCESSING)
            for signal, result in _RESULTS.items()
        },
    }
)
"""State × signal → next state. The diagram in the documentation is drawn from this table."""


def next_state(state: UploadState, signal: Signal) -> UploadState | None:
    """Return the state after *signal*; None if the signal changes nothing."""
    return TRANSITIONS.get((state, signal))


def is_final(state: UploadState) -> bool:
    """Return whether nothing follows *state* within its attempt."""
    return state in FINAL_STATES


def is_receiving(state: UploadState) -> bool:
    """Return whether bytes may arrive in *state*."""
    return state is UploadState.RECEIVING


def is_waiting(state: UploadState) -> bool:
    """Return whether *state* is open, and no worker receives the upload."""
    return state in WAITING_STATES


_SUCCESS: Final = range(200, 300)
_REPEATED_ELSEWHERE: Final = frozenset({301, 307, 308})
"""Redirects after which a client repeats the request, with its body (RFC 9110, section 15.4)."""
_RESULT_PAGE: Final = frozenset({302, 303})
"""Redirects to a page about the result, the usual answer to a form (RFC 9110, section 15.4)."""

ABANDONED: Final = UploadError(ErrorCode.CANCELLED_BY_OWNER, "The client abandoned the upload.")
CANCELLED: Final = UploadError(ErrorCode.CANCELLED_BY_OWNER, "The owner cancelled the upload.")
RAISED: Final = UploadError(ErrorCode.APP_ERROR, "The application raised an error.")
ABORTED: Final = UploadError(
    ErrorCode.APP_ERROR, "The server stopped the request before it was answered."
)
DISCONNECTED: Final = UploadError(
    ErrorCode.CLIENT_DISCONNECTED, "The client disconnected before the last byte."
)
INFERRED_CODES: Final = frozenset({ErrorCode.WORKER_LOST, ErrorCode.EXPIRED})
"""Ends that workers conclude from silence; the worker that receives the upload overrules them."""
LOST: Final = UploadError(
    ErrorCode.WORKER_LOST, "The server process that received the upload is gone."
)
NOT_RESUMED: Final = UploadError(ErrorCode.EXPIRED, "No task has resumed the processing in time.")
TASK_LOST: Final = UploadError(ErrorCode.WORKER_LOST, "The task that processed the upload is gone.")
TASK_STOPPED: Final = UploadError(
    ErrorCode.APP_ERROR, "The task that processed the upload was stopped."
)


def result_of(
    status: int | None,
    failure_message: str | None,
    *,
    has_whole_body: bool,
    reason: str | None = None,
) -> tuple[Signal, UploadError | None]:
    """Return what the response means for an upload in one request.

    Args:
        status: The status of the response; None for an upload without HTTP.
        failure_message: Why the application failed the upload, whatever the status.
        has_whole_body: Whether the last byte had arrived.
        reason: What the response says about its status.
    """
    if failure_message is None:
        if status is None or status in _SUCCESS or (status in _RESULT_PAGE and has_whole_body):
            return Signal.ACCEPT, None
        if status in _REPEATED_ELSEWHERE:
            return Signal.REDIRECT, None
    message = failure_message or reason or f"The server answered with status {status}."
    return Signal.REJECT, UploadError(ErrorCode.REJECTED, message, status)
