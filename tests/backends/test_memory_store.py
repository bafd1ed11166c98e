"""``MemoryStore``: the contract of all stores, and its bounded memory."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress.backends import memory
from upload_progress.backends.memory import (
    BUCKET_CAPACITY,
    COARSE_BUCKET_SECONDS,
    Bucket,
    Entry,
    MemoryStore,
)
from upload_progress.config import Retention
from upload_progress.interfaces import SessionStore
from upload_progress.testing import Elapse, FakeClock, StoreContract

pytestmark = pytest.mark.anyio

S = UploadState


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def elapse(self, clock: FakeClock) -> Elapse:
        async def elapse(seconds: float) -> None:
            clock.advance(seconds)
            await checkpoint()

        return elapse

    @pytest.fixture
    def store(self, clock: FakeClock) -> SessionStore:
        return MemoryStore(clock=clock, retention=self.RETENTION)


def record(
    clock: FakeClock, upload_id: str, state: S = S.PENDING, **more: object
) -> TransferRecord:
    now = clock.time()
    plain = TransferRecord("ann", upload_id, "t", 1, 1, state, created_at=now, updated_at=now)
    return evolve(plain, **more)  # type: ignore[arg-type]  # any field


def is_empty(store: MemoryStore) -> bool:
    return not (len(store) or store._owners or store._buckets or store._running or store._queues)


async def test_changed_upload_leaves_no_index_entry_behind() -> None:
    """An upload is indexed as waiting, then as running, then as ended."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for number in range(100):
        one = record(clock, f"u{number}")
        running = evolve(one, sequence=2, state=S.RECEIVING, worker="w")
        ended = evolve(one, sequence=3, state=S.COMPLETED, finished_at=clock.time(), worker=None)
        for version in (one, running, ended):
            await store.save([version])

    assert not store._running
    assert sum(map(len, store._buckets.values())) == len(store) == 100
    clock.advance(Retention().ended_seconds + COARSE_BUCKET_SECONDS)
    await store.overdue(limit=1000)
    assert is_empty(store)


async def test_ended_lease_of_worker_without_records_is_deleted() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.renew("w", seconds=1)
    for _ in range(4):
        clock.advance(0.3)
        await store.renew("alive", seconds=1)

    assert await store.overdue(limit=9) == []
    assert "w" not in store._leases
    assert "alive" in store._leases


async def test_expired_upload_is_reported_again_if_it_is_not_ended() -> None:
    """The caller may have failed to end it."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(waiting_seconds=5))
    await store.save([record(clock, "u")])
    clock.advance(7)

    assert len(await store.overdue(limit=9)) == 1
    assert len(await store.overdue(limit=9)) == 0
    clock.advance(31)
    assert len(await store.overdue(limit=9)) == 1


async def test_pending_upload_expires_after_a_day() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "u")])

    clock.advance(24 * 3600 - 1)
    assert await store.overdue(limit=9) == []
    clock.advance(1 + COARSE_BUCKET_SECONDS)
    assert len(await store.overdue(limit=9)) == 1


async def test_upload_that_expires_next_makes_room() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock, max_uploads=3)
    ended = record(clock, "ended", S.FAILED, finished_at=clock.time())
    await store.save([record(clock, "running", S.RECEIVING, worker="w"), ended])
    for number in range(5):
        await store.save([record(clock, f"u{number}", S.RECEIVING, worker="w")])
        assert len(store) <= 3

    kept = [
        name
        for name in ("ended", "running", "u3", "u4")
        if await store.load(UploadKey("ann", name))
    ]
    assert kept == ["u3", "u4"]
    assert sum(map(len, store._running.values())) == len(store)


async def test_many_expired_uploads_are_swept_in_batches() -> None:
    """Several batches and buckets, within the limit."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=1, waiting_seconds=1))
    await store.save([record(clock, f"a{number}") for number in range(300)])
    clock.advance(2)
    await store.save([record(clock, "later")])
    await store.save(
        [record(clock, f"b{number}", S.FAILED, finished_at=clock.time()) for number in range(9)]
    )

    found = await store.overdue(limit=400)

    assert len(found) == 300
    clock.advance(3)
    assert len(await store.overdue(limit=400)) == 1
    assert len(store) == 301


async def test_ended_record_without_finished_at_is_kept_from_last_update() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=5))
    await store.save([record(clock, "u", S.FAILED)])
    clock.advance(4)
    await store.overdue(limit=9)
    assert len(store) == 1

    clock.advance(3)
    await store.overdue(limit=9)

    assert is_empty(store)


async def test_repr_has_number_of_uploads_and_no_names() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "secret"), record(clock, "other")])

    assert repr(store) == "<MemoryStore of 2 uploads>"


async def test_loaded_record_does_not_share_state_with_store() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "u", metadata={"k": []})])
    [loaded] = await store.load(UploadKey("ann", "u"))

    assert loaded.metadata is not None
    dict(loaded.metadata)["k"] = 1

    [again] = await store.load(UploadKey("ann", "u"))
    assert again.metadata == {"k": []}


async def test_full_bucket_overflows_into_next_second() -> None:
    """The time of the end is exact nevertheless."""
    clock = FakeClock()
    retention = Retention(ended_seconds=10, ended_per_owner=BUCKET_CAPACITY + 1)
    store = MemoryStore(clock=clock, retention=retention)
    ended = [
        record(clock, f"u{number}", S.COMPLETED, finished_at=clock.time())
        for number in range(BUCKET_CAPACITY + 1)
    ]
    await store.save(ended)

    assert sorted(map(len, store._buckets.values())) == [1, BUCKET_CAPACITY]
    clock.advance(0.25)
    page = await store.list("ann", ended_within_seconds=0.25, limit=2 * BUCKET_CAPACITY)
    assert len(page.uploads) == BUCKET_CAPACITY + 1
    page = await store.list("ann", ended_within_seconds=0.2)
    assert page.uploads == ()


