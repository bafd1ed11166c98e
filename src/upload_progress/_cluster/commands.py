"""Uploads that no request of this process carries: announced, waiting, received elsewhere."""

from collections.abc import Collection, Sequence
from typing import Final, Unpack

import anyio
from attrs import define, evolve

from upload_progress._cluster.messages import CancelRequest, read
from upload_progress._cluster.rpc import RpcEndpoint
from upload_progress._cluster.worker import Worker
from upload_progress._fanout.update import Update
from upload_progress._model.codec import decode_progress, encode_json
from upload_progress._model.fold import as_of, deciding, fold, newest
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadProgress,
    UploadState,
    new_transfer_id,
    new_upload_id,
)
from upload_progress._model.state import CANCELLED, Signal, is_final, next_state
from upload_progress._model.validation import Described, described
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._tracking.flusher import Flusher
from upload_progress._tracking.registry import Registry
from upload_progress.config import TrackerConfig
from upload_progress.exceptions import QuotaExceeded, UploadEnded, UploadNotFound
from upload_progress.identity import Identity
from upload_progress.interfaces import SessionStore

__all__ = [
    "CANCEL",
    "UploadCommands",
]

CANCEL: Final = "cancel"


@define(eq=False, repr=False)
class UploadCommands:
    """Announces uploads, and cancels them wherever they are."""

    store: SessionStore
    breaker: CircuitBreaker
    flusher: Flusher
    registry: Registry
    rpc: RpcEndpoint
    config: TrackerConfig
    worker: Worker

    def __attrs_post_init__(self) -> None:
        """Do for other workers what only this one can."""
        self.rpc.on(CANCEL, self._cancel_by_letter)

    async def announce(self, identity: Identity, **said: Unpack[Described]) -> UploadProgress:
        """Store a pending upload under a fresh id, and tell its owner's watchers.

        Raises:
            InvalidValue: What is said of it cannot be kept.
            QuotaExceeded: The owner has announced as many as may wait at once.
            StoreUnavailable: The store does not answer.
        """
        fit = described("body", self.config.limits.metadata_bytes, said)
        upload_id = new_upload_id()
        owner = identity.owner_of(upload_id)
        await self._check_room(owner)
        now = self.config.clock.time()
        record = TransferRecord(
            owner=owner,
            upload_id=upload_id,
            transfer_id=new_transfer_id(),
            attempt=1,
            sequence=1,
            state=UploadState.PENDING,
            **fit,
            created_at=now,
            updated_at=now,
        )
        return await self._store(record, [record])

    async def _check_room(self, owner: str) -> None:
        allowed = self.config.limits.announced_per_owner
        now = self.config.clock.time()
        page = await self.breaker.call(
            lambda: self.store.list(owner, ended_since=now, limit=2 * allowed)
        )
        waiting = [
            records
            for records in page.uploads
            if deciding(newest(records)).state is UploadState.PENDING
        ]
        if len(waiting) >= allowed:
            raise QuotaExceeded("announced_per_owner", allowed)

    # Cancelling

    async def cancel(self, key: UploadKey) -> UploadProgress:
        """Cancel an upload: here, on the worker that receives it, or in the store.

        Raises:
            UploadNotFound: There is none.
            UploadEnded: It has ended in another way.
            StoreUnavailable: The store does not answer, and it is not received here.
        """
        cancelled = self._cancel_here(key)
        if cancelled is None:
            stored = await self._cancel_there(key)
            # A request may have begun to carry it while the store was asked.
            live = self.registry.find(key.owner, key.upload_id)
            ends = live is not None and not live.is_ended
            cancelled = (self._cancel_here(key) if ends else None) or stored
        if cancelled.state is not UploadState.CANCELLED:
            raise UploadEnded(cancelled.state)
        return cancelled

    def _cancel_here(self, key: UploadKey) -> UploadProgress | None:
        """Cut the transfer that this process receives; None where it receives none."""
        live = self.registry.find(key.owner, key.upload_id)
        if live is None:
            return None
        live.cancel()
        return live.snapshot()

    async def _cancel_by_letter(self, body: bytes) -> bytes | None:
        request = read(body, CancelRequest)
        cancelled = self._cancel_here(UploadKey(request.owner, request.upload_id))
        if cancelled is None:
            return None
        # Stored before it is answered: who cancelled it will read it as cancelled.
        await self.flusher.flush(ends=True)
        # What may be long is in the store: a letter stays small.
        return encode_json(evolve(cancelled, filename=None, content_type=None, metadata=None))

    async def _cancel_there(self, key: UploadKey) -> UploadProgress:
        records = await self._load(key)
        told = await self._ask(key, self._receivers(records)) if _is_open(records) else {}
        if told:
            records = await self._load(key)
        progress = self._fold(records)
        if progress is None:
            raise UploadNotFound
        if next_state(progress.state, Signal.CANCEL) is None:
            return progress
        answered = [answer for answer in told.values() if answer is not None]
        if answered and len(answered) == len(told):
            # It is on its way into the store: single-writer, and theirs to write.
            latest = max(answered, key=lambda answer: answer.sequence)
            return evolve(
                latest,
                filename=progress.filename,
                content_type=progress.content_type,
                metadata=progress.metadata,
            )
        return await self._end_in_store(records)

    async def _load(self, key: UploadKey) -> list[TransferRecord]:
        return newest(await self.breaker.call(lambda: self.store.load(key)))

    def _fold(self, records: Sequence[TransferRecord]) -> UploadProgress | None:
        return fold(records, now=self.config.clock.time(), mount_path=self.config.mount_path)

    def _receivers(self, records: Sequence[TransferRecord]) -> set[str]:
        """Return the other workers that receive something of it, and are alive."""
        now, here = self.config.clock.time(), self.worker.name
        running = [record for record in records if not is_final(as_of(record, now).state)]
        workers = {record.worker for record in running if record.worker is not None}
        return workers - {here}

    async def _ask(
        self, key: UploadKey, workers: Collection[str]
    ) -> dict[str, UploadProgress | None]:
        """Ask *workers*, all at once, to cut what they receive; None of those who do not answer."""
        answers: dict[str, UploadProgress | None] = {}
        request = CancelRequest(key.owner, key.upload_id)

        async def ask(worker: str) -> None:
            answer = await self.rpc.ask(worker, CANCEL, request)
            answers[worker] = None if answer is None else decode_progress(answer)

        async with anyio.create_task_group() as tasks:
            for worker in workers:
                tasks.start_soon(ask, worker)
        return answers

    async def _end_in_store(self, records: Sequence[TransferRecord]) -> UploadProgress:
        """End it by a record of our own, beside those of others: each has one writer."""
        now = self.config.clock.time()
        decided = deciding(records)
        ended = TransferRecord(
            owner=decided.owner,
            upload_id=decided.upload_id,
            transfer_id=new_transfer_id(),
            attempt=decided.attempt,
            sequence=1,
            state=UploadState.CANCELLED,
            error=CANCELLED,
            group=decided.group,
            created_at=max(record.created_at for record in records),
            updated_at=now,
            finished_at=now,
        )
        return await self._store(ended, [*records, ended])

    async def _store(
        self, record: TransferRecord, records: Sequence[TransferRecord]
    ) -> UploadProgress:
        """Keep *record* and tell of the upload that *records* amount to with it."""
        await self.breaker.call(lambda: self.store.save([record]))
        progress = self._fold(records)
        assert progress is not None  # noqa: S101  # there is at least the record
        self.flusher.publish_stored(Update(record.owner, progress))
        return progress


def _is_open(records: Sequence[TransferRecord]) -> bool:
    return any(not is_final(record.state) for record in records)
