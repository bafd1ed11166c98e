"""The commands ``watch``, ``list`` and ``cancel``: for uploads that another program sends."""

import sys
from collections.abc import Collection, Sequence
from contextlib import aclosing

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress, UploadState, UploadTotal
from upload_progress._model.state import is_final
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import FAILED, SUCCESS
from upload_progress.cli.formatting import UploadRow, format_progress, printable
from upload_progress.cli.options import ConnectionOptions
from upload_progress.cli.output import Output
from upload_progress.client.urls import parse_url, upload_id_in
from upload_progress.exceptions import InvalidValue

__all__ = ["cancel", "list_uploads", "watch"]


async def watch(
    url: str,
    upload_id: str | None,
    group: str | None,
    connection: ConnectionOptions,
    output: Output,
) -> int:
    """Watch one upload until it ends, or all until interrupted, and return the exit code."""
    upload_id = upload_id or upload_id_in(parse_url(url, "URL").url)
    state: UploadState | None = None
    async with open_client(url, connection) as client:
        with output:
            rows = dict[str, UploadRow]()
            async with aclosing(client.watch(upload_id, group=group)) as snapshots:
                async for progress in snapshots:
                    state = progress.state
                    _show(output, rows, progress)
                    if output.is_closed:
                        return SUCCESS
    return SUCCESS if state is UploadState.COMPLETED else FAILED


def _show(output: Output, rows: dict[str, UploadRow], progress: UploadProgress) -> None:
    row = rows.setdefault(progress.upload_id, UploadRow(_label(progress)))
    row.progress = progress
    output.update(row)
    if is_final(progress.state):
        del rows[progress.upload_id]
        row.result = _result(progress)
        output.finish(row)


def _label(progress: UploadProgress) -> str:
    return printable(progress.filename or progress.upload_id)


def _result(progress: UploadProgress) -> str:
    reason = _reason(progress)
    return f"{progress.state} ({reason})" if reason else str(progress.state)


def _reason(progress: UploadProgress) -> str:
    return "" if progress.error is None else printable(progress.error.message, 200)


async def list_uploads(
    url: str,
    states: Collection[UploadState],
    group: str | None,
    connection: ConnectionOptions,
    *,
    as_json: bool,
) -> int:
    """Print the caller's uploads, newest first, and return the exit code."""
    async with open_client(url, connection) as client:
        page = await client.list(states=states, group=group)
    if as_json:
        lines = [encode_json(progress).decode() for progress in page.uploads]
    else:
        lines = _table(page.uploads, page.total)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return SUCCESS


def _table(uploads: Sequence[UploadProgress], total: UploadTotal) -> list[str]:
    cells = [
        (
            progress.upload_id,
            str(progress.state),
            "" if progress.percent is None else f"{progress.percent:.0f} %",
            _label(progress),
            format_progress(UploadRow("", progress=progress)),
            _reason(progress),
        )
        for progress in uploads
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    count = "1 upload" if total.uploads == 1 else f"{total.uploads} uploads"
    count = f"more than {count}" if total.approximate else count
    return [*lines, f"{count}, {format_size(total.bytes_transferred)} received"]


async def cancel(url: str, upload_ids: Sequence[str], connection: ConnectionOptions) -> int:
    """Cancel uploads, print their state, and return the exit code."""
    linked = upload_id_in(parse_url(url, "URL").url)
    if not (upload_ids or linked):
        raise InvalidValue("cancel", "needs the ids of the uploads, or the URL of one")
    async with open_client(url, connection) as client:
        for upload_id in [*upload_ids, *([linked] if linked else [])]:
            progress = await client.cancel(upload_id)
            sys.stdout.write(f"{upload_id}: {progress.state}\n")
    return SUCCESS
