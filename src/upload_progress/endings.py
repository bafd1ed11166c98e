"""How an upload ends: the signal for the table, and the error that is shown."""

from typing import Final

from upload_progress.lifecycle import Signal
from upload_progress.model import ErrorCode, UploadError

__all__ = [
    "ABORTED",
    "CANCELLED",
    "DISCONNECTED",
    "LOST",
    "LOWEST_ERROR_STATUS",
    "RAISED",
    "ending_of",
]

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
