"""The part that looks at the clock: silence, stalls, heartbeats, leases and expiry.

Nobody scans all uploads. What has to be looked at lies in a timing wheel under the moment at
which it has to; the store hands out what is overdue in small portions; and between two
portions of work the event loop gets its turn.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field

from upload_progress._fanout.update import Update
from upload_progress._model.fold import as_of, fold
from upload_progress._model.models import TransferRecord
from upload_progress._model.state import is_waiting
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.yielding import yielding
from upload_progress._tracking.flusher import Flusher
from upload_progress._tracking.ticker import PORTION
from upload_progress.exceptions import StoreUnavailable
from upload_progress.interfaces import Clock, SessionStore

__all__ = [
    "Reaper",
    "LEASE_SECONDS",
    "PORTIONS",
    "RENEW_SECONDS",
    "SUSPECT_SECONDS",
    "SWEEP_SECONDS",
]
LEASE_SECONDS: Final = 15.0
RENEW_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 1.0
SUSPECT_SECONDS: Final = 3.0
PORTIONS: Final = 10


async def _ignore() -> None:
    """Stand in until somebody cares about a lease that ran out."""


@define(eq=False, repr=False)
class Reaper:
    """Renews this worker's lease, and ends what nobody else will end.

    Attributes:
        swept: Uploads that were ended because they expired or lost their worker.
        on_lease_lost: Called when the lease had run out: others may have ended what lives here.
    """

    clock: Clock
    store: SessionStore
    breaker: CircuitBreaker
    flusher: Flusher
    mount_path: str
    worker: Callable[[], str]
    log_limiter: LogLimiter
    reaped: int = field(default=0, init=False)
    on_lease_lost: Callable[[], Awaitable[None]] = field(default=_ignore, init=False)
    _suspect_until: float = field(default=0.0, init=False)
    _renewed_at: float | None = field(default=None, init=False)
    _kept_at: float | None = field(default=None, init=False)
    _untold: Sequence[TransferRecord] = field(default=(), init=False)

    async def run(self) -> None:
        """Keep for ever."""
        while True:
            with anyio.CancelScope(shield=True):
                await self.keep()
            await anyio.sleep(SWEEP_SECONDS)

    async def keep_if_due(self) -> None:
        """Keep, unless that was done a moment ago."""
        if self._kept_at is None or self.clock.monotonic() - self._kept_at >= SWEEP_SECONDS:
            await self.keep()

    async def keep(self) -> None:
        """Renew and sweep once; never raises."""
        self._kept_at = self.clock.monotonic()
        try:
            await self._tell()
            await self._renew()
            if self.clock.monotonic() < self._suspect_until:
                await self.on_lease_lost()
            for _ in range(PORTIONS):
                if await self._sweep() < PORTION:
                    return
                await checkpoint()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
            self.log_limiter.warn("a sweep failed", error)

    async def _renew(self) -> None:
        now = self.clock.monotonic()
        if self._renewed_at is not None and now - self._renewed_at < RENEW_SECONDS:
            return
        worker = self.worker()
        await self.breaker.call(lambda: self.store.renew(worker, seconds=LEASE_SECONDS))
        if self._renewed_at is not None and now - self._renewed_at >= LEASE_SECONDS:
            # Who took it for dead may be about to write.
            self._suspect_until = now + SUSPECT_SECONDS
        self._renewed_at = now

    async def _sweep(self) -> int:
        overdue = await self.breaker.call(lambda: self.store.overdue(limit=PORTION))
        now, worker = self.clock.time(), self.worker()
        lost = [record for record in overdue if record.worker != worker or is_waiting(record.state)]
        if len(lost) < len(overdue):
            # Our own: we live. The wall clock has jumped, or this machine has slept.
            self._renewed_at = None
            await self._renew()
        if lost:
            ends = [_end_of(as_of(record, now), now) async for record in yielding(lost)]
            # A store that does not answer may have taken them all the same.
            self._untold = ends
            await self.breaker.call(lambda: self.store.save(ends))
            self.reaped += len(ends)
            await self._tell()
        return len(overdue)

    async def _tell(self) -> None:
        """Tell of those that the store has taken, and that somebody wants to hear of."""
        keys = sorted({end.key for end in self._untold if self.flusher.has_receivers(end.owner)})
        known = await self.breaker.call(lambda: self.store.load(*keys)) if keys else []
        ends = set(map(_version, self._untold))
        taken = {record.key for record in known if _version(record) in ends}
        self._untold = ()
        records = sorted((each for each in known if each.key in taken), key=lambda each: each.key)
        by_key = groupby(records, lambda record: record.key)
        async for key, group in yielding(by_key):
            progress = fold(group, now=self.clock.time(), mount_path=self.mount_path)
            assert progress is not None  # noqa: S101  # no group is empty
            self.flusher.publish_stored(Update(key.owner, progress))


def _version(record: TransferRecord) -> tuple[object, ...]:
    return record.key, record.transfer_id, record.attempt, record.sequence


def _end_of(ended: TransferRecord, now: float) -> TransferRecord:
    """Return the last version: the same, whoever makes it, where several workers do at once."""
    return evolve(
        ended, sequence=ended.sequence + 1, updated_at=ended.finished_at or now, worker=None
    )
