"""Following one upload from Python: ``async for snapshot in tracker.watch(...)``."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from attrs import define, field

from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.models import UploadKey, UploadProgress
from upload_progress._model.state import is_final

__all__ = [
    "Watch",
]


@define(eq=False, repr=False)
class Watch(AsyncIterator[UploadProgress]):
    """An iterator over the snapshots of one upload: the current one first, its end last.

    A loop that is left early stops watching when the iterator is dropped, or at once by
    ``aclose()`` or ``async with``.
    """

    _key: UploadKey
    _open: Callable[[], Subscription]
    _current: Callable[[UploadKey], Awaitable[UploadProgress]]
    _wait: Callable[[Subscription], Awaitable[list[Update]]]
    _watcher: Subscription | None = field(default=None, init=False)
    _is_ended: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Watch, and stop watching when the block ends."""
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        """Stop watching."""
        await self.aclose()

    async def __anext__(self) -> UploadProgress:
        """Return the next snapshot.

        Raises:
            UploadNotFound: There is no such upload of this owner.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        if self._is_ended:
            raise StopAsyncIteration
        progress = await self._next()
        if progress is None or is_final(progress.state):
            await self.aclose()
        if progress is None:
            raise StopAsyncIteration
        return progress

    async def _next(self) -> UploadProgress | None:
        if self._watcher is None:
            self._watcher = self._open()
            self._watcher.follow(self._key.owner, self._key.upload_id)
            try:
                self._watcher.offer(Update(self._key.owner, await self._current(self._key)))
            except BaseException:
                await self.aclose()
                raise
        while True:
            for update in await self._wait(self._watcher):
                return update.progress
            if self._watcher.is_closed:
                return None

    def __del__(self) -> None:
        """Stop watching, when the loop was left without a word."""
        if self._watcher is not None:
            self._watcher.close()

    async def aclose(self) -> None:
        """Stop watching; nothing more comes."""
        self._is_ended = True
        if self._watcher is not None:
            self._watcher.close()
