"""The command line: ``upload-progress``.

Exit codes: 0 done, 1 the upload failed, 2 it cannot be done as asked, 3 the server cannot be
reached, 4 it does not let us, 130 interrupted.
"""

import sys

from upload_progress._runtime.optional import require
from upload_progress.cli.exit_codes import INTERRUPTED, code_of, explained
from upload_progress.exceptions import UploadProgressError

__all__ = ["main"]


def main() -> None:
    """Do what the command line says, and exit."""
    # Name the extra that mends all that is missing, not just the first package.
    extra = "demo" if sys.argv[1:2] == ["demo"] else "cli"
    try:
        require("cyclopts", extra=extra)
        from upload_progress.cli.commands import run  # noqa: PLC0415  # it needs cyclopts

        sys.exit(run())
    except UploadProgressError as error:
        sys.stderr.write(f"upload-progress: {explained(error)}\n")
        sys.exit(code_of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
