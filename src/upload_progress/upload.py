"""The handle by which an endpoint describes and fails the upload that it receives.

All methods may be called at any time: on an upload that is not tracked or that has ended they
change nothing. Only malformed arguments raise.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from attrs import define

from upload_progress._model.models import Metadata, UploadProgress, UploadState
from upload_progress._model.state import CANCELLED
from upload_progress._model.validation import Description, validate_count, validate_description
from upload_progress._tracking.hand_over import MAX_EXPIRES_SECONDS, Handed, make_token
from upload_progress._tracking.live_record import current_snapshot
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.stage import StageHandle
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import Identity, as_identity

__all__ = ["Upload"]


@define(eq=False, repr=False)
class Upload:
    """The upload that a request, or a ``ProgressTracker.track()`` block, is receiving.

    >>> import anyio
    >>> from upload_progress import ProgressTracker
    >>> async def store(chunks: list[bytes]) -> str:
    ...     tracker = ProgressTracker()
    ...     async with tracker.track(owner="alice", total_bytes=10) as upload:
    ...         for chunk in chunks:
    ...             upload.advance(len(chunk))
    ...         async with upload.stage("scanning", total=2) as stage:
    ...             stage.advance(2)
    ...     return f"{upload.state}, {upload.received_bytes} bytes"
    >>> anyio.run(store, [b"12345", b"67890"])
    'completed, 10 bytes'
    """

    _opened: LiveUpload

    @property
    def _live(self) -> LiveUpload:
        """The upload of this request, or the one that it was merged into."""
        return self._opened.merged_into or self._opened

    def __repr__(self) -> str:
        """Show id, state and size; no owner and no file name."""
        return f"<Upload {self.upload_id} {self.state} {self.received_bytes} bytes>"

    @property
    def upload_id(self) -> str:
        """The id of the upload, unique within its owner."""
        return self._live.upload_id

    @property
    def state(self) -> UploadState:
        """The state of the upload."""
        return self._live.state

    @property
    def is_cancelled(self) -> bool:
        """Whether the owner has cancelled the upload: the only reason to drop its file.

        Work that takes long after the last byte may ask for it, and stop. That another worker has
        taken this one for dead is not shown here, nor in ``state``.
        """
        return self._live.error == CANCELLED or self._opened.opened_by.is_stopped

    @property
    def received_bytes(self) -> int:
        """The body bytes received so far; constant after the end."""
        return self._live.received_bytes

    @property
    def is_tracked(self) -> bool:
        """Whether the upload can be watched; small requests without an id are not tracked."""
        return self._live.is_tracked

    def snapshot(self) -> UploadProgress:
        """Return the current snapshot, as a watcher sees it."""
        return current_snapshot(self._live)

    def advance(self, size_bytes: int) -> None:
        """Count received bytes, for uploads that do not come through the middleware.

        Args:
            size_bytes: How many bytes were received since the last call.

        Raises:
            InvalidValue: *size_bytes* is not a whole number from 0 up.
        """
        if self._live.meter.add(validate_count("advance.size_bytes", size_bytes)):
            self._live.mark_due()

    def stored(self, size_bytes: int) -> None:
        """Count bytes that the application has passed on, to object storage or another server.

        ``stored_bytes`` of snapshots shows them beside the bytes received, and never more than
        those. May be called from any thread, as ``Callback=upload.stored`` of boto3.

        Args:
            size_bytes: How many bytes were passed on since the last call; less than 0 if some have
                to be sent again.

        Raises:
            InvalidValue: *size_bytes* is not a whole number.
        """
        validate_count("stored.size_bytes", abs(size_bytes))
        self._live.add_stored(size_bytes)

    async def pass_on(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """Yield *chunks*, and count each with ``stored`` when the next one is asked for.

        For clients that send an asynchronous iterator, such as httpx2::

            async def forward(request):
                chunks = current_upload(request).pass_on(request.stream())
                answer = await http.put(address, content=chunks)
                return Response(status_code=answer.status_code)

        Args:
            chunks: The body.
        """
        async for chunk in chunks:
            yield chunk
            self.stored(len(chunk))

    @asynccontextmanager
    async def stage(self, name: str, *, total: int | None = None) -> AsyncIterator[StageHandle]:
        """Show a stage of processing while the block runs.

        Args:
            name: A word for people, such as ``scanning``; at most 100 characters are kept.
            total: The number of steps; None (the default) if it is unknown.

        Raises:
            InvalidValue: *total* is not a whole number from 0 up.
        """
        outer = self._live.current_stage
        handle = StageHandle.begin(name, total, self._live.mark_due)
        self._live.show_stage(handle)
        try:
            yield handle
        finally:
            self._live.show_stage(outer)

    def set(
        self,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        metadata: Metadata | None = None,
        group: str | None = None,
        total_bytes: int | None = None,
    ) -> None:
        """Set what the application knows better than the request head; None changes nothing.

        Args:
            filename: The file name; at most 255 characters are kept.
            content_type: The media type; at most 255 characters are kept.
            metadata: A JSON object of at most ``Limits.metadata_bytes`` (4 KiB by default).
            group: The group, 1 to 128 characters.
            total_bytes: The size of the upload, in bytes.

        Raises:
            InvalidValue: The metadata is not JSON or too large, or another value is not valid.
        """
        live = self._live
        description = Description(
            filename=filename,
            content_type=content_type,
            metadata=metadata,
            group=group,
            total_bytes=total_bytes,
        )
        valid = validate_description("set", live.context.config.limits.metadata_bytes, description)
        if live.is_ended:
            return
        if valid["total_bytes"] is not None:
            live.meter.total_bytes = valid["total_bytes"]
        for name in ("filename", "content_type", "metadata", "group"):
            if (value := valid.get(name)) is not None:
                live.set_attribute(name, value)
        live.mark_due()

    def claim(self, owner: Identity | str) -> bool:
        """Set the owner, where the application itself authenticates.

        Args:
            owner: The owner of the upload.

        Returns:
            Whether *owner* is the owner now. The first owner keeps an upload: a later claim by
            another identity changes nothing and returns False.
        """
        return self._live.claim(as_identity(owner))

    async def hand_over(self, *, expires_seconds: float = 3600.0) -> str:
        """Let a task finish the processing, when the request is over; return a token for it.

        The upload is handed over by the answer to the request, usually with status 202: it stays
        ``processing``, and ``ProgressTracker.resume(token)`` goes on with it in another process. An
        error, an exception or a disconnect before the last byte ends it as always. A second call
        returns the same token. A function without ``async`` calls it as
        ``anyio.from_thread.run(upload.hand_over)``.

        Example:
            ::

                async def receive(request):
                    path = await store(request)
                    token = await current_upload(request).hand_over(expires_seconds=600)
                    scan.delay(path, token)  # a task queue
                    return Response(status_code=202)

        Args:
            expires_seconds: How long the upload waits for a task, up to a day; then it fails as
                ``expired``.

        Returns:
            A secret for one upload. That of an upload that is not tracked can be resumed as well,
            and reports nothing.

        Raises:
            InvalidValue: *expires_seconds* is not a number of seconds from 1 to 86,400.
        """
        if not 1 <= expires_seconds <= MAX_EXPIRES_SECONDS:
            raise InvalidValue("hand_over.expires_seconds", "must be from 1 to 86400 seconds")
        await self._opened.opened_by.wait_for_owner()
        live = self._live
        if not live.is_tracked:
            return make_token(None)
        token = make_token(live.key) if live.handed is None else live.handed.token
        live.handed = Handed(token, expires_seconds)
        return token

    def fail(self, message: str) -> None:
        """Let the upload end as ``failed``, ``rejected``, whatever the status of the response.

        It ends with the request or block that this handle belongs to.

        Args:
            message: The reason, shown to the owner; at most 1000 characters are kept.
        """
        self._opened.mark_failed(message)
