"""How a file arrives: from the network to a partial file, hashed, and then renamed.

Reading the body is all that an upload's progress needs; that it is counted here is the
middleware's doing. What comes after the last byte is shown by stages.
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

from upload_progress._model.state import is_final
from upload_progress.asgi import current_upload
from upload_progress.demo.files import FileSpace, StoredFile, safe_name
from upload_progress.demo.rate_limit import Pace
from upload_progress.exceptions import InvalidValue
from upload_progress.upload import Upload

__all__ = [
    "FileTooLarge",
    "NoRoom",
    "Receiver",
    "StoppedByOwner",
]

_SLICE_BYTES: Final = 1024 * 1024
_MOST_FILES: Final = 100
# Hashing is this much faster than reading, where reading is slowed down.
_HASHING_PACE: Final = 4


class FileTooLarge(Exception):
    """The body is larger than the demo takes."""


class NoRoom(Exception):
    """The disk is full, or would be."""


class StoppedByOwner(Exception):
    """The upload was cancelled after its last byte; its file is not kept."""


@define
class _Valve:
    """A ``receive`` that lets a bounded body through, at a pace."""

    _receive: Callable[[], Awaitable[Message]]
    _most_bytes: int
    _pace: Pace
    _taken_bytes: int = field(default=0, init=False)

    async def __call__(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self._taken_bytes += size
        if self._taken_bytes > self._most_bytes:
            raise FileTooLarge
        await self._pace.spend(size)
        return message


@frozen
class Receiver:
    """Takes uploads into the file space.

    Attributes:
        space: Where files go.
        most_bytes: The largest body taken.
        slow_bytes_per_second: How fast each upload is read; None for as fast as it comes.
    """

    space: FileSpace
    most_bytes: int
    slow_bytes_per_second: int | None = None

    async def put(self, request: Request, user: str, name: str) -> StoredFile:
        """Receive a body that is one file.

        Raises:
            InvalidValue: The name cannot be one.
            FileTooLarge: The body is too large.
            NoRoom: The disk is full.
            StoppedByOwner: It was cancelled while it was hashed.
        """
        name = safe_name(name)
        request = self._guarded(request)
        with _room(), self.space.partial(user) as partial:
            async with (
                await anyio.open_file(partial, "wb") as file,
                aclosing(request.stream()) as chunks,
            ):
                async for chunk in chunks:
                    await file.write(chunk)
            [stored] = await self._keep(request, user, [(partial, name)])
        return stored

    async def post(self, request: Request, user: str) -> list[StoredFile]:
        """Receive a multipart form with any number of files.

        Raises:
            InvalidValue: There is no file in it, or one without a usable name.
            FileTooLarge: The body is too large.
            NoRoom: The disk is full.
            StoppedByOwner: It was cancelled while it was hashed.
        """
        request = self._guarded(request)
        with _room():
            async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FILES) as form:
                files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
                if not files:
                    raise InvalidValue("body", "holds no file")
                return await self._store(request, user, files)

    async def _store(
        self, request: Request, user: str, files: list[UploadFile]
    ) -> list[StoredFile]:
        names = [safe_name(file.filename or "") for file in files]
        with ExitStack() as stack:
            arrived = [(stack.enter_context(self.space.partial(user)), name) for name in names]
            async with current_upload(request).stage("storing", total=len(files)) as stage:
                for file, (partial, _) in zip(files, arrived, strict=True):
                    await to_thread.run_sync(_copy, file.file, partial)
                    stage.advance()
            return await self._keep(request, user, arrived)

    def _guarded(self, request: Request) -> Request:
        """Return *request* with its body bounded and paced; refuse before a byte is read."""
        announced = request.headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if size > self.most_bytes:
            raise FileTooLarge
        if size > shutil.disk_usage(self.space.root).free:
            raise NoRoom
        pace = Pace(self.slow_bytes_per_second)
        return Request(request.scope, _Valve(request.receive, self.most_bytes, pace))

    async def _keep(
        self, request: Request, user: str, arrived: list[tuple[Path, str]]
    ) -> list[StoredFile]:
        upload = current_upload(request)
        checksums = await self._hash(upload, [partial for partial, _ in arrived])
        return [
            await to_thread.run_sync(self.space.publish, partial, user, name, sha256)
            for (partial, name), sha256 in zip(arrived, checksums, strict=True)
        ]

    async def _hash(self, upload: Upload, paths: list[Path]) -> list[str]:
        rate = self.slow_bytes_per_second
        pace = Pace(rate and rate * _HASHING_PACE)
        checksums = []
        async with upload.stage(
            "hashing", total=sum(path.stat().st_size for path in paths)
        ) as stage:
            for path in paths:
                digest = hashlib.sha256()
                with path.open("rb") as file:
                    while size := await to_thread.run_sync(_feed, file, digest.update):
                        stage.advance(size)
                        await pace.spend(size)
                        if is_final(upload.state):
                            raise StoppedByOwner
                checksums.append(digest.hexdigest())
        return checksums


def _feed(file: BinaryIO, update: Callable[[bytes], None]) -> int:
    data = file.read(_SLICE_BYTES)
    update(data)
    return len(data)


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _SLICE_BYTES)


@contextmanager
def _room() -> Iterator[None]:
    """Tell a full disk, which is an answer, from what else the system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoRoom from error
        raise
