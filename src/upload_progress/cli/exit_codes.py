"""Exit codes, and the text of an error with a hint how to fix it."""

from collections.abc import Collection
from typing import Final

from upload_progress.exceptions import (
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedResponse,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "NOT_ALLOWED",
    "SUCCESS",
    "UNREACHABLE",
    "USAGE",
    "combined_exit_code",
    "error_text",
    "exit_code",
]

SUCCESS: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4
INTERRUPTED: Final = 130

_FAILURES: Final = (UploadRejected, UploadCancelled, UploadEnded, UploadNotFound)
_AUTHENTICATION_HINT: Final = (
    "Authentication required: set UPLOAD_PROGRESS_TOKEN or UPLOAD_PROGRESS_BASIC=user:password, "
    "or add this host to ~/.netrc."
)
_MOUNT_HINT: Final = "If the progress routes are mounted elsewhere, set --mount /path."
_PARTS_HINT: Final = "Use the command without --chunk-size."
_TARGET_HINT: Final = "Check that the URL accepts uploads; a folder needs one that accepts paths."
_CERTIFICATE_HINT: Final = "If you trust this server, set --cacert FILE to its authority."


def exit_code(error: UploadProgressError) -> int:
    """Return the exit code for an error; an error of any other kind is a usage error."""
    match error:
        case NotAllowed():
            return NOT_ALLOWED
        case ServerUnreachable() | ServerBusy():
            return UNREACHABLE
        case _:
            return FAILED if isinstance(error, _FAILURES) else USAGE


def combined_exit_code(codes: Collection[int]) -> int:
    """Return one exit code for several uploads: that of all failures if it is the same, else 1."""
    failures = {code for code in codes if code != SUCCESS}
    if not failures:
        return SUCCESS
    return failures.pop() if len(failures) == 1 else FAILED


def error_text(error: UploadProgressError) -> str:
    """Return the message of an error, with a hint on a second line where there is one."""
    hint = _hint(error)
    return f"{error}\n{hint}" if hint else str(error)


def _hint(error: UploadProgressError) -> str:
    match error:
        case NotAllowed(status=401):
            return _AUTHENTICATION_HINT
        case UploadRejected(status=404 | 405):
            return _TARGET_HINT
        case UnexpectedResponse() if "accepts parts" in error.problem:
            return _PARTS_HINT
        case UnexpectedResponse():
            return _MOUNT_HINT
        case ServerUnreachable() if "certificate verify failed" in error.problem.lower():
            return _CERTIFICATE_HINT
        case _:
            return ""
