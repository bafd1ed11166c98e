"""The command ``put``: sends files and folders, several files at once."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from time import monotonic

from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import INTERRUPTED, SUCCESS, combined_exit_code
from upload_progress.cli.formatting import printable
from upload_progress.cli.options import ConnectionOptions
from upload_progress.cli.output import Output
from upload_progress.cli.process import interruptible
from upload_progress.cli.put.files import FileToUpload, HiddenFiles, find_files
from upload_progress.cli.put.uploader import PutOptions, Uploader
from upload_progress.client.urls import DEFAULT_MOUNT
from upload_progress.exceptions import InvalidValue

__all__ = ["HiddenFiles", "PutOptions", "put"]


async def put(
    paths: Sequence[str],
    url: str,
    connection: ConnectionOptions,
    options: PutOptions,
    output: Output,
) -> int:
    """Send the files, and return the exit code."""
    skipped: list[PurePosixPath] = []
    files = find_files(
        paths,
        url,
        hidden=options.hidden,
        exclude=options.exclude,
        has_one_target=options.form is not None or options.uses_tus,
        on_skipped=skipped.append,
    )
    if skipped:
        output.summarize(f"hidden files skipped: {len(skipped)} (--hidden sends them)")
    if options.upload_id is not None and len(files) > 1:
        raise InvalidValue("--id", "is the id of one upload, but there are several files")
    if options.is_dry_run:
        _list_files(files, output)
        return SUCCESS
    async with open_client(url, connection, default_mount=DEFAULT_MOUNT) as client:
        uploader = Uploader(client, options, output)
        began_at = monotonic()
        with output:
            is_interrupted = await interruptible(
                lambda: uploader.send_all(files), uploader.cancel_all
            )
        output.summarize(uploader.summary(monotonic() - began_at))
    return INTERRUPTED if is_interrupted else combined_exit_code(uploader.codes)


def _list_files(files: Sequence[FileToUpload], output: Output) -> None:
    for file in files:
        size = "unknown size" if file.path is None else format_size(file.path.stat().st_size)
        output.write(f"{printable(file.name)}: {size}, would be sent to {file.target}")
