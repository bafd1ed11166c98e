"""The table of ``top``."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from upload_progress._model.models import UploadPage, UploadProgress
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.formatting import format_duration, format_status, printable
from upload_progress.cli.options import SortKey

__all__ = ["sorted_uploads", "table_of"]

_TEXTS: Final = ("OWNER", "NAME", "STATE")
_NUMBERS: Final = ("PERCENT", "RECEIVED", "SPEED", "LEFT", "AGE")


_ORDERS: Final[Mapping[SortKey, Callable[[UploadProgress], tuple[float | str, ...]]]] = {
    SortKey.SPEED: lambda each: (-(each.bytes_per_second or 0.0),),
    SortKey.PERCENT: lambda each: (-(each.percent or 0.0),),
    SortKey.RECEIVED: lambda each: (-each.bytes_transferred,),
    SortKey.AGE: lambda each: (each.created_at.timestamp(),),
    SortKey.OWNER: lambda each: (_owner(each), _name(each)),
    SortKey.NAME: lambda each: (_name(each),),
    SortKey.STATE: lambda each: (str(each.state), _owner(each)),
}


def _owner(progress: UploadProgress) -> str:
    return printable(progress.owner or "", 24)


def _name(progress: UploadProgress) -> str:
    return printable(progress.filename or progress.upload_id, 40)


def sorted_uploads(uploads: Collection[UploadProgress], sort: SortKey) -> list[UploadProgress]:
    """Return *uploads* in that order; equal ones by owner and id."""
    order = _ORDERS[sort]
    return sorted(uploads, key=lambda each: (*order(each), _owner(each), each.upload_id))


def table_of(page: UploadPage, sort: SortKey, *, now: float, max_rows: int = 1000) -> Table:
    """Return the uploads of *page* as a table, with their sum.

    Args:
        page: The uploads.
        sort: The order of the rows.
        now: Seconds since the epoch, by which ages are counted.
        max_rows: How many uploads are shown at most.
    """
    shown = sorted_uploads(page.uploads, sort)[:max_rows]
    table = Table.grid(padding=(0, 2))
    table.show_header = True
    table.caption, table.caption_justify = _summary(page, len(shown)), "left"
    for heading in _TEXTS:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in _NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    for progress in shown:
        table.add_row(*map(Text, _cells(progress, now)))
    return table


def _cells(progress: UploadProgress, now: float) -> Sequence[str]:
    rate, left = progress.bytes_per_second, progress.eta_seconds
    return (
        _owner(progress),
        _name(progress),
        format_status(progress) or str(progress.state),
        "" if progress.percent is None else f"{progress.percent:.1f} %",
        format_size(progress.bytes_transferred),
        "" if rate is None else f"{format_size(rate)}/s",
        "" if left is None else format_duration(left),
        format_duration(max(0.0, now - progress.created_at.timestamp())),
    )


def _summary(page: UploadPage, shown: int) -> str:
    total, count = page.total, len(page.uploads)
    stalled = sum(each.stalled for each in page.uploads)
    words = [
        "1 upload" if count == 1 else f"{count} uploads",
        f"{format_size(total.bytes_transferred)} received",
        *([f"{format_size(total.bytes_per_second)}/s"] if total.bytes_per_second else []),
        *([f"{stalled} stalled"] if stalled else []),
        *([f"{count - shown} not shown"] if count > shown else []),
    ]
    return ", ".join(words)
