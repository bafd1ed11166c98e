"""Reading the bytes of an upload in a worker thread: a file from any offset, a stream once."""

import io
import mimetypes
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import anyio
from anyio import to_thread
from attrs import frozen

from upload_progress.exceptions import InvalidValue

__all__ = ["CHUNK_BYTES", "FileSource", "StreamSource", "open_file"]

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

    @property
    def is_repeatable(self) -> bool:
        """Whether the bytes can be read again."""
        return True

    async def read(
        self, start: int, stop: int | None, on_read: Callable[[int], object]
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes from *start* to *stop*, or to the end.

        Args:
            start: Offset of the first byte.
            stop: Offset behind the last byte.
            on_read: Called with the offset reached, after each chunk was consumed.

        Raises:
            InvalidValue: The file cannot be read or has become shorter.
        """
        stop = self.size_bytes if stop is None else stop
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


@frozen(eq=False, repr=False)
class StreamSource:
    """An open stream, such as standard input: its size is unknown, and it can be read only once.

    Attributes:
        stream: The stream.
        content_type: Its media type.
        name: A name for it, for a form.
    """

    stream: BinaryIO
    content_type: str
    name: str = "stream"
    size_bytes: None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether the bytes can be read again."""
        return False

    async def read(
        self, start: int, stop: int | None, on_read: Callable[[int], object]
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes up to the end.

        Args:
            start: How many bytes were read before.
            stop: None.
            on_read: Called with the number of bytes read, after each chunk was consumed.

        Raises:
            InvalidValue: The stream cannot be read.
        """
        assert stop is None  # noqa: S101  # the size is unknown
        try:
            while data := await self._read_chunk():
                yield data
                start += len(data)
                on_read(start)
        except OSError as error:
            raise InvalidValue(self.name, error.strerror or str(error)) from error

    async def _read_chunk(self) -> bytes:
        if isinstance(self.stream, io.RawIOBase):
            # A thread that reads from a pipe cannot be cancelled: wait until there is something.
            # A regular file has always something, and cannot be waited for.
            with suppress(OSError):
                await anyio.wait_readable(self.stream)
        return await to_thread.run_sync(self.stream.read, CHUNK_BYTES)


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
