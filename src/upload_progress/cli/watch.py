"""The commands ``watch``, ``list`` and ``cancel``: for uploads that another program sends."""

import sys
from collections.abc import Collection, Sequence
from contextlib import aclosing

import anyio
from attrs import define, field

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress, UploadState, UploadTotal
from upload_progress._model.state import is_final
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import FAILED, SUCCESS
from upload_progress.cli.formatting import UploadRow, format_progress, printable
from upload_progress.cli.options import ConnectionOptions
from upload_progress.cli.output import Output
from upload_progress.cli.process import beside
from upload_progress.cli.put.uploader import REFRESH_SECONDS
from upload_progress.client import AsyncProgressClient
from upload_progress.client.urls import parse_url, upload_id_in
from upload_progress.exceptions import InvalidValue, UploadNotFound

__all__ = ["cancel", "list_uploads", "watch"]


async def watch(
    url: str,
    upload_id: str | None,
    group: str | None,
    connection: ConnectionOptions,
    output: Output,
    *,
    wait: bool = False,
) -> int:
    """Watch one upload or a group until it ends, or all until interrupted.

    Args:
        url: URL of the server, of its progress routes, or of an upload's progress.
        upload_id: Id of the upload; None for a group, or for all uploads.
        group: Without an id: only uploads of this group; the end of all of them is the end.
        connection: How to connect to the server.
        output: Shows the uploads.
        wait: Whether to wait for an upload or group that does not exist yet.

    Returns:
        The exit code.

    Raises:
        UploadNotFound: There is no such upload, or no upload in the group.
    """
    upload_id = upload_id or upload_id_in(parse_url(url, "URL").url)
    async with open_client(url, connection) as client:
        watched = _Watched(client, output, None if upload_id else group)
        with output:
            if group is None or not await watched.is_group_over(may_begin_later=wait):
                await watched.watch(upload_id, wait=wait)
    return SUCCESS if output.is_closed else watched.exit_code


@define(eq=False, repr=False)
class _Watched:
    """The uploads that a command watches.

    Attributes:
        client: Asks the server.
        output: Shows them.
        group: The group that ends when all of its uploads have; None without a group.
        newest: The newest snapshot of each upload.
    """

    client: AsyncProgressClient
    output: Output
    group: str | None
    newest: dict[str, UploadProgress] = field(factory=dict, init=False)
    _rows: dict[str, UploadRow] = field(factory=dict, init=False)

    async def watch(self, upload_id: str | None, *, wait: bool) -> None:
        """Show uploads until the end of *upload_id* or of the group."""
        found = self.client.watch(upload_id, group=self.group, wait=wait)
        async with beside(self.refresh), aclosing(found) as snapshots:
            async for progress in snapshots:
                self.show(progress)
                if self.output.is_closed or await self.is_group_over(may_begin_later=True):
                    break

    def show(self, progress: UploadProgress) -> None:
        row = UploadRow(_label(progress), before=self.newest.get(progress.upload_id))
        row = self._rows.setdefault(progress.upload_id, row)
        self.newest[progress.upload_id] = progress
        row.progress = progress
        self.output.update(row)
        if is_final(progress.state):
            del self._rows[progress.upload_id]
            row.result = _result(progress)
            self.output.finish(row)

    async def refresh(self) -> None:
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            for row in self._rows.values():
                self.output.refresh(row)

    async def is_group_over(self, *, may_begin_later: bool) -> bool:
        """Return whether every upload of the group has ended, and show those not shown before.

        Raises:
            UploadNotFound: The group has no upload, unless *may_begin_later*.
        """
        if self.group is None or not all(is_final(each.state) for each in self.newest.values()):
            return False
        page = await self.client.list(states=tuple(UploadState), group=self.group)
        if not (page.uploads or may_begin_later):
            raise UploadNotFound
        if not (page.uploads and all(is_final(each.state) for each in page.uploads)):
            return False
        for each in reversed(page.uploads):
            shown = self.newest.get(each.upload_id)
            if shown is None or shown.state is not each.state:
                self.show(each)
        return True

    @property
    def exit_code(self) -> int:
        states = {progress.state for progress in self.newest.values()}
        return SUCCESS if states == {UploadState.COMPLETED} else FAILED


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
