"""The part of the contract of stores that depends on time: leases, expiry and deletion."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import pytest
from attrs import evolve

from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    HandOver,
    Stage,
    TransferRecord,
    UploadError,
    UploadState,
)
from upload_progress._runtime.worker import deadline_worker
from upload_progress.config import Retention
from upload_progress.interfaces import Clock, SessionStore, SystemClock

__all__ = ["LEASE_SECONDS", "SKEWS", "Elapse", "LeaseContract", "comparable"]

LEASE_SECONDS: Final = 1.2
"""The leases that run out in a test; a sixth of it is the time between two renewals."""

SKEWS: Final = {"behind": -3600.0, "right": 0.0, "ahead": 30 * 86_400.0}
"""By how many seconds the clocks of workers differ from that of the store."""

Elapse = Callable[[float], Awaitable[None]]
"""Waits for that many seconds, on the clock of the store under test."""


def comparable(records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
    """Return *records* sorted by their keys, without the times that a store adds."""
    without_times = [evolve(record, lease_until=None, expires_at=None) for record in records]
    return sorted(without_times, key=lambda record: (record.key, record.transfer_id))


class LeaseContract:
    """Tests of leases and expiry: the part of ``StoreContract`` that has to wait."""

    pytestmark: pytest.MarkDecorator = pytest.mark.anyio

    RETENTION: Final = Retention(
        ended_seconds=2.0, waiting_seconds=4.0, ended_per_owner=20, waiting_per_owner=20
    )
    """The retention of the store under test."""

    @pytest.fixture
    def store(self) -> SessionStore:
        """Return the store under test: empty, entered, and with ``RETENTION``."""
        pytest.fail(f"{type(self).__name__}: override the fixture `store`", pytrace=False)

    @pytest.fixture
    def clock(self) -> Clock:
        """Return the clock of the store; by default that of the system."""
        return SystemClock()

    @pytest.fixture
    def elapse(self) -> Elapse:
        """Return a function that waits on the clock of the store; by default it sleeps."""
        return anyio.sleep

    @pytest.fixture
    def record(self, clock: Clock) -> TransferRecord:
        """Return a record of a running transfer, with as many fields set as possible."""
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

    async def test_renewed_lease_keeps_record_alive(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Records of a worker that renews its lease are not overdue, however long they take."""
        await store.save([record])
        for _ in range(3):
            await store.renew("w1", seconds=2.0)
            await elapse(0.5)

        [loaded] = await store.load(record.key)

        assert loaded.lease_until is not None
        assert clock.time() < loaded.lease_until <= clock.time() + 2.0
        assert list(await store.overdue(limit=9)) == []

    async def let_die(self, store: SessionStore, elapse: Elapse) -> None:
        """Let the lease of ``w1`` run out, while another worker renews its own."""
        await store.renew("w1", seconds=LEASE_SECONDS)
        for _ in range(8):
            await store.renew("alive", seconds=LEASE_SECONDS)
            await elapse(LEASE_SECONDS / 6)
        await store.renew("alive", seconds=LEASE_SECONDS)

    async def test_lease_lasts_while_no_worker_can_renew_its_own(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """The store was away, or all workers stood still: that says nothing about one of them."""
        await store.save([record])
        await store.renew("w1", seconds=LEASE_SECONDS)
        await store.renew("w2", seconds=LEASE_SECONDS)
        await elapse(2 * LEASE_SECONDS)

        assert list(await store.overdue(limit=9)) == []
        [loaded] = await store.load(record.key)
        assert loaded.lease_until is not None
        assert loaded.lease_until > clock.time()

    async def test_each_worker_has_a_full_lease_after_a_pause(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Also a worker that comes back later than others; one that never does is dead."""
        await store.save([record])
        await store.renew("w1", seconds=LEASE_SECONDS)
        await elapse(2 * LEASE_SECONDS)
        for _ in range(3):
            await store.renew("w2", seconds=LEASE_SECONDS)
            assert list(await store.overdue(limit=9)) == []
            [loaded] = await store.load(record.key)
            assert loaded.lease_until is not None
            assert clock.time() < loaded.lease_until < clock.time() + 1.5 * LEASE_SECONDS
            await elapse(LEASE_SECONDS / 6)
        for _ in range(5):
            await store.renew("w2", seconds=LEASE_SECONDS)
            await elapse(LEASE_SECONDS / 6)
        await store.renew("w2", seconds=LEASE_SECONDS)

        assert comparable(await store.overdue(limit=9)) == [record]

    async def test_lease_that_is_renewed_after_a_pause_lasts(
        self, store: SessionStore, record: TransferRecord, elapse: Elapse
    ) -> None:
        """The pause has changed nothing for a worker that is alive."""
        await store.save([record])
        await store.renew("w1", seconds=LEASE_SECONDS)
        await elapse(2 * LEASE_SECONDS)
        await store.renew("w2", seconds=LEASE_SECONDS)
        for _ in range(8):
            await elapse(LEASE_SECONDS / 6)
            await store.renew("w1", seconds=LEASE_SECONDS)

        assert list(await store.overdue(limit=9)) == []

    async def test_running_returns_the_records_of_one_worker(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Those that it receives: not the ended, the waiting and those of others."""
        await store.save(
            [
                evolve(record, upload_id="other", worker="w2"),
                evolve(record, upload_id="first"),
                evolve(record, upload_id="second", state=UploadState.PROCESSING),
                evolve(record, upload_id="paused", state=UploadState.PAUSED, protocol="tus"),
                evolve(
                    record,
                    upload_id="ended",
                    state=UploadState.COMPLETED,
                    finished_at=clock.time(),
                    worker=None,
                ),
            ]
        )

        found = await store.running("w1", limit=9)

        assert {each.upload_id for each in found} == {"first", "second"}
        assert len(await store.running("w1", limit=1)) == 1
        assert list(await store.running("unknown", limit=9)) == []

    async def test_record_of_dead_worker_is_overdue_until_it_is_ended(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """A worker that renews its lease is not affected."""
        await store.save([record, evolve(record, upload_id="other", worker="alive")])
        await self.let_die(store, elapse)

        [lost] = await store.overdue(limit=9)
        ended = evolve(lost, sequence=6, state=UploadState.FAILED, finished_at=clock.time())
        await store.save([ended])

        assert comparable([lost]) == [record]
        assert list(await store.overdue(limit=9)) == []

    async def test_resumable_record_of_dead_worker_can_be_paused(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """An upload in several requests can be paused, and then expires like other waiting ones."""
        resumable = evolve(record, protocol="tus", stage=None, error=None, stalled=False)
        await store.save([resumable])
        await self.let_die(store, elapse)
        [lost] = await store.overdue(limit=9)
        paused = evolve(
            lost, sequence=6, state=UploadState.PAUSED, updated_at=clock.time(), worker=None
        )
        await store.save([paused])

        assert comparable([lost]) == [resumable]
        assert list(await store.overdue(limit=9)) == []
        [loaded] = await store.load(record.key)
        assert loaded.expires_at == paused.updated_at + self.RETENTION.waiting_seconds

    async def test_record_that_was_handed_over_has_a_deadline(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """It takes the place of the worker, and no worker renews its lease.

        A task takes over the record; of two that do so at once the store refuses one.
        """
        waiting = evolve(
            record,
            state=UploadState.PROCESSING,
            hand_over=HandOver("a" * 64),
            stored_bytes=300,
            worker=deadline_worker(clock.time(), 1.0),
        )
        second = evolve(waiting, upload_id="second")
        await store.save([waiting, second])
        resumed = evolve(second, sequence=6, hand_over=HandOver("a" * 64, is_resumed=True))
        one, other = (evolve(resumed, worker=name) for name in ("alive", "w2"))
        assert list(await store.save([one])) == []
        assert list(await store.save([other])) == [other]
        await store.renew("alive", seconds=LEASE_SECONDS)
        assert list(await store.overdue(limit=9)) == []
        [loaded] = await store.load(record.key)
        assert loaded.lease_until is not None
        assert clock.time() < loaded.lease_until < clock.time() + 2.5
        for _ in range(16):
            await elapse(LEASE_SECONDS / 8)
            await store.renew("alive", seconds=LEASE_SECONDS)

        assert comparable(await store.overdue(limit=9)) == [waiting]
        assert comparable(await store.load(one.key)) == [one]

    async def test_record_that_ended_before_its_worker_died_is_not_overdue(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """A worker that died after its uploads had ended leaves nothing to be ended."""
        await store.save([record])
        await store.renew("w1", seconds=LEASE_SECONDS)
        ended = evolve(
            record,
            sequence=6,
            state=UploadState.COMPLETED,
            finished_at=clock.time(),
            worker=None,
        )
        await store.save([ended])
        await self.let_die(store, elapse)

        assert list(await store.overdue(limit=9)) == []

    async def test_waiting_record_expires(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Pending and paused records expire; ``expires_at`` is the time."""
        waiting = evolve(record, state=UploadState.PENDING, worker=None)
        others = [
            evolve(waiting, owner=name, updated_at=waiting.updated_at + skew)
            for name, skew in SKEWS.items()
        ]
        await store.save([waiting, *others])
        [loaded] = await store.load(record.key)

        assert loaded.expires_at == waiting.updated_at + self.RETENTION.waiting_seconds
        assert list(await store.overdue(limit=9)) == []
        await elapse(self.RETENTION.waiting_seconds + 1.5)
        expired = await store.overdue(limit=9)
        assert comparable(expired) == comparable([waiting, *others])
        assert all(each.expires_at and each.expires_at <= clock.time() for each in expired)

    async def test_overdue_returns_at_most_limit_records(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Never more than the limit at once, and all of them in the end."""
        await store.save([evolve(record, upload_id=f"u{number}") for number in range(5)])
        await self.let_die(store, elapse)
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

    async def test_ended_upload_is_deleted_and_its_cursor_stays_valid(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """No other upload is repeated or left out, also of those created at the same time.

        When the ended ones are deleted depends on the clock of the store: the times of a record are
        those of a worker, whose clock may be wrong.
        """
        ended = evolve(record, state=UploadState.COMPLETED, worker=None, stage=None, error=None)
        skews = [*SKEWS.values(), *SKEWS.values()]
        created_at = [record.created_at + number // 6 for number in range(12)]
        uploads = [
            evolve(record, upload_id=f"u{2 * number:02}", created_at=created_at[2 * number])
            for number in range(6)
        ] + [
            evolve(
                ended,
                upload_id=f"u{2 * number + 1:02}",
                created_at=created_at[2 * number + 1],
                updated_at=clock.time() + skew,
                finished_at=clock.time() + skew,
            )
            for number, skew in enumerate(skews)
        ]
        await store.save(uploads)
        assert list(await store.overdue(limit=99)) == []
        page = await store.list("ann")
        assert [upload[0].upload_id for upload in page.uploads] == [
            f"u{number:02}" for number in reversed(range(12))
        ]
        await elapse(self.RETENTION.ended_seconds + 1.5)
        await store.overdue(limit=99)

        assert await store.load(*[each.key for each in uploads[6:]]) == []
        for number, cursor in enumerate(page.cursors):
            following = await store.list("ann", cursor=cursor)
            assert [upload[0].upload_id for upload in following.uploads] == [
                f"u{older:02}" for older in reversed(range(0, 11 - number, 2))
            ]

    async def test_ended_uploads_of_one_owner_are_limited(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Those that ended last are kept. Other owners, and open uploads, are not affected."""
        ended = evolve(record, state=UploadState.COMPLETED, worker=None, stage=None, error=None)
        now, limit = clock.time(), self.RETENTION.ended_per_owner
        theirs = evolve(ended, owner="bob", finished_at=now - 1.0)
        await store.save([record, theirs])
        for number in range(3 * limit):
            finished_at = now - 1.0 + number / 1000
            await store.save([evolve(ended, upload_id=f"u{number:03}", finished_at=finished_at)])

        # A store may delete them when it is asked for overdue uploads.
        assert list(await store.overdue(limit=9)) == []

        listed = {upload[0].upload_id for upload in (await store.list("ann", limit=99)).uploads}
        assert listed == {"video", *(f"u{number:03}" for number in range(2 * limit, 3 * limit))}
        assert comparable(await store.load(theirs.key)) == [theirs]
        assert await store.load(evolve(ended, upload_id="u000").key) == []

    async def test_next_attempt_is_not_an_ended_upload(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """An upload that is received again after its end is not deleted with the ended ones."""
        ended = evolve(
            record,
            state=UploadState.FAILED,
            worker=None,
            stage=None,
            finished_at=clock.time(),
        )
        again = evolve(record, attempt=record.attempt + 1, sequence=1)
        await store.save([ended])
        await store.save([again])
        for number in range(3 * self.RETENTION.ended_per_owner):
            await store.save([evolve(ended, upload_id=f"u{number}")])

        assert list(await store.overdue(limit=9)) == []
        assert comparable(await store.load(record.key)) == [again]

    async def test_waiting_uploads_of_one_owner_are_limited(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Those that have waited longest expire early. Other owners are not affected."""
        now, limit = clock.time(), self.RETENTION.waiting_per_owner
        waiting = evolve(
            record, state=UploadState.PENDING, worker=None, stage=None, updated_at=now - 1.0
        )
        await store.save([evolve(waiting, owner="bob")])
        for number in range(3 * limit):
            updated_at = now - 1.0 + number / 1000
            await store.save([evolve(waiting, upload_id=f"u{number:03}", updated_at=updated_at)])

        overdue = await store.overdue(limit=99)

        assert {each.upload_id for each in overdue} == {f"u{number:03}" for number in range(40)}
        assert all(each.expires_at and each.expires_at <= clock.time() for each in overdue)
        assert {each.owner for each in overdue} == {"ann"}
