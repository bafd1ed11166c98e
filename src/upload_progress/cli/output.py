"""Progress on a terminal, in a log, for a program, or not at all.

Results go to standard output, and all that only entertains to standard error: so a pipe gets
results and nothing else, and a log gets whole lines, never half of one that is drawn over.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import monotonic
from typing import Final, Protocol, Self, TextIO

from attrs import define, field

from upload_progress._model.codec import encode_json
from upload_progress._model.state import is_final
from upload_progress.cli.formatting import Row, figures, percent_of, result_line
from upload_progress.cli.options import Mode

__all__ = [
    "LINE_SECONDS",
    "STEP_PERCENT",
    "Display",
    "Json",
    "Plain",
    "open_display",
]

STEP_PERCENT: Final = 10
LINE_SECONDS: Final = 10.0


class Display(AbstractContextManager["Display"], Protocol):
    """Shows rows while they change, entered with ``with``."""

    def show(self, row: Row) -> None:
        """Show what has changed: the server's word, or what was sent."""

    def end(self, row: Row) -> None:
        """Show what came of it, and be done with it."""

    def drop(self, row: Row) -> None:
        """Be done with it: what came of it is said otherwise."""

    def say(self, line: str) -> None:
        """Say something that is not about progress, on standard error."""


@define(eq=False, repr=False)
class Plain:
    """A line at every tenth, or when there was none for ten seconds.

    Attributes:
        is_quiet: Whether only results are printed.
    """

    is_quiet: bool = False
    out: TextIO = field(factory=lambda: sys.stdout, kw_only=True)
    log: TextIO = field(factory=lambda: sys.stderr, kw_only=True)
    clock: Callable[[], float] = field(default=monotonic, kw_only=True)
    _said: dict[int, tuple[int, float]] = field(factory=dict, init=False)

    def __enter__(self) -> Self:
        """Show nothing yet."""
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Leave nothing behind."""

    def show(self, row: Row) -> None:
        """Print a line, if one is due; of the end there will be a result."""
        if row.progress is not None and is_final(row.progress.state):
            return
        now = self.clock()
        step, since = self._said.setdefault(id(row), (0, now))
        percent = percent_of(row)
        reached = step if percent is None else int(percent // STEP_PERCENT)
        if self.is_quiet or (reached <= step and now - since < LINE_SECONDS):
            return
        self._said[id(row)] = (max(step, reached), now)
        share = "" if percent is None else f"  {percent:.0f} %"
        self.say(f"{row.label}{share}  {figures(row)}")

    def end(self, row: Row) -> None:
        """Print what came of it."""
        self.drop(row)
        _write(self.out, result_line(row))

    def drop(self, row: Row) -> None:
        """Forget that row."""
        self._said.pop(id(row), None)

    def say(self, line: str) -> None:
        """Print a line on standard error."""
        _write(self.log, line)


@define(eq=False, repr=False)
class Json:
    """Each snapshot as a line of JSON on standard output, and nothing else there."""

    out: TextIO = field(factory=lambda: sys.stdout, kw_only=True)
    log: TextIO = field(factory=lambda: sys.stderr, kw_only=True)
    _last: object = field(default=None, init=False)

    def __enter__(self) -> Self:
        """Show nothing yet."""
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Leave nothing behind."""

    def show(self, row: Row) -> None:
        """Print a snapshot, once."""
        if row.progress is not None and row.progress is not self._last:
            self._last = row.progress
            _write(self.out, encode_json(row.progress).decode())

    def end(self, row: Row) -> None:
        """Print nothing: the last snapshot has said it."""

    def drop(self, row: Row) -> None:
        """Print nothing."""

    def say(self, line: str) -> None:
        """Print a line on standard error."""
        _write(self.log, line)


def open_display(mode: Mode, environment: Mapping[str, str] = os.environ) -> Display:
    """Return what shows progress as *mode* says."""
    match _decided(mode, environment):
        case Mode.JSON:
            return Json()
        case Mode.TTY:
            from upload_progress.cli.progress import Bars  # noqa: PLC0415  # rich takes its time

            return Bars()
        case decided:
            return Plain(is_quiet=decided is Mode.NONE)


def _decided(mode: Mode, environment: Mapping[str, str]) -> Mode:
    if mode is not Mode.AUTO:
        return mode
    is_drawable = environment.get("TERM") != "dumb" and not environment.get("CI")
    return Mode.TTY if sys.stderr.isatty() and is_drawable else Mode.PLAIN


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()
