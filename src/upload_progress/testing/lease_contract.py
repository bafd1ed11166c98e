"""The contract of stores, as far as time matters: leases, expiry, forgetting."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import pytest
from attrs import evolve

from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    Stage,
    TransferRecord,
    UploadError,
    UploadState,
)
from upload_progress.config import Retention
from upload_progress.interfaces import Clock, SessionStore, SystemClock

__all__ = [
    "Elapse",
    "TimeContract",
    "plain",
]

Elapse = Callable[[float], Awaitable[None]]
"""Lets that many seconds go by for the store under test."""


def plain(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
    """Return *records* in a settled order, without the times that a store adds."""
    plain = [evolve(record, lease_until=None, expires_at=None) for record in records]
    return sorted(plain, key=lambda record: (record.key, record.transfer_id))


class TimeContract:
    """What a ``SessionStore`` does as time goes by: the part of ``StoreContract`` that waits."""

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    RETENTION: Final = Retention(ended_seconds=2.0, waiting_seconds=4.0)
    """What the store under test is to be set to."""

    @pytest.fixture
    def store(self) -> SessionStore:
        """Return the store under test, empty and ready, set to ``RETENTION``."""
        pytest.fail(f"{type(self).__name__}: override the fixture `store`", pytrace=False)

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock that the store goes by."""
        return SystemClock()

    @pytest.fixture
    def elapse(self) -> Elapse:
        """Return what lets time go by."""
        return anyio.sleep

    @pytest.fixture
    def record(self, clock: Clock) -> TransferRecord:
        """Return a record that a worker is writing, with every field set that it can have."""
        now = clock.time()
        return TransferRecord(
            owner="ann",
            upload_id="video",
            transfer_id="t1",
            attempt=2,
            sequence=5,
            state=UploadState.RECEIVING,
            received_bytes=400,
            total_bytes=1000,
            retransmitted_bytes=7,
            bytes_per_second=12.5,
            stalled=True,
            arrival=Arrival.STREAMED,
            stage=Stage("hashing", 1, None),
            error=UploadError(ErrorCode.REJECTED, "no", 422),
            group="nightly",
            filename="ümläut \u2028 \U0001f600.bin",
            content_type="video/mp4",
            metadata={"k": [1, 2.5, None, {"deep": "x" * 100}]},
            created_at=now - 9,
            started_at=now - 8,
            updated_at=now,
            last_byte_at=now - 1,
            worker="w1",
        )

    async def test_a_lease_keeps_a_record_alive(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """A renewed worker's records are not overdue, however long they take."""
        await store.save([record])
        for _ in range(3):
            await store.renew("w1", seconds=2.0)
            await elapse(0.5)

        [loaded] = await store.load(record.key)

        assert loaded.lease_until is not None
        assert clock.time() < loaded.lease_until <= clock.time() + 2.0
        assert list(await store.overdue(limit=9)) == []

    async def test_what_lost_its_worker_is_overdue_until_it_is_ended(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Another worker's lease does not help it."""
        await store.save([record, evolve(record, upload_id="other", worker="w2")])
        await store.renew("w1", seconds=0.5)
        await elapse(1.0)
        await store.renew("w2", seconds=5.0)

        [lost] = await store.overdue(limit=9)
        ended = evolve(lost, sequence=6, state=UploadState.FAILED, finished_at=clock.time())
        await store.save([ended])

        assert plain([lost]) == [record]
        assert list(await store.overdue(limit=9)) == []

    async def test_what_lost_its_worker_and_can_go_on_waits(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """An upload in many requests is paused then, and expires like any that waits."""
        several = evolve(record, protocol="tus", stage=None, error=None, stalled=False)
        await store.save([several])
        await store.renew("w1", seconds=0.5)
        await elapse(1.0)
        [lost] = await store.overdue(limit=9)
        paused = evolve(
            lost, sequence=6, state=UploadState.PAUSED, updated_at=clock.time(), worker=None
        )
        await store.save([paused])

        assert plain([lost]) == [several]
        assert list(await store.overdue(limit=9)) == []
        [loaded] = await store.load(record.key)
        assert loaded.expires_at == paused.updated_at + self.RETENTION.waiting_seconds

    async def test_what_ended_in_time_is_not_overdue(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """A worker that went away after its uploads had ended leaves nothing behind."""
        await store.save([record])
        await store.renew("w1", seconds=0.5)
        ended = evolve(
            record,
            sequence=6,
            state=UploadState.COMPLETED,
            finished_at=clock.time(),
            worker=None,
        )
        await store.save([ended])
        await elapse(1.0)

        assert list(await store.overdue(limit=9)) == []

    async def test_what_waits_too_long_is_overdue(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Pending and paused expire; the store says when."""
        waiting = evolve(record, state=UploadState.PENDING, worker=None)
        await store.save([waiting])
        [loaded] = await store.load(record.key)

        assert loaded.expires_at == waiting.updated_at + self.RETENTION.waiting_seconds
        assert list(await store.overdue(limit=9)) == []
        await elapse(self.RETENTION.waiting_seconds + 1.5)
        [expired] = await store.overdue(limit=9)
        assert plain([expired]) == [waiting]
        assert expired.expires_at is not None
        assert expired.expires_at <= clock.time()

    async def test_overdue_comes_in_portions(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """No more than the limit at once, and in the end all of them."""
        await store.save([evolve(record, upload_id=f"u{number}") for number in range(5)])
        await store.renew("w1", seconds=0.2)
        await elapse(0.5)
        sizes = []
        while overdue := await store.overdue(limit=2):
            sizes.append(len(overdue))
            now = clock.time()
            await store.save(
                [
                    evolve(each, sequence=6, state=UploadState.FAILED, finished_at=now)
                    for each in overdue
                ]
            )

        assert sum(sizes) == 5
        assert max(sizes) <= 2

    async def test_what_ended_is_forgotten(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Not at once, so that who comes late learns of the end; but after a while."""
        ended = evolve(record, state=UploadState.COMPLETED, finished_at=clock.time(), worker=None)
        await store.save([ended])
        assert len(await store.load(record.key)) == 1

        await elapse(self.RETENTION.ended_seconds + 1.5)
        await store.overdue(limit=9)

        assert await store.load(record.key) == []
        assert (await store.list("ann")).uploads == ()