async def test_many_uploads_of_one_second_are_not_searched_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full bucket knows the next one that has room; a bucket that gets room is used again."""
    monkeypatch.setattr(memory, "BUCKET_CAPACITY", 2)
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=10))
    ended = [record(clock, f"u{n}", S.COMPLETED, finished_at=clock.time()) for n in range(40)]
    await store.save(ended)
    first = min(store._buckets)
    lengths = [len(store._buckets[number]) for number in sorted(store._buckets)]
    shortcuts = dict(store._overflow)

    store._drop(next(iter(store._buckets[first])))
    await store.save([record(clock, "next", S.COMPLETED, finished_at=clock.time())])

    assert lengths == [2] * 20
    assert shortcuts == {first: first + 19}
    assert len(store._buckets[first]) == 2
    clock.advance(60)
    await store.overdue(limit=100)
    assert len(store) == 0
    assert store._overflow == {}


@pytest.mark.parametrize("step", [-30 * 86_400, 30 * 86_400])
async def test_step_of_the_wall_clock_expires_nothing_and_hides_nothing(step: float) -> None:
    """All times of the store are those of the monotonic clock."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=100, waiting_seconds=200))
    running = record(clock, "running", S.RECEIVING, worker="w")
    ended = record(clock, "ended", S.COMPLETED, finished_at=clock.time())
    await store.save([running, ended, record(clock, "waiting")])
    await store.renew("w", seconds=15)

    clock.step_wall_clock(step)

    assert await store.overdue(limit=9) == []
    assert len((await store.list("ann", ended_within_seconds=1)).uploads) == 3
    [loaded] = await store.load(running.key)
    assert loaded.lease_until == clock.time() + 15
    clock.advance(102)
    await store.renew("w", seconds=15)
    assert await store.overdue(limit=9) == []
    assert await store.load(ended.key) == []
    clock.advance(100)
    assert [each.upload_id for each in await store.overdue(limit=9)] == ["waiting"]


def test_repr_of_bucket_has_number_and_no_names() -> None:
    """I14: asyncio logs what tasks return."""
    bucket = Bucket(7)
    bucket.add(Entry("ann", "secret-name"))

    assert repr(bucket) == "<Bucket 7>"


async def test_owner_evicts_no_upload_of_another_owner() -> None:
    """Neither by ended nor by waiting uploads, and not in a full store either."""
    clock = FakeClock()
    store = MemoryStore(
        clock=clock,
        retention=Retention(ended_per_owner=10, waiting_per_owner=10),
        max_uploads=18,
    )
    hers = [
        record(clock, "ended", S.COMPLETED, owner="alice", finished_at=clock.time()),
        record(clock, "waiting", owner="alice"),
    ]
    await store.save(hers)
    for number in range(50):
        await store.save([record(clock, f"e{number}", S.COMPLETED, finished_at=clock.time())])
        await store.save([record(clock, f"w{number}", S.PAUSED)])
        clock.advance(0.01)

    assert [len(await store.load(each.key)) for each in hers] == [1, 1]
    assert len(store) == 18
    # A new owner has none to drop: the upload that expires next has to go.
    new = record(clock, "new", owner="carol")
    await store.save([new])
    assert len(await store.load(new.key)) == 1
    assert len(store) == 18


async def test_work_for_each_ended_upload_is_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner with many uploads costs as much for each as one with few; counted in index steps."""
    steps = 0
    index, unindex = MemoryStore._put, MemoryStore._unindex

    def count_index(store: MemoryStore, entry: Entry, number: int) -> None:
        nonlocal steps
        steps += 1
        index(store, entry, number)

    def count_unindex(store: MemoryStore, entry: Entry) -> None:
        nonlocal steps
        steps += 1
        unindex(store, entry)

    monkeypatch.setattr(MemoryStore, "_put", count_index)
    monkeypatch.setattr(MemoryStore, "_unindex", count_unindex)
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    counts = []
    for batch in range(4):
        steps = 0
        await store.save(
            [
                record(clock, f"u{batch}-{number}", S.COMPLETED, finished_at=clock.time())
                for number in range(1000)
            ]
        )
        counts.append(steps)

    assert max(counts) <= 2 * min(counts)
    assert len(store) == Retention().ended_per_owner


async def test_owner_with_few_uploads_has_no_queues() -> None:
    """Queues exist only while they can matter."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=5, ended_per_owner=10))
    await store.save([record(clock, "running", S.RECEIVING, worker="w1")])
    for number in range(9):
        await store.save([record(clock, f"u{number}", S.COMPLETED, finished_at=clock.time())])
    assert store._queues == {}

    for number in range(9, 30):
        await store.save([record(clock, f"u{number}", S.COMPLETED, finished_at=clock.time())])
    assert len(store) == 11
    assert list(store._queues) == ["ann"]

    clock.advance(10)
    await store.overdue(limit=1)
    assert len(store) == 1
    assert store._queues == {}


async def test_uploads_that_are_deleted_during_a_list_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save(
        [record(clock, f"up{number}", S.COMPLETED, finished_at=clock.time()) for number in range(3)]
    )

    async def delete_all() -> None:
        monkeypatch.undo()
        clock.advance(2 * store.retention.ended_seconds)
        await store.overdue(limit=9)

    monkeypatch.setattr(memory, "YIELD_EVERY", 1)
    monkeypatch.setattr(memory, "checkpoint", delete_all)

    assert (await store.list("ann")).uploads == ()
