"""Admission: create live uploads, and track them under a key that no other upload has."""

from collections.abc import Callable
from typing import Unpack

from attrs import Factory, define, field

from upload_progress._model.models import UploadKey, is_upload_id, new_transfer_id, new_upload_id
from upload_progress._model.validation import Description, validate_description
from upload_progress._runtime.worker import Worker
from upload_progress._tracking.live_upload import LiveUpload, UploadContext
from upload_progress._tracking.multi_request_upload import MultiRequestUpload
from upload_progress._tracking.registry import Registry, ResourceIndex
from upload_progress._tracking.timers import UploadTimers
from upload_progress.config import TrackerConfig
from upload_progress.identity import Identity
from upload_progress.protocols import TransferHead, upload_id_for
from upload_progress.throttling import Meter

__all__ = ["Admission"]


def _context_of(admission: "Admission") -> UploadContext:
    return UploadContext(
        config=admission.config,
        on_due=admission.on_due,
        on_ended=admission.registry.mark_ended,
        admit=admission.admit,
        remember_resource=admission.resources.remember,
    )


@define(eq=False, repr=False, kw_only=True)
class Admission:
    """Creates and admits the live uploads of one tracker.

    Args:
        config: The settings of the tracker.
        worker: The name of this process.
        registry: Keeps the live uploads.
        timers: Schedules the next look at each live upload.
        on_due: Called with an upload that has something to report.

    Attributes:
        untracked: How many uploads were received without progress because a limit was reached.
    """

    config: TrackerConfig
    worker: Worker
    registry: Registry
    timers: UploadTimers
    on_due: Callable[[LiveUpload], None]
    resources: ResourceIndex = field(factory=ResourceIndex, init=False)
    untracked: int = field(default=0, init=False)
    _context: UploadContext = field(default=Factory(_context_of, takes_self=True), init=False)

    def open(
        self,
        *,
        requested_id: str | None = None,
        is_proxied: bool = False,
        where: str = "open",
        **description: Unpack[Description],
    ) -> LiveUpload:
        """Return a live upload that is not tracked yet; ``admit`` tracks it.

        Args:
            requested_id: The upload id that the client chose; one that is not valid is replaced.
            is_proxied: Whether the request came through a proxy.
            where: The name of the call, for the error.
            description: What is announced about the upload.

        Raises:
            InvalidValue: The description is not valid.
        """
        valid = validate_description(where, self.config.limits.metadata_bytes, description)
        upload_id = (
            requested_id if requested_id is not None and is_upload_id(requested_id) else None
        )
        return LiveUpload(
            upload_id=upload_id or new_upload_id(),
            transfer_id=new_transfer_id(),
            meter=Meter(self.config.policy, valid["total_bytes"]),
            context=self._context,
            worker=self.worker.name,
            has_prior_state=upload_id is None,
            is_proxied=is_proxied,
            filename=valid["filename"],
            content_type=valid["content_type"],
            group=valid["group"],
            metadata=valid["metadata"],
            created_at=self.config.clock.time(),
        )

    def open_transfer(
        self,
        head: TransferHead,
        *,
        requested_id: str | None,
        is_proxied: bool,
        **description: Unpack[Description],
    ) -> MultiRequestUpload:
        """Return the upload of which a request carries a part; ``admit`` may merge it.

        Raises:
            InvalidValue: The description is not valid.
        """
        valid = validate_description("open", self.config.limits.metadata_bytes, description)
        has_requested_id = requested_id is not None and is_upload_id(requested_id)
        resource_id = None if head.resource is None else upload_id_for(head, head.resource)
        upload_id = requested_id if has_requested_id else resource_id
        is_part = has_requested_id and head.part_total_bytes is not None
        worker = self.worker.name
        return MultiRequestUpload(
            upload_id=upload_id or new_upload_id(),
            transfer_id=worker,
            meter=Meter(self.config.policy, None if is_part else valid["total_bytes"]),
            context=self._context,
            worker=worker,
            has_prior_state=upload_id is None,
            is_proxied=is_proxied,
            filename=valid["filename"],
            content_type=valid["content_type"],
            group=valid["group"],
            created_at=self.config.clock.time(),
            head=head,
            resource_id=resource_id,
            has_requested_id=has_requested_id,
        )

    def admit(self, upload: LiveUpload, identity: Identity) -> bool:
        """Track *upload* for *identity*, under a fresh id if its own is taken.

        Returns:
            Whether there was room; if not, the upload is received untracked.
        """
        if isinstance(upload, MultiRequestUpload) and self._merge(upload, identity):
            return True
        upload_id, owner = upload.upload_id, identity.owner_of(upload.upload_id)
        if not identity.accepts(upload_id) or self.registry.is_receiving(owner, upload_id):
            if upload.id_is_sent:
                return False
            upload_id = new_upload_id()
            owner = identity.owner_of(upload_id)
            upload.has_prior_state = True
        if not self.registry.has_room(owner):
            self.untracked += 1
            return False
        before = self.registry.find(owner, upload_id)
        if before is not None:
            upload.start_after(before)
        upload.upload_id, upload.owner, upload.is_tracked = upload_id, owner, True
        self.registry.add(UploadKey(owner, upload_id), upload)
        self.timers.watch(upload)
        upload.mark_due()
        return True

    def _merge(self, upload: MultiRequestUpload, identity: Identity) -> bool:
        """Merge *upload* into the live upload that it belongs to, if this process has it."""
        owner = identity.owner_of(upload.upload_id)
        if upload.resource_id is not None and not upload.has_requested_id:
            found = self.resources.find(owner, upload.resource_id)
            upload.upload_id = found or upload.upload_id
        elif upload.resource_id is not None:
            self.resources.remember(owner, upload.resource_id, upload.upload_id)
        live = self.registry.find(owner, upload.upload_id)
        if not isinstance(live, MultiRequestUpload) or not live.can_merge(upload):
            return False
        live.merge(upload)
        return True
