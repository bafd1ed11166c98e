"""Admission: create live uploads, and track them under a key that no other upload has."""

from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Unpack

import anyio
from attrs import Factory, define, field

from upload_progress._model.models import (
    Metadata,
    TransferRecord,
    UploadKey,
    UploadState,
    is_upload_id,
    new_upload_id,
)
from upload_progress._model.validation import Description, validate_description
from upload_progress._runtime.worker import Worker
from upload_progress._tracking import outcomes
from upload_progress._tracking.continuation import belonging, merging, prior_state
from upload_progress._tracking.live_upload import LiveUpload, UploadContext
from upload_progress._tracking.registry import Registry, ResourceIndex
from upload_progress._tracking.requests.series import RequestSeries
from upload_progress._tracking.requests.transfer import Transfer, TransferPhase
from upload_progress._tracking.status import PriorState, Reporting
from upload_progress._tracking.store_budget import StoreBudget
from upload_progress.config import TrackerConfig
from upload_progress.identity import Identity
from upload_progress.protocols import (
    RequestHead,
    TransferHead,
    TransferProtocol,
    upload_id_for,
)
from upload_progress.throttling import Meter

__all__ = ["Admission", "AdmissionOrder"]


@define(eq=False, repr=False)
class AdmissionOrder:
    """Lets requests of one upload be admitted in their order, when their owners are known late.

    A request waits for those before it whose owner is awaited. Of requests that have waited, those
    that have ended are admitted first, in the order of their ends; the others in the order of
    their arrival. A request that creates an upload, and those after it, wait for all before it.
    Only requests that wait, or whose owner is awaited, are kept, under each id by which their
    upload is known.
    """

    _awaited: dict[str, dict[LiveUpload, None]] = field(factory=dict, init=False)
    _ids: dict[LiveUpload, dict[str, None]] = field(factory=dict, init=False)
    _turns: dict[LiveUpload, anyio.Event] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of requests whose owner is awaited."""
        return len(self._ids)

    def enter(self, upload: LiveUpload) -> None:
        """Add an upload whose owner is awaited; again, when its resource is known."""
        ids = self._ids.setdefault(upload, {})
        for each in (upload.upload_id, upload.resource_id):
            if each is not None and each not in ids:
                ids[each] = None
                self._awaited.setdefault(each, {})[upload] = None

    def is_preceded(self, upload: LiveUpload) -> bool:
        """Return whether an earlier request of the same upload waits, or its owner is awaited."""
        return bool(self._awaited) and any(
            other.number < upload.number
            for each in (upload.upload_id, upload.resource_id or "")
            for other in self._awaited.get(each, ())
        )

    def has_next(self, upload: LiveUpload) -> bool:
        """Return whether another request of the same upload waits for this one."""
        return any(len(self._awaited[each]) > 1 for each in self._ids[upload])

    async def wait(self, upload: LiveUpload) -> None:
        """Wait, now that the owner of *upload* is known, for its turn."""
        if not self.has_next(upload):
            return
        turn = self._turns[upload] = anyio.Event()
        self._advance(self._ids[upload])
        await turn.wait()

    def leave(self, upload: LiveUpload) -> None:
        """Remove an upload whose owner is known, or will not be."""
        self._turns.pop(upload, None)
        ids = self._ids.pop(upload)
        for each in ids:
            del self._awaited[each][upload]
            if not self._awaited[each]:
                del self._awaited[each]
        self._advance(each for each in ids if each in self._awaited)

    def _advance(self, ids: Iterable[str]) -> None:
        """Let the next request under each of *ids* be admitted."""
        for each in ids:
            upload = self._next(self._connected(each))
            if upload is not None:
                self._turns[upload].set()

    def _connected(self, upload_id: str) -> Collection[LiveUpload]:
        """Return the requests under an id, and those under the other ids of these requests."""
        ids, found = {upload_id: None}, dict[LiveUpload, None]()
        while ids:
            known = [
                each for one in ids for each in self._awaited.get(one, ()) if each not in found
            ]
            found.update(dict.fromkeys(known))
            ids = dict.fromkeys(one for each in known for one in self._ids[each])
        return found

    def _next(self, awaited: Collection[LiveUpload]) -> LiveUpload | None:
        """Return the next of these requests; None if the owner of an earlier one is awaited."""
        barriers = (
            each.number
            for each in awaited
            if each not in self._turns or belonging.is_fresh_creation(each.opened_by)
        )
        barrier = min(barriers, default=inf)
        ready = [each for each in awaited if each in self._turns and each.number <= barrier]
        before = (each for each in ready if each.number < barrier)
        return min(before, key=_place, default=ready[0] if ready else None)


def _place(upload: LiveUpload) -> tuple[float, int]:
    ended_at = upload.opened_by.ended_at
    return (inf if ended_at is None else ended_at, upload.number)


def _context_of(admission: "Admission") -> UploadContext:
    return UploadContext(
        config=admission.config,
        on_due=admission.on_due,
        on_ended=admission.registry.mark_ended,
        on_superseding=admission.on_superseding,
        admit=admission.admit,
        remember_resource=admission.remember_resource,
        budget=admission.budget,
        on_stage=admission.registry.measurements.show_stage,
    )


@define(eq=False, repr=False, kw_only=True)
class Admission:
    """Creates and admits the live uploads of one tracker.

    Args:
        config: The settings of the tracker.
        worker: The name of this process.
        registry: Keeps the live uploads.
        budget: How many records may be written.
        on_due: Called with an upload that has something to report.
        on_superseding: Called with an upload that supersedes one which other workers receive, and
            with its records there.
        resources: Which upload a resource belongs to.
        on_resource: Called with owner, resource id and upload id of a resource whose upload is
            known by another id.

    Attributes:
        untracked: How many uploads were received without progress because a limit was reached.
        order: The order of the requests whose owner is awaited.
    """

    config: TrackerConfig
    worker: Worker
    registry: Registry
    budget: StoreBudget
    on_due: Callable[[LiveUpload], None]
    on_superseding: Callable[[LiveUpload, Sequence[TransferRecord]], None]
    resources: ResourceIndex
    on_resource: Callable[[str, str, str], None]
    untracked: int = field(default=0, init=False)
    order: AdmissionOrder = field(factory=AdmissionOrder, init=False)
    _context: UploadContext = field(default=Factory(_context_of, takes_self=True), init=False)

    def open(
        self,
        *,
        requested_id: str | None = None,
        where: str = "open",
        **description: Unpack[Description],
    ) -> LiveUpload:
        """Return a live upload that is not tracked yet; ``admit`` tracks it.

        Args:
            requested_id: The upload id that the caller chose; one that is not valid is replaced.
            where: The name of the call, for the error.
            description: What is announced about the upload.

        Raises:
            InvalidValue: The description is not valid.
        """
        valid = validate_description(where, self.config.limits.metadata_bytes, description)
        head = RequestHead(
            requested_id=requested_id,
            group=valid["group"],
            total_bytes=valid["total_bytes"],
            filename=valid["filename"],
            content_type=valid["content_type"],
        )
        return self.open_request(head, valid["metadata"])

    def open_request(self, head: RequestHead, metadata: Metadata | None = None) -> LiveUpload:
        """Return the upload of a request that is one of its own; ``admit`` tracks it.

        Args:
            head: What the request announces, which is valid except for the id.
            metadata: Valid metadata.
        """
        upload_id = None if head.requested_id is None else _valid_id(head.requested_id)
        meter = Meter(self.config.policy, head.total_bytes)
        return LiveUpload(
            number=self.registry.next_number(),
            upload_id=upload_id or new_upload_id(),
            opened_by=Transfer(meter=meter),
            meter=meter,
            context=self._context,
            worker=self.worker.name,
            prior_state=PriorState.UNKNOWN if upload_id else PriorState.CONFIRMED,
            is_proxied=head.is_proxied,
            filename=head.filename,
            has_path_name=head.has_path_name,
            content_type=head.content_type,
            group=head.group,
            metadata=metadata,
            created_at=self.config.clock.time(),
        )

    def open_transfer(
        self,
        head: TransferHead,
        protocol: TransferProtocol,
        *,
        requested_id: str | None,
        is_proxied: bool,
        **description: Unpack[Description],
    ) -> LiveUpload:
        """Return the upload of which a request carries a part; ``admit`` may merge it.

        Args:
            head: The request head, as its protocol reads it.
            protocol: The protocol.
            requested_id: The upload id that the client chose; one that is not valid is ignored.
            is_proxied: Whether the request came through a proxy.
            description: What is announced about the upload.

        Raises:
            InvalidValue: The description is not valid.
        """
        valid = validate_description("open", self.config.limits.metadata_bytes, description)
        chosen_id = _valid_id(requested_id)
        resource_id = None if head.resource is None else upload_id_for(head, head.resource)
        upload_id = chosen_id or resource_id
        is_part = chosen_id is not None and head.part_total_bytes is not None
        policy = self.config.policy
        names_upload = chosen_id is not None
        transfer = Transfer(
            meter=Meter(policy), head=head, protocol=protocol, names_upload=names_upload
        )
        meter = Meter(policy, None if is_part else valid["total_bytes"])
        return LiveUpload(
            number=self.registry.next_number(),
            upload_id=upload_id or new_upload_id(),
            # All requests of an upload at one worker write one record.
            record_name=self.worker.name,
            opened_by=transfer,
            meter=meter,
            context=self._context,
            worker=self.worker.name,
            series=RequestSeries(meter=meter, begun_by=transfer, resource_id=resource_id),
            prior_state=PriorState.UNKNOWN if upload_id else PriorState.CONFIRMED,
            is_proxied=is_proxied,
            filename=valid["filename"],
            content_type=valid["content_type"],
            group=valid["group"],
            created_at=self.config.clock.time(),
        )

    def resume(self, record: TransferRecord, others: Sequence[TransferRecord]) -> LiveUpload:
        """Return the upload of a task of this process, which is tracked from now on.

        Args:
            record: The record that this process has taken over, and stored.
            others: The records of its attempt that others have written.
        """
        meter = Meter(self.config.policy, record.total_bytes, record.received_bytes)
        transfer = Transfer(meter=meter, phase=TransferPhase.RECEIVED)
        upload = LiveUpload(
            number=self.registry.next_number(),
            upload_id=record.upload_id,
            record_name=record.transfer_id,
            opened_by=transfer,
            meter=meter,
            context=self._context,
            worker=self.worker.name,
            prior_state=PriorState.CONFIRMED,
            created_at=record.created_at,
            group=record.group,
            filename=record.filename,
            content_type=record.content_type,
            metadata=record.metadata,
        )
        upload.take_over(record, others)
        before = self.registry.find(record.owner, record.upload_id)
        if before is not None:
            before.supersede()
        self.registry.add(record.key, upload)
        upload.track(record.upload_id, record.owner)
        upload.mark_due()
        return upload

    def admit(self, upload: LiveUpload, identity: Identity) -> bool:
        """Track *upload* for *identity*, whatever has happened to it so far.

        It may turn out to be a further request of an upload that is received already. A newer
        upload of the same id supersedes an older one.

        Returns:
            Whether there was room; if not, the upload is received untracked.
        """
        if upload.is_tracked or upload.merged_into is not None:
            return True
        if upload.series is not None:
            self._find_by_resource(upload, identity)
        upload.is_late = belonging.has_begun_before(upload)
        upload.begun_at = upload.created_at if upload.is_late else None
        upload.limit_key = identity.limit_key
        key = UploadKey(identity.owner_of(upload.upload_id), upload.upload_id)
        before = self.registry.find(key.owner, key.upload_id)
        is_cancelled = self.registry.has_cancels and self._stop_cancelled(key, upload)
        if (before is not None and self._is_part_of(before, upload)) or is_cancelled:
            return True
        if before is not None and self._is_to_wait(before, upload):
            self._await_response(before, upload, identity)
            return True
        if not identity.accepts(upload.upload_id):
            if upload.id_is_sent:
                return False
            before, upload.upload_id = None, new_upload_id()
            upload.prior_state = PriorState.CONFIRMED
            key = UploadKey(identity.owner_of(upload.upload_id), upload.upload_id)
        if not (upload.is_ended or self.registry.has_room(upload.limit_key, before)):
            self.untracked += 1
            return False
        if before is not None:
            self._replace(before, upload, identity)
        self._add(upload, key)
        return True

    def _replace(self, before: LiveUpload, upload: LiveUpload, identity: Identity) -> None:
        """Let *upload* follow *before*, which is received under its id."""
        if before.prior_state is PriorState.OTHER:
            # Now that one waits: its response tells if it is an upload.
            before.supersede()
            self._await_response(upload, before, identity)
        elif before.is_superseded:
            upload.preceding = before.preceding
        else:
            prior_state.start_after(upload, before)

    def _is_to_wait(self, before: LiveUpload, upload: LiveUpload) -> bool:
        """Return whether *before*, which is received, is replaced only by the response."""
        is_over = before.is_ended or before.is_superseded or before.has_ended_elsewhere
        return not is_over and belonging.awaits_response(upload, before.session)

    def _await_response(self, before: LiveUpload, upload: LiveUpload, identity: Identity) -> None:
        """Track *upload* when its request is accepted, or *before* is not received any more."""

        def follow(is_another: bool) -> None:
            upload.on_response = None
            self.registry.forget_waiting(before, upload)
            if is_another:
                upload.reporting, upload.prior_state = Reporting.UNTRACKED, PriorState.UNKNOWN
                self.admit(upload, identity)

        upload.on_response = follow
        self.registry.add_waiting(before, upload, follow)

    def _stop_cancelled(self, key: UploadKey, upload: LiveUpload) -> bool:
        """Stop a request of an upload that the owner has just cancelled.

        Returns:
            Whether the request had begun by then, or is stopped, so that it begins no other upload.
        """
        cancel = self.registry.find_cancel(key, self.config.clock.monotonic())
        if cancel is None:
            return False
        has_begun = belonging.precedes_cancel(upload, cancel.number, cancel.at.wall)
        is_late = has_begun or belonging.belongs_to_ended(upload, UploadState.CANCELLED)
        if is_late and upload.opened_by.phase is not TransferPhase.ENDED:
            upload.opened_by.stop()
        return has_begun or upload.opened_by.is_stopped

    def _add(self, upload: LiveUpload, key: UploadKey) -> None:
        if self.registry.has_cancels and not belonging.belongs_to_ended(
            upload, UploadState.CANCELLED
        ):
            self.registry.forget_cancelled(key, upload.number)
        upload.track(key.upload_id, key.owner)
        if upload.series is not None:
            outcomes.decide(upload)
        upload.mark_due()
        if not upload.is_superseded:
            self.registry.add(key, upload)

    def remember_resource(self, owner: str, resource_id: str, upload_id: str) -> None:
        """Let requests of *owner* to the resource belong to the upload, at all workers."""
        self.resources.remember(owner, resource_id, upload_id)
        if resource_id != upload_id:
            self.on_resource(owner, resource_id, upload_id)

    def _find_by_resource(self, upload: LiveUpload, identity: Identity) -> None:
        """Give *upload* the id by which the upload at its resource is known."""
        if upload.resource_id is None:
            return
        owner = identity.owner_of(upload.upload_id)
        if upload.opened_by.names_upload:
            self.remember_resource(owner, upload.resource_id, upload.upload_id)
        else:
            found = self.resources.find(owner, upload.resource_id)
            upload.upload_id = found or upload.upload_id

    def _is_part_of(self, before: LiveUpload, upload: LiveUpload) -> bool:
        """Merge *upload* into *before*, if it is a further or late request of that upload."""
        if self._changes_nothing(before, upload):
            merging.absorb(before, upload)
            return True
        if merging.can_merge(before, upload):
            merging.merge(before, upload)
            self.registry.measurements.join(before)
            return True
        return False

    def _changes_nothing(self, before: LiveUpload, upload: LiveUpload) -> bool:
        """Return whether *upload* is an older or late request, or has created nothing."""
        if belonging.is_older_than(upload, before):
            return True
        if before.is_ended and before.has_ended_elsewhere:
            return belonging.belongs_to_stored_end(upload, before)
        if before.is_ended:
            is_late = belonging.precedes_end(upload, before)
            is_late |= belonging.is_of_former_session(upload, before)
            return is_late or belonging.belongs_to_ended(upload, before.state, before.session)
        # Of two creations that have created nothing, the newer one is shown.
        exists = before.series is not None and before.series.exists
        is_there = exists or bool(before.transfers)
        is_there |= upload.number < before.newest_number
        has_failed = upload.is_failed_creation and is_there and not before.has_ended_elsewhere
        has_failed |= is_there and belonging.has_found_nothing(upload, before.session)
        return has_failed or belonging.is_of_former_session(upload, before)


def _valid_id(requested_id: str | None) -> str | None:
    return requested_id if requested_id is not None and is_upload_id(requested_id) else None
