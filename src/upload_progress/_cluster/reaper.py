"""Renews the lease of this worker, and ends the uploads that no worker will end.

These are the uploads of workers whose lease has run out, and uploads that waited too long for their
next request. The store decides which these are, and returns them in small batches; the event loop
gets a turn between two batches. Several workers may end one upload at the same time: they write the
same version, and each publishes the end only if the store has taken its own version.

That a worker is dead is an inference. If it was wrong, the living worker overrules it: see the
`Reconciler`.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._fanout.update import Update
from upload_progress._model.fold import ended
from upload_progress._model.models import TransferRecord
from upload_progress._model.state import is_waiting
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reporting.end_outbox import is_entry
from upload_progress._reporting.flusher import Flusher
from upload_progress._reporting.lease import Lease
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.worker import Worker
from upload_progress._runtime.yielding import yielding
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import Clock

__all__ = [
    "BATCH_SIZE",
    "MAX_BATCHES",
    "SUSPECT_SECONDS",
    "SWEEP_SECONDS",
    "Reaper",
]

SWEEP_SECONDS: Final = 1.0
SUSPECT_SECONDS: Final = 3.0
"""How long the records of this worker are checked after its lease had run out."""
BATCH_SIZE: Final = 200
MAX_BATCHES: Final = 10


@define(eq=False, repr=False, kw_only=True)
class Reaper:
    """Renews the lease of this worker, and ends uploads that expired or lost their worker.

    Args:
        clock: The time.
        loader: Reads the store.
        flusher: Delivers and publishes the ends.
        lease: The lease of this worker.
        worker: This process.
        log_limiter: Logs what fails.
        on_doubt: Called when the store was away, and may have lost writes, and when the lease had
            run out: other workers may have ended the uploads that are received here.

    Attributes:
        reaped: Uploads that were ended here.
    """

    clock: Clock
    loader: RecordLoader
    flusher: Flusher
    lease: Lease
    worker: Worker
    log_limiter: LogLimiter
    on_doubt: Callable[[], Awaitable[None]]
    reaped: int = field(default=0, init=False)
    _suspect_until: float = field(default=0.0, init=False)
    _checked_recovery_at: float = field(default=-inf, init=False)
    _ran_at: float | None = field(default=None, init=False)
    _unpublished: Sequence[TransferRecord] = field(default=(), init=False)

    async def run(self) -> None:
        """Renew and sweep every second until cancelled."""
        try:
            while True:
                with anyio.CancelScope(shield=True):
                    await self.run_once()
                await anyio.sleep(min(SWEEP_SECONDS, self.lease.seconds / 15))
        finally:
            self.lease.give_up()

    async def run_if_due(self) -> None:
        """Renew and sweep, unless that was done within the last second."""
        if self._ran_at is None or self.clock.monotonic() - self._ran_at >= SWEEP_SECONDS:
            await self.run_once()

    async def run_once(self) -> None:
        """Renew and sweep. Never raises."""
        self._ran_at = self.clock.monotonic()
        try:
            await self._publish_ends()
            await self.renew()
            for _ in range(MAX_BATCHES):
                if not await self._sweep():
                    break
                await checkpoint()
            await self._check_doubt()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is logged, and the next run may succeed
            self.log_limiter.log_warning("ending lost uploads failed", error)

    async def _check_doubt(self) -> None:
        """Compare the uploads of this worker with the store, if these may differ.

        Whichever call has failed: also a check that was made too early is made again.
        """
        recovered_at = self.loader.parts.recovered_at
        has_recovered = recovered_at > self._checked_recovery_at
        self._checked_recovery_at = recovered_at
        if has_recovered or self.clock.monotonic() < self._suspect_until:
            await self.on_doubt()

    async def renew(self) -> None:
        """Renew the lease of this worker in those parts of the store in which it is due.

        And in those that have refused a write, as no client can read from these until one succeeds.

        Raises:
            StoreUnavailable: None of them answers.
        """
        due = sorted({*self.lease.due, *self.loader.parts.outdated})
        worker, seconds = self.worker.name, self.lease.seconds
        asked_at = self.clock.monotonic()
        renewed = await self.loader.parts.write_parts(
            due, lambda store: store.renew(worker, seconds=seconds)
        )
        for part in renewed:
            if self.lease.has_run_out(part):
                # Another worker may be about to write the ends of our uploads.
                self._suspect_until = self.clock.monotonic() + SUSPECT_SECONDS
            self.lease.mark_renewed(part, asked_at)

    async def _sweep(self) -> bool:
        """End a batch of overdue uploads; return whether there may be more."""
        parts = range(len(self.loader.parts))
        share = max(1, BATCH_SIZE // len(parts))
        found = await self.loader.parts.call_parts(parts, lambda store: store.overdue(limit=share))
        overdue = [record for records in found.values() for record in records]
        now, worker = self.clock.time(), self.worker.name
        foreign = [each for each in overdue if each.worker != worker or is_waiting(each.state)]
        entries = [record for record in foreign if is_entry(record)]
        for update in await self.flusher.outbox.ends.take_over(entries):
            self.flusher.publish_stored(update)
        lost = [record for record in foreign if not is_entry(record)]
        if lost:
            ends = [ended(record, now) async for record in yielding(lost)]
            # A store that did not answer may have saved them all the same.
            self._unpublished = ends
            answers = await self.loader.parts.save(ends)
            refused = set(map(_version, answers.found))
            saved = [each for each in ends if each.owner not in answers.errors]
            self._count([each for each in saved if _version(each) not in refused])
            await self._publish_ends()
        return any(len(records) >= share for records in found.values())

    def _count(self, ends: Sequence[TransferRecord]) -> None:
        self.reaped += len(ends)
        for end in ends:
            code = None if end.error is None else end.error.code
            self.flusher.registry.measurements.count_end(end.state, code)

    async def _publish_ends(self) -> None:
        """Publish the ends that the store has taken, if anything subscribes to them."""
        keys = sorted(
            {end.key for end in self._unpublished if self.flusher.has_receivers(end.owner)}
        )
        loaded = await self.loader.load_available(keys)
        ends = set(map(_version, self._unpublished))
        self._unpublished = [end for end in self._unpublished if end.owner in loaded.errors]
        async for key, records in yielding(loaded.records.items()):
            if not ends.isdisjoint(map(_version, records)):
                self.flusher.publish_stored(Update(key.owner, self.loader.fold(records)))


def _version(record: TransferRecord) -> tuple[object, ...]:
    return record.key, record.transfer_id, record.attempt, record.sequence
