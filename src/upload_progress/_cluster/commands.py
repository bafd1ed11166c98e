"""Commands on uploads that no request of this process carries: announce and cancel.

An upload is cancelled where it is received: here, on another worker by a message, or, if no worker
receives it, in the store.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar, Unpack

import anyio
from attrs import define, evolve, field

from upload_progress._cluster.announcements import AnonymousAnnouncements
from upload_progress._cluster.messages import (
    CancelReply,
    CancelRequest,
    ResourceBinding,
    SupersedeRequest,
    pack,
    unpack,
)
from upload_progress._cluster.rpc import ALL_WORKERS, RpcEndpoint
from upload_progress._fanout.update import Update
from upload_progress._model.codec import decode_progress, encode_json
from upload_progress._model.fold import cancelled, newest, newest_attempt
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadProgress,
    UploadState,
    new_transfer_id,
    new_upload_id,
)
from upload_progress._model.state import (
    CANCELLED,
    RUNNING_STATES,
    Signal,
    is_final,
    next_state,
)
from upload_progress._model.validation import Description, validate_description
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reporting.flusher import Flusher
from upload_progress._runtime.backoff import Backoff
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress._runtime.worker import Worker, is_worker_name
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_record import current_snapshot
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import Registry, ResourceIndex
from upload_progress._tracking.status import Moment
from upload_progress.config import Limits
from upload_progress.exceptions import (
    QuotaExceeded,
    StoreBusy,
    UploadEnded,
    WorkerStopping,
)
from upload_progress.identity import Identity
from upload_progress.interfaces import SessionStore

__all__ = ["CANCEL", "RESOURCE", "SUPERSEDE", "WRITE_SECONDS", "UploadCommands"]

T = TypeVar("T")

WRITE_SECONDS: Final = 10.0
"""How long an announcement or a cancel may wait for a busy store."""
_FIRST_RETRY_SECONDS: Final = 0.1
RESOURCE: Final = "resource"
CANCEL: Final = "cancel"
SUPERSEDE: Final = "supersede"


@define(eq=False, repr=False, kw_only=True)
class UploadCommands:
    """Announces uploads, and cancels them on whichever worker they are received.

    Args:
        loader: Reads the store.
        lane: Limits how many calls of the store clients cause at once.
        flusher: Delivers, publishes and stores.
        registry: The uploads that are received here.
        rpc: Calls other workers, and handles their requests to cancel.
        worker: This process.
        limits: How many uploads one owner may announce, and how large their metadata may be.
        resources: Which upload a resource belongs to.
        tasks: Starts background tasks.

    Attributes:
        is_stopping: Whether this process is about to stop: uploads are announced to other ones.
    """

    loader: RecordLoader
    lane: ClientLane
    flusher: Flusher
    registry: Registry
    rpc: RpcEndpoint
    worker: Worker
    limits: Limits
    resources: ResourceIndex
    tasks: TaskSpawner
    announcements: AnonymousAnnouncements = field(init=False)
    is_stopping: bool = field(default=False, init=False)

    @announcements.default
    def _make_announcements(self) -> AnonymousAnnouncements:
        return AnonymousAnnouncements(self.loader, self.limits)

    def __attrs_post_init__(self) -> None:
        """Handle the requests of other workers."""
        self.rpc.register(CANCEL, self._handle_cancel)
        self.rpc.register(SUPERSEDE, self._handle_supersede)
        self.rpc.register(RESOURCE, self._handle_resource)

    async def announce(
        self, identity: Identity, **announced: Unpack[Description]
    ) -> UploadProgress:
        """Store a pending upload under a new id, and publish it.

        Args:
            identity: Who may watch it and begin it.
            announced: The description: name, size, content type, group, metadata.

        Raises:
            InvalidValue: The description has a value that is not allowed.
            QuotaExceeded: The owner has announced the most uploads that may wait at once.
            WorkerStopping: This process is about to stop.
            StoreUnavailable: The store does not answer.
        """
        if self.is_stopping:
            raise WorkerStopping
        description = validate_description("body", self.limits.metadata_bytes, announced)
        upload_id = new_upload_id()
        owner = identity.owner_of(upload_id)
        if not identity.listable:
            await self.announcements.add(identity.limit_key, UploadKey(owner, upload_id))
        now = self.loader.clock.time()
        record = TransferRecord(
            owner=owner,
            upload_id=upload_id,
            transfer_id=new_transfer_id(),
            attempt=1,
            sequence=1,
            state=UploadState.PENDING,
            **description,
            created_at=now,
            updated_at=now,
        )
        if not identity.listable:
            return await self._save(record, [record])
        await self._store_within_quota(record)
        return self._publish([record])

    async def _store_within_quota(self, record: TransferRecord) -> None:
        allowed = self.limits.announced_per_owner
        is_stored = await self._call_patiently(
            record.owner, lambda store: store.announce(record, limit=allowed)
        )
        if not is_stored:
            raise QuotaExceeded("announced_per_owner", allowed)

    async def _call_patiently(
        self, owner: str, function: Callable[[SessionStore], Awaitable[T]]
    ) -> T:
        """Return the result of *function*, for which a busy store is waited for, for a while.

        Many uploads may be announced at once, and a client sends none that it could not announce.
        """
        deadline = anyio.current_time() + WRITE_SECONDS
        backoff = Backoff(first_seconds=_FIRST_RETRY_SECONDS, maximum_seconds=WRITE_SECONDS)

        async def call() -> T:
            while True:
                try:
                    return await self.loader.parts.write(owner, function)
                except StoreBusy:
                    delay = backoff.next_delay_seconds()
                    if anyio.current_time() + delay >= deadline:
                        raise
                    await anyio.sleep(delay)

        return await self.lane.call(owner, call, wait_seconds=WRITE_SECONDS)

    # Superseding

    def supersede(self, upload: LiveUpload, records: Sequence[TransferRecord]) -> None:
        """Let other workers report the upload of *records*, which *upload* supersedes, no more.

        A message may be lost: then the reconciler of that worker finds the newer attempt.
        """
        names = tuple(record.transfer_id for record in records)
        request = SupersedeRequest(upload.owner or "", upload.upload_id, upload.attempt, names)
        workers = {record.worker for record in records if record.worker is not None}

        async def notify() -> None:
            for worker in filter(is_worker_name, workers):
                await self.rpc.notify(worker, SUPERSEDE, request)

        self.tasks.spawn(notify)

    async def _handle_supersede(self, body: bytes) -> bytes | None:
        request = unpack(body, SupersedeRequest)
        live = self.registry.find(request.owner, request.upload_id)
        is_older = live is not None and live.attempt < request.attempt
        # The worker that has sent this may not know of a newer one here, which is not stored yet.
        if live is not None and is_older and live.transfer_id in request.transfer_ids:
            self.registry.supersede(live)
        return None

    def share_resource(self, owner: str, resource_id: str, upload_id: str) -> None:
        """Tell all workers which upload a resource belongs to, before the client's next request."""
        binding = ResourceBinding(owner, resource_id, upload_id)
        self.tasks.spawn(lambda: self.rpc.notify(ALL_WORKERS, RESOURCE, binding))

    async def _handle_resource(self, body: bytes) -> bytes | None:
        binding = unpack(body, ResourceBinding)
        self.resources.remember(binding.owner, binding.resource_id, binding.upload_id)
        return None

    # Cancelling

    async def cancel(self, key: UploadKey) -> UploadProgress:
        """Cancel an upload: here, on the worker that receives it, or in the store.

        Raises:
            UploadNotFound: There is no such upload.
            UploadEnded: It has completed or failed.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        cancelled = self._cancel_here(key)
        if cancelled is None:
            stored = await self._cancel_elsewhere(key)
            # A request may have begun to carry it while the store was asked.
            live = self.registry.find(key.owner, key.upload_id)
            has_begun = live is not None and not live.is_ended
            cancelled = (self._cancel_here(key) if has_begun else None) or stored
        if cancelled.state is not UploadState.CANCELLED:
            raise UploadEnded(cancelled.state)
        return cancelled

    def _cancel_here(self, key: UploadKey) -> UploadProgress | None:
        """Cut the transfer that this process receives; None if it receives none."""
        live = self.registry.find(key.owner, key.upload_id)
        if (
            live is None
            or live.is_superseded
            or live.has_ended_elsewhere
            or outcomes.is_undecided(live)
        ):
            return None
        if live.is_handed_over:
            # It is cancelled where its task is, or in the store.
            return None
        live.cancel()
        return current_snapshot(live)

    async def _handle_cancel(self, body: bytes) -> bytes | None:
        """Cancel an upload that is received here, for another worker."""
        request = unpack(body, CancelRequest)
        cancelled = self._cancel_here(UploadKey(request.owner, request.upload_id))
        if cancelled is None:
            return None
        # Stored before the reply: the caller reads the end from the store.
        await self.flusher.flush(ends=True)
        if self.registry.find(request.owner, request.upload_id) is None:
            return pack(CancelReply())
        # The store is away here. The description is left out: it may be longer than a message.
        end = evolve(cancelled, filename=None, content_type=None, metadata=None)
        return pack(CancelReply(encode_json(end)))

    async def _cancel_elsewhere(self, key: UploadKey) -> UploadProgress:
        if self.registry.find(key.owner, key.upload_id) is not None:
            # Here it has ended, or was handed over, and that may not be stored yet.
            await self.flusher.flush(ends=True)
        records = await self._load(key)
        replies = await self._call_receivers(key, self._receivers(records))
        if replies:
            records = await self._load(key)
        if not records:
            raise self.loader.not_found(key.owner)
        progress = self.loader.fold(records)
        if next_state(progress.state, Signal.CANCEL) is None:
            return progress
        ends = [decode_progress(reply.snapshot) for reply in replies if reply and reply.snapshot]
        if ends and all(replies):
            # Their workers will store it: each record has a single writer.
            latest = max(ends, key=lambda end: end.sequence)
            return evolve(
                latest,
                filename=progress.filename,
                content_type=progress.content_type,
                metadata=progress.metadata,
            )
        return await self._end_in_store(records)

    async def _load(self, key: UploadKey) -> list[TransferRecord]:
        return newest_attempt(await self.lane.load(key))

    def _receivers(self, records: Sequence[TransferRecord]) -> set[str]:
        """Return the other workers that receive a transfer of the upload, and are alive."""
        now = self.loader.clock.time()
        running = [record for record in newest(records) if record.state in RUNNING_STATES]
        alive = [each for each in running if each.lease_until is None or each.lease_until > now]
        workers = {each.worker for each in alive if each.worker and is_worker_name(each.worker)}
        return workers - {self.worker.name}

    async def _call_receivers(
        self, key: UploadKey, workers: Collection[str]
    ) -> list[CancelReply | None]:
        """Ask *workers*, all at once, to cut what they receive; None for each without a reply."""
        replies: list[CancelReply | None] = []
        request = CancelRequest(key.owner, key.upload_id)

        async def call(worker: str) -> None:
            body = await self.rpc.call(worker, CANCEL, request)
            replies.append(None if body is None else unpack(body, CancelReply))

        async with anyio.create_task_group() as tasks:
            for worker in workers:
                tasks.start_soon(call, worker)
        return replies

    async def _end_in_store(self, records: Sequence[TransferRecord]) -> UploadProgress:
        """End the open records of the upload, also those of workers that do not reply.

        The store then refuses every further version of them, so that nothing follows the end. Their
        workers learn of it by that.
        """
        now = self.loader.clock.time()
        current = newest(records)
        ends = [cancelled(record, now) for record in current if not is_final(record.state)]
        await self._call_patiently(current[0].owner, lambda store: store.save(ends))
        stored = await self._load(current[0].key)
        if not stored:
            raise self.loader.not_found(current[0].owner)
        progress = self.loader.fold(stored)
        if not is_final(progress.state):
            # Another worker has begun the next attempt meanwhile.
            raise StoreBusy
        if progress.state is UploadState.CANCELLED:
            self._publish(stored)
            self.registry.measurements.count_end(progress.state, CANCELLED.code)
            self.registry.remember_cancelled(
                current[0].key, Moment(self.loader.clock.monotonic(), now)
            )
        return progress

    async def _save(
        self, record: TransferRecord, records: Sequence[TransferRecord]
    ) -> UploadProgress:
        """Store *record*, and publish the snapshot of *records*, of which it is one."""
        await self._call_patiently(record.owner, lambda store: store.save([record]))
        return self._publish(records)

    def _publish(self, records: Sequence[TransferRecord]) -> UploadProgress:
        progress = self.loader.fold(records)
        self.flusher.publish_stored(Update(records[0].owner, progress))
        return progress
