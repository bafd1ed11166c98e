"""The blocking twin of ``ProgressTracker.resume``, for tasks without ``async``.

Celery, RQ and threads call it. The work of the tracker runs in another thread: in that of the
lifespan, if this process has entered it, else in one that is started for the block.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal
from attrs import define, field, frozen

from upload_progress._internals import TrackerInternals
from upload_progress._model.models import Metadata, UploadProgress, UploadState
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.stage import StageHandle
from upload_progress.exceptions import UploadCancelled
from upload_progress.upload import Upload

__all__ = ["BlockingUpload", "resume_blocking"]

T = TypeVar("T")


class _BlockFailed(Exception):
    """The block in the other thread has raised an exception."""


@define(eq=False, repr=False)
class _Block:
    """The block of another thread, as the event loop sees it."""

    live: LiveUpload
    has_failed: bool = field(default=False, init=False)
    _left: anyio.Event = field(factory=anyio.Event, init=False)

    async def wait(self) -> None:
        """Wait until the block is left.

        Raises:
            _BlockFailed: It has raised an exception.
        """
        await self._left.wait()
        if self.has_failed:
            raise _BlockFailed

    def leave(self, has_failed: bool) -> None:
        """Record that the block is left."""
        self.has_failed = has_failed
        self._left.set()


async def _process(
    internals: TrackerInternals,
    token: str,
    on_cancel: Callable[[], object] | None,
    *,
    task_status: TaskStatus[_Block],
) -> None:
    """Go on with an upload while a block of another thread runs."""
    live = await internals.hand_overs.resume(token)
    if on_cancel is not None:
        live.opened_by.on_cancel = partial(internals.tasks.start, partial(_call, on_cancel))
    try:
        async with internals.receiving(live):
            block = _Block(live)
            task_status.started(block)
            await block.wait()
    except _BlockFailed:
        pass
    finally:
        with anyio.CancelScope(shield=True):
            await internals.flusher.flush(ends=True)


async def _call(function: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(function)


@contextmanager
def resume_blocking(
    internals: TrackerInternals, token: str, on_cancel: Callable[[], object] | None
) -> Iterator["BlockingUpload"]:
    """Go on with an upload while the block runs; see ``ProgressTracker.resume_blocking``."""
    background = internals.background
    with background.threads.open(background.running) as portal:
        ended, block = portal.start_task(partial(_process, internals, token, on_cancel))
        try:
            yield BlockingUpload(block.live, portal)
        except BaseException:
            _leave(portal, block, ended, has_failed=True)
            raise
        _leave(portal, block, ended, has_failed=False)
        if Upload(block.live).is_cancelled:
            raise UploadCancelled


def _leave(portal: BlockingPortal, block: _Block, ended: Future[None], *, has_failed: bool) -> None:
    # When the lifespan was left meanwhile, the upload has failed, and the portal is closed.
    with suppress(RuntimeError):
        portal.call(block.leave, has_failed)
        ended.result()


@frozen(eq=False, repr=False)
class BlockingUpload:
    """The upload that a block of ``ProgressTracker.resume_blocking`` processes.

    Its methods may be called from any thread. On an upload that has ended they change nothing.
    """

    _live: LiveUpload
    _portal: BlockingPortal

    @property
    def _upload(self) -> Upload:
        return Upload(self._live)

    def __repr__(self) -> str:
        """Show id, state and size; no owner and no file name."""
        return repr(self._upload)

    @property
    def upload_id(self) -> str:
        """The id of the upload, unique within its owner."""
        return self._upload.upload_id

    @property
    def state(self) -> UploadState:
        """The state of the upload."""
        return self._upload.state

    @property
    def is_cancelled(self) -> bool:
        """Whether the owner has cancelled the upload: the work may stop."""
        return self._upload.is_cancelled

    @property
    def is_tracked(self) -> bool:
        """Whether the upload can be watched."""
        return self._upload.is_tracked

    def snapshot(self) -> UploadProgress:
        """Return the current snapshot, as a watcher sees it."""
        return self._upload.snapshot()

    @contextmanager
    def stage(self, name: str, *, total: int | None = None) -> Iterator[StageHandle]:
        """Show a stage of processing while the block runs; see ``Upload.stage``.

        Args:
            name: A word for people, such as ``scanning``; at most 100 characters are kept.
            total: The number of steps; None (the default) if it is unknown.

        Raises:
            InvalidValue: *total* is not a whole number from 0 up.
        """
        outer = self._live.current_stage
        handle = StageHandle.begin(name, total, partial(self._call, self._live.mark_due))
        self._call(partial(self._live.show_stage, handle))
        try:
            yield handle
        finally:
            self._call(partial(self._live.show_stage, outer))

    def set(
        self,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        metadata: Metadata | None = None,
        group: str | None = None,
    ) -> None:
        """Set what the task knows about the upload; see ``Upload.set``.

        Args:
            filename: The file name; at most 255 characters are kept.
            content_type: The media type; at most 255 characters are kept.
            metadata: A JSON object of at most ``Limits.metadata_bytes`` (4 KiB by default).
            group: The group, 1 to 128 characters.

        Raises:
            InvalidValue: A value is not valid.
        """
        self._call(
            partial(
                self._upload.set,
                filename=filename,
                content_type=content_type,
                metadata=metadata,
                group=group,
            )
        )

    def stored(self, size_bytes: int) -> None:
        """Count bytes that the task has passed on; see ``Upload.stored``.

        Args:
            size_bytes: How many bytes were passed on since the last call.

        Raises:
            InvalidValue: *size_bytes* is not a whole number.
        """
        self._upload.stored(size_bytes)

    def fail(self, message: str) -> None:
        """Let the upload end as ``failed``, ``rejected``, at the end of the block.

        Args:
            message: The reason, shown to the owner; at most 1000 characters are kept.
        """
        self._call(partial(self._upload.fail, message))

    def _call(self, function: Callable[[], None]) -> None:
        """Call *function* in the thread of the event loop, unless that has ended."""
        with suppress(RuntimeError):
            self._portal.call(function)
