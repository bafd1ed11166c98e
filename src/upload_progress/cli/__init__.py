"""The command line: ``upload-progress``.

Exit codes: 0 success, 1 the upload failed, 2 usage error, 3 the server is unreachable, 4 access
denied, 130 interrupted.
"""

import sys

from upload_progress._runtime.optional import require
from upload_progress.cli.exit_codes import INTERRUPTED, SUCCESS, error_text, exit_code
from upload_progress.cli.stored_help import stored_help
from upload_progress.exceptions import UploadProgressError

__all__ = ["main"]


def main() -> None:
    """Run the command that the command line names, and exit with its exit code."""
    text = stored_help(sys.argv[1:], sys.stdout.encoding)
    if text is not None:
        sys.stdout.write(text)
        sys.exit(SUCCESS)
    # "demo" needs more than the extra "cli"; name the extra that installs everything it needs.
    extra = "demo" if sys.argv[1:2] == ["demo"] else "cli"
    try:
        require("cyclopts", extra=extra)
        from upload_progress.cli.commands import run  # noqa: PLC0415  # imports cyclopts

        code = run()
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        from upload_progress.cli.process import discard  # noqa: PLC0415  # imports anyio

        discard(sys.stdout)
        sys.exit(SUCCESS)
    except UploadProgressError as error:
        sys.stderr.write(f"upload-progress: {error_text(error)}\n")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
