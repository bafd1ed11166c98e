"""A worker that is about to stop: its watchers move to other workers, its uploads finish."""

from collections.abc import Awaitable, Generator
from typing import Final

import anyio
from attrs import define

from upload_progress._reporting.flusher import Flusher
from upload_progress._tracking.registry import Registry

__all__ = ["Drain"]

_CHECK_SECONDS: Final = 0.1


@define(eq=False, repr=False)
class Drain(Awaitable[bool]):
    """What ``ProgressTracker.drain`` returns: await it to let the running uploads finish.

    Args:
        registry: The uploads of this process.
        flusher: Stores and publishes their ends.
        seconds: How long to wait at most.
    """

    _registry: Registry
    _flusher: Flusher
    _seconds: float

    def __await__(self) -> Generator[object, object, bool]:
        """Wait; return whether no upload is running any more."""
        return self._wait().__await__()

    async def _wait(self) -> bool:
        with anyio.move_on_after(self._seconds):
            while self._is_receiving:  # noqa: ASYNC110  # an upload ends in many ways
                await anyio.sleep(_CHECK_SECONDS)
        await self._flusher.flush(everything=True)
        return not self._is_receiving

    @property
    def _is_receiving(self) -> bool:
        uploads = self._registry.everything()
        return any(upload.transfers and not upload.is_ended for upload in uploads)
