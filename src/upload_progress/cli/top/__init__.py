"""The command ``top``: the open uploads of all owners, for operators."""

import sys
import time
from collections.abc import Collection
from typing import Final

import anyio
from rich.console import Console
from rich.live import Live

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadState
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import SUCCESS
from upload_progress.cli.options import ConnectionOptions, SortKey
from upload_progress.cli.top.table import sorted_uploads, table_of

__all__ = ["top"]

_OTHER_LINES: Final = 4
"""Lines of the screen that are no uploads: heading, sum, and a margin."""


async def top(
    url: str,
    owner: str,
    states: Collection[UploadState],
    sort: SortKey,
    connection: ConnectionOptions,
    *,
    seconds: float,
    is_once: bool,
    as_json: bool,
    console: Console | None = None,
) -> int:
    """Show the open uploads of all owners, again and again; return the exit code.

    Args:
        url: URL of the server, or of its progress routes.
        owner: Whose uploads; ``*`` for those of all.
        states: Only uploads in these states; empty for all.
        sort: The order of the rows.
        connection: How to connect to the server.
        seconds: How long a table is shown before the next one.
        is_once: Whether to print one table and end, as without a terminal.
        as_json: Whether to print one snapshot per line instead of a table, once.
        console: The terminal; by default standard output.
    """
    console = console or Console(highlight=False, markup=False)
    async with open_client(url, connection) as client:
        if as_json or is_once or not console.is_terminal:
            page = await client.list(states=states, owner=owner)
            if as_json:
                for progress in sorted_uploads(page.uploads, sort):
                    sys.stdout.write(f"{encode_json(progress).decode()}\n")
            else:
                console.print(table_of(page, sort, now=time.time()))
            return SUCCESS
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows = max(1, console.height - _OTHER_LINES)
                page = await client.list(states=states, owner=owner)
                table = table_of(page, sort, now=time.time(), max_rows=rows)
                live.update(table, refresh=True)
                await anyio.sleep(seconds)
