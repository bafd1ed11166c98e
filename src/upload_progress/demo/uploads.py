"""Receiving files: from the request body to a partial file, hashed, then renamed.

Reading the body is all that progress needs, because the middleware counts the bytes. Work after
the last byte is reported as stages.
"""

import errno
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import anyio
from anyio import to_thread
from attrs import define, field, frozen
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from upload_progress.asgi import current_upload
from upload_progress.demo.files import FileStorage, StoredFile, safe_name
from upload_progress.demo.rate_limit import RateLimit
from upload_progress.exceptions import InvalidValue
from upload_progress.upload import Upload

__all__ = ["CancelledByOwner", "DiskFull", "FileReceiver", "FileTooLarge", "PartNotAccepted"]

_BLOCK_BYTES: Final = 1024 * 1024
_MAX_FILES: Final = 100
# With a rate limit, hashing is this many times faster than reading.
_HASHING_SPEEDUP: Final = 4
_SAMPLE_BYTES_PER_SECOND: Final = 4_000_000


class FileTooLarge(Exception):
    """The body is larger than the demo accepts."""


class PartNotAccepted(Exception):
    """The body is a part of a file: the demo stores whole files only."""


class DiskFull(Exception):
    """The disk has no space for the file."""


class CancelledByOwner(Exception):
    """The upload was cancelled after its last byte; the file is not kept."""


@define
class _LimitedReceive:
    """An ASGI ``receive`` with a maximum body size and a rate limit."""

    _receive: Callable[[], Awaitable[Message]]
    _max_bytes: int
    _rate_limit: RateLimit
    _received_bytes: int = field(default=0, init=False)

    async def __call__(self) -> Message:
        message = await self._receive()
        size_bytes = len(message.get("body", b""))
        self._received_bytes += size_bytes
        if self._received_bytes > self._max_bytes:
            raise FileTooLarge
        await self._rate_limit.wait(size_bytes)
        return message


@frozen
class FileReceiver:
    """Receives uploads into the file storage.

    Attributes:
        storage: Where files are stored.
        max_body_bytes: The largest accepted body.
        bytes_per_second: The rate at which each upload is read; None for no limit.
    """

    storage: FileStorage
    max_body_bytes: int
    bytes_per_second: int | None = None

    async def put(self, request: Request, user: str, name: str) -> StoredFile:
        """Receive a body that is one file.

        Raises:
            InvalidValue: *name* is not a valid file name.
            PartNotAccepted: The request has a ``Content-Range`` (RFC 9110 section 14.5).
            FileTooLarge: The body is too large.
            DiskFull: The disk has no space for the file.
            CancelledByOwner: The upload was cancelled while its file was hashed.
        """
        name = safe_name(name)
        if "content-range" in request.headers:
            raise PartNotAccepted
        request = self._limited(request)
        with _disk_full_errors(), self.storage.partial(user) as partial:
            async with (
                await anyio.open_file(partial, "wb") as file,
                aclosing(request.stream()) as chunks,
            ):
                async for chunk in chunks:
                    await file.write(chunk)
            [stored] = await self._publish(request, user, [(partial, name)])
        return stored

    async def post(self, request: Request, user: str) -> list[StoredFile]:
        """Receive a multipart form with any number of files.

        Raises:
            InvalidValue: The form has no file, or a file without a valid name.
            FileTooLarge: The body is too large.
            DiskFull: The disk has no space for the files.
            CancelledByOwner: The upload was cancelled while its files were hashed.
        """
        request = self._limited(request)
        with _disk_full_errors():
            async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FILES) as form:
                files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
                if not files:
                    raise InvalidValue("body", "contains no file")
                return await self._store(request, user, files)

    async def _store(
        self, request: Request, user: str, files: list[UploadFile]
    ) -> list[StoredFile]:
        names = [safe_name(file.filename or "") for file in files]
        with ExitStack() as stack:
            partials = [(stack.enter_context(self.storage.partial(user)), name) for name in names]
            async with current_upload(request).stage("storing", total=len(files)) as stage:
                for file, (partial, _) in zip(files, partials, strict=True):
                    await to_thread.run_sync(_copy, file.file, partial)
                    stage.advance()
            return await self._publish(request, user, partials)

    def _limited(self, request: Request) -> Request:
        """Return *request* with limits on its body; reject an announced size at once."""
        announced = request.headers.get("content-length", "")
        size_bytes = int(announced) if announced.isdecimal() else 0
        if size_bytes > self.max_body_bytes:
            raise FileTooLarge
        if size_bytes > shutil.disk_usage(self.storage.root).free:
            raise DiskFull
        rate_limit = RateLimit(self._rate(request))
        receive = _LimitedReceive(request.receive, self.max_body_bytes, rate_limit)
        return Request(request.scope, receive)

    def _rate(self, request: Request) -> int | None:
        """Return the rate of an upload; the sample of the page is slow enough to be watched."""
        rate = self.bytes_per_second
        if "sample" not in request.query_params:
            return rate
        return min(_SAMPLE_BYTES_PER_SECOND, rate or _SAMPLE_BYTES_PER_SECOND)

    async def _publish(
        self, request: Request, user: str, partials: list[tuple[Path, str]]
    ) -> list[StoredFile]:
        upload, paths = current_upload(request), [path for path, _ in partials]
        checksums = await self._hash(upload, paths, self._rate(request))
        return [
            await to_thread.run_sync(self.storage.publish, path, user, name, sha256)
            for (path, name), sha256 in zip(partials, checksums, strict=True)
        ]

    async def _hash(self, upload: Upload, paths: list[Path], rate: int | None) -> list[str]:
        rate_limit = RateLimit(rate and rate * _HASHING_SPEEDUP)
        checksums = []
        total_bytes = sum(path.stat().st_size for path in paths)
        async with upload.stage("hashing", total=total_bytes) as stage:
            for path in paths:
                digest = hashlib.sha256()
                with path.open("rb") as file:
                    while size_bytes := await to_thread.run_sync(_update_from, file, digest.update):
                        stage.advance(size_bytes)
                        await rate_limit.wait(size_bytes)
                        if upload.is_cancelled:
                            raise CancelledByOwner
                checksums.append(digest.hexdigest())
        return checksums


def _update_from(file: BinaryIO, update: Callable[[bytes], None]) -> int:
    data = file.read(_BLOCK_BYTES)
    update(data)
    return len(data)


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK_BYTES)


@contextmanager
def _disk_full_errors() -> Iterator[None]:
    """Raise ``DiskFull`` for a full disk or quota; other errors of the system stay."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull from error
        raise
