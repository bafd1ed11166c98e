"""Bars on a terminal: one for each upload that runs, and one for all of them."""

import sys
from functools import reduce
from typing import Final, Self

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from upload_progress._runtime.sizes import format_size
from upload_progress.cli.formatting import Row, clean, figures, percent_of, result_line

__all__ = [
    "LABEL_CHARACTERS",
    "Bars",
]

LABEL_CHARACTERS: Final = 28


class _Words(ProgressColumn):
    """A field of the task, as text: a file's name is no markup."""

    def __init__(self, name: str) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._name = name

    def render(self, task: Task) -> Text:
        """Return the field."""
        return Text(str(task.fields[self._name]))


def _progress(console: Console) -> Progress:
    return Progress(
        _Words("label"),
        BarColumn(bar_width=24),
        _Words("percent"),
        _Words("words"),
        console=console,
        transient=True,
        refresh_per_second=10,
        # Else results would go to the terminal, too, where they are sent to a file.
        redirect_stdout=False,
        redirect_stderr=False,
    )


@define(eq=False, repr=False)
class Bars:
    """Draws on standard error, and clears it away when all is over."""

    _console: Console = field(factory=lambda: Console(stderr=True, highlight=False, markup=False))
    _progress: Progress = field(init=False)
    _tasks: dict[int, TaskID] = field(factory=dict, init=False)
    _rows: dict[int, Row] = field(factory=dict, init=False)
    _over: tuple[int, int] = field(default=(0, 0), init=False)
    _count: int = field(default=0, init=False)
    _all: TaskID | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Make the bars."""
        self._progress = _progress(self._console)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Clear the bars away."""
        self._progress.stop()

    def show(self, row: Row) -> None:
        """Move the bar of that row."""
        task = self._tasks.get(id(row))
        if task is None:
            task = self._tasks[id(row)] = self._add(clean(row.label, LABEL_CHARACTERS))
            self._rows[id(row)] = row
            self._count += 1
            self._add_sum()
        done, total = _done(row), _total(row)
        percent = percent_of(row)
        share = "" if percent is None else f"{percent:5.1f} %"
        self._progress.update(task, completed=done, total=total, percent=share, words=figures(row))
        self._show_sum()

    def end(self, row: Row) -> None:
        """Replace the bar by what came of it."""
        self.drop(row)
        if sys.stdout.isatty():
            # Above the bars, which are drawn on the same screen.
            self._console.print(result_line(row))
        else:
            sys.stdout.write(f"{result_line(row)}\n")
            sys.stdout.flush()

    def drop(self, row: Row) -> None:
        """Take the bar away."""
        task = self._tasks.pop(id(row), None)
        if task is not None:
            self._progress.remove_task(task)
            # Of what is over only its share of the sum stays: there may be very many.
            del self._rows[id(row)]
            self._over = _added(self._over, row)

    def say(self, line: str) -> None:
        """Say something above the bars."""
        self._console.print(line)

    def _add(self, label: str) -> TaskID:
        return self._progress.add_task("", total=None, label=label, percent="", words="")

    def _add_sum(self) -> None:
        if self._count > 1:
            # The last line is the one for all.
            if self._all is not None:
                self._progress.remove_task(self._all)
            self._all = self._add("all")

    def _show_sum(self) -> None:
        if self._all is None:
            return
        done, total = reduce(_added, self._rows.values(), self._over)
        share = f"{100 * done / total:5.1f} %" if total else ""
        words = f"{format_size(done)} of {format_size(total)}"
        self._progress.update(self._all, completed=done, total=total, percent=share, words=words)


def _added(total: tuple[int, int], row: Row) -> tuple[int, int]:
    """Return how far all are and how much it is, with that of *row*."""
    return total[0] + _done(row), total[1] + (_total(row) or 0)


def _done(row: Row) -> int:
    return 0 if row.progress is None else row.progress.bytes_transferred


def _total(row: Row) -> int | None:
    """Return the size; none before the server's first word, so that the bar only swings."""
    return None if row.progress is None else row.progress.total_bytes
