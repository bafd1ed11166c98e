"""Output of progress: plain lines for a log, or JSON for a program; see ``progress`` for bars.

Results go to standard output, progress and messages to standard error. So a pipe receives results
only, and a log receives complete lines.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final, TextIO

from attrs import Factory, define, field

from upload_progress._model.codec import encode_json
from upload_progress._model.state import is_final
from upload_progress.cli.formatting import UploadRow, format_progress, format_result
from upload_progress.cli.process import write_line

__all__ = ["LINE_SECONDS", "STEP_PERCENT", "JsonOutput", "Output", "PlainOutput"]

STEP_PERCENT: Final = 10
LINE_SECONDS: Final = 2.5


@define(eq=False, repr=False)
class Output(AbstractContextManager["Output", None]):
    """Shows uploads while they change; enter it with ``with``.

    Attributes:
        out: Where results go.
        log: Where progress and messages go.
        is_verbose: Whether details are written to the log.
        is_closed: Whether the reader of the results has closed its pipe.
    """

    out: TextIO = field(factory=lambda: sys.stdout, kw_only=True)
    log: TextIO = field(factory=lambda: sys.stderr, kw_only=True)

    is_verbose: bool = field(default=False, kw_only=True)
    is_closed: bool = field(default=False, init=False)

    def __exit__(self, *_exc_info: object) -> None:
        """Remove what is drawn."""

    @abstractmethod
    def update(self, row: UploadRow) -> None:
        """Show the progress of an upload after it has changed."""

    @abstractmethod
    def finish(self, row: UploadRow) -> None:
        """Show the result of an upload, and remove its progress."""

    def remove(self, row: UploadRow) -> None:
        """Remove the progress of an upload, without a result."""

    def write(self, line: str) -> None:
        """Write a result."""
        self.is_closed |= not write_line(self.out, line)

    def refresh(self, row: UploadRow) -> None:
        """Show that an upload still runs, although nothing has changed."""

    def detail(self, line: str) -> None:
        """Write a line to the log, if the user wants to know more."""
        if self.is_verbose:
            self.message(line)

    def message(self, line: str) -> None:
        """Write a line to the log."""
        write_line(self.log, line)

    def summarize(self, line: str) -> None:
        """Write what became of all uploads to the log."""
        self.message(line)


@define(eq=False, repr=False)
class PlainOutput(Output):
    """Writes a line for every 10 %, or after 2.5 s without any line.

    Attributes:
        is_quiet: Whether to write results only.
        clock: Returns the time in seconds.
    """

    is_quiet: bool = False
    clock: Callable[[], float] = field(default=monotonic, kw_only=True)
    _steps: dict[int, int] = field(factory=dict, init=False)
    _written_at: float = field(
        default=Factory(lambda self: self.clock(), takes_self=True), init=False
    )

    def update(self, row: UploadRow) -> None:
        """Write a line if one is due; an end is shown as a result instead."""
        if row.progress is not None and is_final(row.progress.state):
            return
        step = self._steps.get(id(row), 0)
        reached = step if row.percent is None else int(row.percent // STEP_PERCENT)
        is_silent = self.clock() - self._written_at >= LINE_SECONDS
        if self.is_quiet or (reached <= step and not is_silent):
            # A file that is sent again begins at zero.
            self._steps[id(row)] = min(step, reached)
            return
        self._steps[id(row)] = reached
        share = "" if row.percent is None else f"  {row.percent:.0f} %"
        self.message(f"{row.label}{share}  {format_progress(row)}")

    def message(self, line: str) -> None:
        """Write a line to the log."""
        self._written_at = self.clock()
        super().message(line)

    def refresh(self, row: UploadRow) -> None:
        """Write a line if one is due."""
        self.update(row)

    def summarize(self, line: str) -> None:
        """Write the line, unless only results are wanted."""
        if not self.is_quiet:
            self.message(line)

    def finish(self, row: UploadRow) -> None:
        """Write the result."""
        self.remove(row)
        self.write(format_result(row))

    def remove(self, row: UploadRow) -> None:
        """Forget what was written."""
        self._steps.pop(id(row), None)


@define(eq=False, repr=False)
class JsonOutput(Output):
    """Writes each snapshot as one line of JSON to standard output, and nothing else there."""

    _last: object = field(default=None, init=False)

    def update(self, row: UploadRow) -> None:
        """Write the snapshot, unless it was written before."""
        if row.progress is not None and row.progress is not self._last:
            self._last = row.progress
            self.write(encode_json(row.progress).decode())

    def finish(self, row: UploadRow) -> None:
        """Write nothing: the last snapshot is the result."""
