"""Progress bars on a terminal: one for each running upload, and one for their total."""

from functools import reduce
from typing import Final, Self

from attrs import Factory, define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from upload_progress._model.models import UploadProgress
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.formatting import UploadRow, format_progress, format_result, printable
from upload_progress.cli.output import Output

__all__ = ["LABEL_CHARACTERS", "TerminalOutput"]

LABEL_CHARACTERS: Final = 28


class _TextColumn(ProgressColumn):
    """A column that shows a field of the task as it is: rich's own would interpret markup."""

    def __init__(self, name: str) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))
        self._name = name

    def render(self, task: Task) -> Text:
        """Return the field."""
        return Text(str(task.fields[self._name]))


def _create_progress(console: Console) -> Progress:
    return Progress(
        _TextColumn("label"),
        BarColumn(bar_width=24),
        _TextColumn("percent"),
        _TextColumn("figures"),
        console=console,
        transient=True,
        refresh_per_second=10,
        # With redirection, results that are sent to a file would appear on the terminal as well.
        redirect_stdout=False,
        redirect_stderr=False,
    )


@define(eq=False, repr=False)
class TerminalOutput(Output):
    """Draws progress bars on standard error, and removes them at the end."""

    _console: Console = field(factory=lambda: Console(stderr=True, highlight=False, markup=False))
    _progress: Progress = field(
        default=Factory(lambda self: _create_progress(self._console), takes_self=True), init=False
    )
    _tasks: dict[int, TaskID] = field(factory=dict, init=False)
    _rows: dict[int, UploadRow] = field(factory=dict, init=False)
    _removed: tuple[int, int] = field(default=(0, 0), init=False)
    _count: int = field(default=0, init=False)
    _total_task: TaskID | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        """Remove the bars."""
        self._progress.stop()

    def update(self, row: UploadRow) -> None:
        """Move the bar of an upload; the first call adds it."""
        task = self._tasks.get(id(row))
        if task is None:
            task = self._tasks[id(row)] = self._add(printable(row.label, LABEL_CHARACTERS))
            self._rows[id(row)] = row
            if row.before is None:
                self._count += 1
            else:
                self._removed = _added(self._removed, row.before, -1)
            self._move_total_to_end()
        share = "" if row.percent is None else f"{row.percent:5.1f} %"
        self._progress.update(
            task,
            completed=0 if row.progress is None else row.progress.bytes_transferred,
            # Without a total the bar pulses until the first snapshot.
            total=None if row.progress is None else row.progress.total_bytes,
            percent=share,
            figures=format_progress(row),
        )
        self._update_total()

    def refresh(self, row: UploadRow) -> None:
        """Show what the row says now, such as how long it still waits."""
        self.update(row)

    def finish(self, row: UploadRow) -> None:
        """Replace the bar by the result."""
        self.remove(row)
        if self.out.isatty():
            # Results and bars are on the same screen: print above the bars.
            self._console.print(format_result(row))
        else:
            self.write(format_result(row))

    def remove(self, row: UploadRow) -> None:
        """Remove the bar."""
        task = self._tasks.pop(id(row), None)
        if task is not None:
            self._progress.remove_task(task)
            # Keep only the sum of removed rows: a folder may contain very many files.
            del self._rows[id(row)]
            self._removed = _added(self._removed, row.progress)

    def message(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line)

    def _add(self, label: str) -> TaskID:
        return self._progress.add_task("", total=None, label=label, percent="", figures="")

    def _move_total_to_end(self) -> None:
        if self._count > 1:
            if self._total_task is not None:
                self._progress.remove_task(self._total_task)
            self._total_task = self._add("all")

    def _update_total(self) -> None:
        if self._total_task is None:
            return
        shown = (row.progress for row in self._rows.values())
        received, total = reduce(_added, shown, self._removed)
        share = f"{100 * received / total:5.1f} %" if total else ""
        figures = f"{format_size(received)} of {format_size(total)}"
        self._progress.update(
            self._total_task, completed=received, total=total, percent=share, figures=figures
        )


def _added(
    total: tuple[int, int], progress: UploadProgress | None, times: int = 1
) -> tuple[int, int]:
    """Return received and total bytes with those of an upload added, or subtracted by -1."""
    if progress is None:
        return total
    received, total_bytes = progress.bytes_transferred, progress.total_bytes or 0
    return total[0] + times * received, total[1] + times * total_bytes
