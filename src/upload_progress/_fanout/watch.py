"""Watch one upload from Python: ``async for snapshot in tracker.watch(...)``."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from attrs import define, field

from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.models import UploadKey, UploadProgress
from upload_progress._model.state import is_final

__all__ = ["Watch"]


@define(eq=False, repr=False)
class Watch(AsyncIterator[UploadProgress]):
    """An iterator over the snapshots of one upload: the current one first, the last one last.

    A loop that is left early stops watching when the iterator is garbage-collected, or at once by
    ``aclose()`` or ``async with``.
    """

    _key: UploadKey
    _subscribe: Callable[[], Subscription]
    _load: Callable[[UploadKey], Awaitable[UploadProgress]]
    _wait: Callable[[Subscription], Awaitable[list[Update]]]
    _subscription: Subscription | None = field(default=None, init=False)
    _is_ended: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Stop watching when the block ends."""
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        """Stop watching."""
        await self.aclose()

    async def __anext__(self) -> UploadProgress:
        """Return the next snapshot.

        Raises:
            UploadNotFound: The owner has no such upload.
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
        if self._subscription is None:
            self._subscription = self._subscribe()
            self._subscription.add_upload(self._key.owner, self._key.upload_id)
            try:
                self._subscription.offer(Update(self._key.owner, await self._load(self._key)))
            except BaseException:
                await self.aclose()
                raise
        while True:
            for update in await self._wait(self._subscription):
                return update.progress
            if self._subscription.is_closed:
                return None

    def __del__(self) -> None:
        """Close the subscription of a loop that was left without ``aclose()``."""
        if self._subscription is not None:
            self._subscription.close()

    async def aclose(self) -> None:
        """Stop watching; no snapshot follows."""
        self._is_ended = True
        if self._subscription is not None:
            self._subscription.close()
