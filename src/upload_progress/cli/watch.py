"""``watch``, ``list`` and ``cancel``: for uploads that somebody else, or another shell, sends."""

import sys
from collections.abc import Collection, Sequence
from contextlib import aclosing

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress, UploadState, UploadTotal
from upload_progress._model.state import is_final
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import DONE, FAILED
from upload_progress.cli.formatting import Row, clean, figures
from upload_progress.cli.options import Mode, Reach
from upload_progress.cli.output import Display, open_display
from upload_progress.client.urls import read_url, upload_in

__all__ = [
    "cancel",
    "list_all",
    "watch",
]


async def watch(
    url: str, upload_id: str | None, group: str | None, reach: Reach, mode: Mode
) -> int:
    """Follow one upload to its end, or all until interrupted, and return the exit code."""
    upload_id = upload_id or upload_in(read_url(url, "URL").url)
    state: UploadState | None = None
    async with open_client(url, reach) as client:
        with open_display(mode) as display:
            rows = dict[str, Row]()
            async with aclosing(client.watch(upload_id, group=group)) as snapshots:
                async for progress in snapshots:
                    state = progress.state
                    _show(display, rows, progress)
    return DONE if state is UploadState.COMPLETED else FAILED


def _show(display: Display, rows: dict[str, Row], progress: UploadProgress) -> None:
    row = rows.setdefault(progress.upload_id, Row(_label(progress)))
    row.progress = progress
    display.show(row)
    if is_final(progress.state):
        del rows[progress.upload_id]
        row.outcome = _outcome(progress)
        display.end(row)


def _label(progress: UploadProgress) -> str:
    return clean(progress.filename or progress.upload_id)


def _outcome(progress: UploadProgress) -> str:
    if progress.error is None:
        return str(progress.state)
    return f"{progress.state} ({clean(progress.error.message, 200)})"


async def list_all(
    url: str, states: Collection[UploadState], group: str | None, reach: Reach, *, as_json: bool
) -> int:
    """Print the caller's uploads, newest first, and return the exit code."""
    async with open_client(url, reach) as client:
        page = await client.list(states=states, group=group)
    if as_json:
        lines = [encode_json(progress).decode() for progress in page.uploads]
    else:
        lines = _table(page.uploads, page.total)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return DONE


def _table(uploads: Sequence[UploadProgress], total: UploadTotal) -> list[str]:
    cells = [
        (
            progress.upload_id,
            str(progress.state),
            "" if progress.percent is None else f"{progress.percent:.0f} %",
            _label(progress),
            figures(Row("", progress=progress)),
        )
        for progress in uploads
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    count = "1 upload" if total.uploads == 1 else f"{total.uploads} uploads"
    return [*lines, f"{count}, {format_size(total.bytes_transferred)} received"]


async def cancel(url: str, upload_ids: Sequence[str], reach: Reach) -> int:
    """Cancel uploads, say so, and return the exit code."""
    linked = upload_in(read_url(url, "URL").url)
    async with open_client(url, reach) as client:
        for upload_id in [*upload_ids, *([linked] if linked else [])]:
            progress = await client.cancel(upload_id)
            sys.stdout.write(f"{upload_id}: {progress.state}\n")
    return DONE
