"""Exit codes, and what mends an error: a message that leaves one stuck is half a message."""

from collections.abc import Collection
from typing import Final

from upload_progress.exceptions import (
    NotAllowed,
    ServerBusy,
    ServerUnreachable,
    UnexpectedAnswer,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "NOT_ALLOWED",
    "UNREACHABLE",
    "USAGE",
    "code_of",
    "explained",
    "summed_up",
]

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4
INTERRUPTED: Final = 130

_FAILURES: Final = (UploadRejected, UploadCancelled, UploadEnded, UploadNotFound)
_SIGN_IN: Final = (
    "Say who you are: UPLOAD_PROGRESS_TOKEN, or UPLOAD_PROGRESS_BASIC=user:password, "
    "or an entry for this host in ~/.netrc."
)
_MOUNT: Final = "Say where the server has its progress routes: --mount /path."
_TARGET: Final = "Is the URL that of a place for uploads? Folders need one with room for paths."
_CERTIFICATE: Final = "If you trust it, name the authority that signed it: --cacert FILE."


def code_of(error: UploadProgressError) -> int:
    """Return the exit code that tells of *error*; what is not known better is usage."""
    match error:
        case NotAllowed():
            return NOT_ALLOWED
        case ServerUnreachable() | ServerBusy():
            return UNREACHABLE
        case _:
            return FAILED if isinstance(error, _FAILURES) else USAGE


def summed_up(codes: Collection[int]) -> int:
    """Return one code for several uploads: what all failures have in common, else 1."""
    failures = {code for code in codes if code != DONE}
    if not failures:
        return DONE
    return failures.pop() if len(failures) == 1 else FAILED


def explained(error: UploadProgressError) -> str:
    """Return what is wrong, and what mends it where that is known."""
    hint = _mend(error)
    return f"{error}\n{hint}" if hint else str(error)


def _mend(error: UploadProgressError) -> str:
    match error:
        case NotAllowed(status=401):
            return _SIGN_IN
        case UploadRejected(status=404 | 405):
            return _TARGET
        case UnexpectedAnswer():
            return _MOUNT
        case ServerUnreachable() if "certificate verify failed" in error.problem.lower():
            return _CERTIFICATE
        case _:
            return ""
