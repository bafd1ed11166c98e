"""The interface of all outputs of the command line."""

import sys
from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TextIO

from attrs import define, field

from upload_progress.cli.formatting import UploadRow

__all__ = ["Output", "write_line"]


@define(eq=False, repr=False)
class Output(AbstractContextManager["Output", None]):
    """Shows uploads while they change; enter it with ``with``.

    Attributes:
        out: Where results go.
        log: Where progress and messages go.
    """

    out: TextIO = field(factory=lambda: sys.stdout, kw_only=True)
    log: TextIO = field(factory=lambda: sys.stderr, kw_only=True)

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

    def message(self, line: str) -> None:
        """Write a line to the log."""
        write_line(self.log, line)


def write_line(stream: TextIO, line: str) -> None:
    """Write a line at once, so that a pipe receives it without delay."""
    stream.write(f"{line}\n")
    stream.flush()
