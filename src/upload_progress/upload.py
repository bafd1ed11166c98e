"""What an endpoint holds of the upload it is handling.

Everything here is safe to call at any time: on an upload that is not tracked, or that has
ended, it changes nothing. Only malformed arguments raise.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define

from upload_progress._model.models import Metadata, UploadProgress, UploadState
from upload_progress._model.validation import Described, checked_count, described
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.stage import StageHandle
from upload_progress.identity import Identity

__all__ = ["Upload"]


@define(eq=False, repr=False)
class Upload:
    """The upload that a request, or ``ProgressTracker.track()``, is receiving."""

    _opened: LiveUpload

    @property
    def _live(self) -> LiveUpload:
        """The upload, once it is known which it is: several requests may carry one."""
        return self._opened.host or self._opened

    def __repr__(self) -> str:
        """Name the upload and where it stands; no owner, no file name."""
        return f"<Upload {self.upload_id} {self.state} {self.received_bytes} bytes>"

    @property
    def upload_id(self) -> str:
        """The upload's name."""
        return self._live.upload_id

    @property
    def state(self) -> UploadState:
        """Where it stands."""
        return self._live.state

    @property
    def received_bytes(self) -> int:
        """Body bytes that have come; frozen at the end of the upload."""
        return self._live.received_bytes

    @property
    def is_tracked(self) -> bool:
        """Whether anybody can follow it; small requests without an id are not tracked."""
        return self._live.is_tracked

    def snapshot(self) -> UploadProgress:
        """Return what a watcher would see right now."""
        return self._live.snapshot()

    def advance(self, size_bytes: int) -> None:
        """Count *size_bytes* more; for uploads that do not come through the middleware.

        Raises:
            InvalidValue: It is no whole number from 0 up.
        """
        if self._live.meter.add(checked_count("advance.size_bytes", size_bytes)):
            self._live.mark_due()

    @asynccontextmanager
    async def stage(self, name: str, *, total: int | None = None) -> AsyncIterator[StageHandle]:
        """Show, while the block runs, what is being done with the received bytes.

        Args:
            name: A word for people, such as ``scanning``.
            total: How many steps there are; None when that is not known.
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
        """Say what the application knows better than the request's head; None leaves as is.

        Raises:
            InvalidValue: The metadata is no JSON, or larger than 4 KiB as JSON; a size is negative.
        """
        live = self._live
        said = Described(
            filename=filename,
            content_type=content_type,
            metadata=metadata,
            group=group,
            total_bytes=total_bytes,
        )
        fit = described("set", live.desk.limits.metadata_bytes, said)
        if live.is_ended:
            return
        if fit["total_bytes"] is not None:
            live.meter.total_bytes = fit["total_bytes"]
        for name in ("filename", "content_type", "metadata", "group"):
            if (value := fit.get(name)) is not None:
                live.choose(name, value)
        live.mark_due()

    def claim(self, owner: Identity | str) -> bool:
        """Say whose upload this is, where the application itself authenticates.

        Returns:
            Whether it is theirs now. The first owner keeps an upload: a later claim by
            somebody else changes nothing and returns False.
        """
        return self._live.claim(owner if isinstance(owner, Identity) else Identity(owner))

    def fail(self, message: str) -> None:
        """Make the upload end as ``failed``, ``rejected``, whatever the answer's status."""
        self._live.mark_failed(message)
