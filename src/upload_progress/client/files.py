"""Reading a file for an upload: in a worker thread, chunk by chunk, from any offset."""

import mimetypes
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO, Final

from anyio import to_thread
from attrs import frozen

from upload_progress.exceptions import InvalidValue

__all__ = ["CHUNK_BYTES", "FileSource", "open_file"]

CHUNK_BYTES: Final = 1024 * 1024


@frozen(eq=False, repr=False)
class FileSource:
    """A file on disk that is to be uploaded.

    Attributes:
        path: Where the file is.
        size_bytes: Its size when ``open_file`` looked at it.
        content_type: Its media type.
    """

    path: Path
    size_bytes: int
    content_type: str

    @property
    def name(self) -> str:
        """The file name without its directory."""
        return self.path.name

    async def read(
        self, start: int, stop: int, on_read: Callable[[int], object]
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes from *start* to *stop*.

        Args:
            start: Offset of the first byte.
            stop: Offset behind the last byte.
            on_read: Called with the offset reached, after each chunk was consumed.

        Raises:
            InvalidValue: The file cannot be read or has become shorter.
        """
        try:
            file = await to_thread.run_sync(self._open_at, start)
            try:
                while start < stop:
                    data = await to_thread.run_sync(file.read, min(CHUNK_BYTES, stop - start))
                    if not data:
                        raise InvalidValue(str(self.path), "became shorter while it was sent")
                    yield data
                    start += len(data)
                    on_read(start)
            finally:
                file.close()
        except OSError as error:
            raise _read_error(self.path, error) from error

    def _open_at(self, offset: int) -> BinaryIO:
        # Unbuffered: a chunk is larger than any buffer.
        file: BinaryIO = self.path.open("rb", buffering=0)
        file.seek(offset)
        return file


async def open_file(path: Path, content_type: str | None) -> FileSource:
    """Check that a file can be read, and return it with its size.

    Args:
        path: The file.
        content_type: Its media type; None guesses it from the file name.

    Raises:
        InvalidValue: The file does not exist or cannot be read.
    """
    try:
        size_bytes = await to_thread.run_sync(_readable_size, path)
    except OSError as error:
        raise _read_error(path, error) from error
    guessed = content_type or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileSource(path, size_bytes, guessed)


def _readable_size(path: Path) -> int:
    with path.open("rb") as file:
        return file.seek(0, 2)


def _read_error(path: Path, error: OSError) -> InvalidValue:
    return InvalidValue(str(path), error.strerror or str(error))
