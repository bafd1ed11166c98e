"""A file on its way out: read in a thread, slice by slice, from any offset."""

import mimetypes
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from anyio import to_thread
from attrs import frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "SLICE_BYTES",
    "Source",
    "open_source",
    "unreadable",
]

SLICE_BYTES: Final = 1024 * 1024


@frozen(eq=False, repr=False)
class Source:
    """What is sent.

    Attributes:
        name: The file's name.
        content_type: What its name says that it is.
    """

    path: Path
    name: str
    size_bytes: int
    content_type: str

    async def read(
        self, start: int, stop: int, tell: Callable[[int], object]
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes from *start* to *stop*; *tell* how far it is after each slice.

        Raises:
            InvalidValue: The file cannot be read, or has become shorter.
        """
        try:
            file = await to_thread.run_sync(self._open_at, start)
            try:
                while start < stop:
                    data = await to_thread.run_sync(file.read, min(SLICE_BYTES, stop - start))
                    if not data:
                        raise InvalidValue(str(self.path), "became shorter while it was sent")
                    yield data
                    start += len(data)
                    tell(start)
            finally:
                file.close()
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _open_at(self, offset: int) -> BinaryIO:
        # Unbuffered: the slices are larger than any buffer.
        file: BinaryIO = self.path.open("rb", buffering=0)
        file.seek(offset)
        return file


async def open_source(path: Path, content_type: str | None) -> Source:
    """Look at a file.

    Raises:
        InvalidValue: It is not there, no file, or cannot be read.
    """
    try:
        size = await to_thread.run_sync(_readable_size, path)
    except OSError as error:
        raise unreadable(path, error) from error
    guessed = content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Source(path, path.name, size, guessed)


def _readable_size(path: Path) -> int:
    with path.open("rb") as file:
        return file.seek(0, 2)


def unreadable(path: Path, error: OSError) -> InvalidValue:
    """Return the error that says why the system lets nobody read *path*."""
    return InvalidValue(str(path), error.strerror or str(error))
