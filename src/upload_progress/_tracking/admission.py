"""Where uploads come in: opened, admitted under a key that nobody else holds, and carried."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Unpack

import anyio
from attrs import define, field

from upload_progress._model.models import UploadKey, is_upload_id, new_transfer_id, new_upload_id
from upload_progress._model.validation import Described, described
from upload_progress._tracking.live_upload import LiveUpload, Terms
from upload_progress._tracking.multi_request_upload import MultiRequestUpload
from upload_progress._tracking.registry import Bindings, Registry
from upload_progress.config import Limits
from upload_progress.exceptions import InvalidValue, QuotaExceeded, UploadCancelled
from upload_progress.identity import Identity
from upload_progress.interfaces import Clock
from upload_progress.protocols import TransferHead, upload_id_for
from upload_progress.throttling import Meter
from upload_progress.upload import Upload

__all__ = [
    "Admission",
    "Terms",
]


@define(eq=False, repr=False)
class Admission:
    """The ``Desk`` of a tracker's live uploads.

    Attributes:
        registry: Where they are found.
        due: Takes an upload into the next sending.
        watch: Looks at an upload as time goes by.
        breathe: Does what nobody else will do at the end of an upload.
        untracked: How many were received without progress, because a limit was reached.
    """

    registry: Registry
    terms: Terms
    due: Callable[[LiveUpload], None] = field(kw_only=True)
    watch: Callable[[LiveUpload], None] = field(kw_only=True)
    run_once: Callable[[], Awaitable[None]] = field(kw_only=True)
    untracked: int = field(default=0, init=False)
    _bindings: Bindings = field(factory=Bindings, init=False)

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.terms.clock

    @property
    def limits(self) -> Limits:
        """How much may be held."""
        return self.terms.limits

    @property
    def mount_path(self) -> str:
        """Where the progress API is mounted."""
        return self.terms.mount_path

    @property
    def stall_after_seconds(self) -> float:
        """After how long without a byte an upload is stalled."""
        return self.terms.stall_after_seconds

    def open(
        self,
        *,
        claimed_id: str | None = None,
        is_proxied: bool = False,
        where: str = "open",
        **said: Unpack[Described],
    ) -> LiveUpload:
        """Return a live upload that is not tracked yet; ``admit`` tracks it.

        An id that is no upload id is replaced by a fresh one.

        Raises:
            InvalidValue: What is said of it cannot be kept.
        """
        fit = described(where, self.limits.metadata_bytes, said)
        is_theirs = claimed_id is not None and is_upload_id(claimed_id)
        return LiveUpload(
            upload_id=claimed_id if claimed_id is not None and is_theirs else new_upload_id(),
            transfer_id=new_transfer_id(),
            meter=Meter(self.terms.policy, fit["total_bytes"]),
            desk=self,
            worker=self.terms.worker,
            has_prior_state=not is_theirs,
            is_proxied=is_proxied,
            filename=fit["filename"],
            content_type=fit["content_type"],
            group=fit["group"],
            metadata=fit["metadata"],
            created_at=self.clock.time(),
        )

    def open_transfer(
        self,
        transfer_head: TransferHead,
        *,
        claimed_id: str | None,
        is_proxied: bool,
        **said: Unpack[Described],
    ) -> MultiRequestUpload:
        """Return the upload of which a request carries *piece*; ``admit`` may give it to another.

        Raises:
            InvalidValue: What is said of it cannot be kept.
        """
        fit = described("open", self.limits.metadata_bytes, said)
        is_claimed = claimed_id is not None and is_upload_id(claimed_id)
        address = (
            None
            if transfer_head.resource is None
            else upload_id_for(transfer_head, transfer_head.resource)
        )
        own_id = claimed_id if is_claimed else address
        is_part = is_claimed and transfer_head.part_total_bytes is not None
        return MultiRequestUpload(
            upload_id=own_id or new_upload_id(),
            transfer_id=self.terms.worker,
            meter=Meter(self.terms.policy, None if is_part else fit["total_bytes"]),
            desk=self,
            worker=self.terms.worker,
            has_prior_state=own_id is None,
            is_proxied=is_proxied,
            filename=fit["filename"],
            content_type=fit["content_type"],
            group=fit["group"],
            created_at=self.clock.time(),
            transfer_head=transfer_head,
            address=address,
            is_claimed=is_claimed,
        )

    def ended(self, upload: LiveUpload) -> None:
        """Let another upload of its owner have the place of *upload*, which has just ended."""
        self.registry.ended(upload)

    def remember(self, owner: str, address: str, upload_id: str) -> None:
        """Let *owner*'s requests to the resource with the id *address* belong to an upload."""
        self._bindings.remember(owner, address, upload_id)

    def _join(self, upload: MultiRequestUpload, identity: Identity) -> bool:
        """Give *upload* to the one that it belongs to, if that is received here already."""
        owner = identity.owner_of(upload.upload_id)
        if upload.address is not None and not upload.is_claimed:
            upload.upload_id = self._bindings.find(owner, upload.address) or upload.upload_id
        elif upload.address is not None:
            self.remember(owner, upload.address, upload.upload_id)
        host = self.registry.find(owner, upload.upload_id)
        if not isinstance(host, MultiRequestUpload) or not host.takes(upload):
            return False
        host.adopt(upload)
        return True

    def admit(self, upload: LiveUpload, identity: Identity) -> bool:
        """Track *upload* for *identity*, under a fresh id where its own cannot be had.

        Returns:
            Whether there was room; without, it is received untracked.
        """
        if isinstance(upload, MultiRequestUpload) and self._join(upload, identity):
            return True
        upload_id, owner = upload.upload_id, identity.owner_of(upload.upload_id)
        if not identity.accepts(upload_id) or self.registry.is_receiving(owner, upload_id):
            if upload.is_named:
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
        self.watch(upload)
        upload.mark_due()
        return True

    @asynccontextmanager
    async def track(
        self, identity: Identity, upload_id: str | None, said: Described
    ) -> AsyncIterator[Upload]:
        """Track an upload while the block runs; see ``ProgressTracker.track``."""
        if upload_id is not None and not is_upload_id(upload_id):
            raise InvalidValue("track.upload_id", "is not 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        live = self.open(claimed_id=upload_id, where="track", **said)
        if not self.admit(live, identity):
            raise QuotaExceeded("tracked_per_owner", self.limits.tracked_per_owner)
        with anyio.CancelScope() as scope:
            live.on_cut = scope.cancel
            async with self._carrying(live):
                yield Upload(live)
        if scope.cancelled_caught:
            raise UploadCancelled

    @asynccontextmanager
    async def _carrying(self, live: LiveUpload) -> AsyncIterator[None]:
        live.begin()
        try:
            yield
        except anyio.get_cancelled_exc_class():
            live.aborted()
            raise
        except BaseException:
            live.raised()
            raise
        else:
            live.body_end()
            live.answered(None)
        finally:
            live.on_cut = None
            await self.run_once()
