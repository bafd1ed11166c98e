"""The memory store: the contract of all stores, and how it keeps its own memory small."""

from __future__ import annotations

import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
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
    return not (len(store) or store._owners or store._buckets or store._running)


async def test_an_upload_leaves_nothing_behind_but_its_entry() -> None:
    """It moves from where it waits, to where it runs, to where it will be forgotten."""
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


async def test_a_worker_without_records_is_forgotten() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.renew("w", seconds=1)
    clock.advance(2)

    assert await store.overdue(limit=9) == []
    assert not store._leases


async def test_what_nobody_ends_comes_again() -> None:
    """Who asked what is overdue may have failed to end it."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(waiting_seconds=5))
    await store.save([record(clock, "u")])
    clock.advance(7)

    assert len(await store.overdue(limit=9)) == 1
    assert len(await store.overdue(limit=9)) == 0
    clock.advance(31)
    assert len(await store.overdue(limit=9)) == 1


async def test_pending_expires_after_a_day_and_not_before() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "u")])

    clock.advance(24 * 3600 - 1)
    assert await store.overdue(limit=9) == []
    clock.advance(1 + COARSE_BUCKET_SECONDS)
    assert len(await store.overdue(limit=9)) == 1


async def test_a_flood_is_bounded_and_takes_first_what_expires_first() -> None:
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


async def test_long_lists_of_expiring_uploads_are_swept_in_portions() -> None:
    """More than one portion, one bucket after another, the limit kept."""
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


async def test_an_end_without_its_moment_counts_from_the_last_change() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=5))
    await store.save([record(clock, "u", S.FAILED)])
    clock.advance(4)
    await store.overdue(limit=9)
    assert len(store) == 1

    clock.advance(3)
    await store.overdue(limit=9)

    assert is_empty(store)


async def test_its_repr_shows_how_much_and_nothing_of_whom() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "secret"), record(clock, "other")])

    assert repr(store) == "<MemoryStore of 2 uploads>"


async def test_what_is_handed_out_cannot_change_what_is_kept() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.save([record(clock, "u", metadata={"k": []})])
    [loaded] = await store.load(UploadKey("ann", "u"))

    assert loaded.metadata is not None
    dict(loaded.metadata)["k"] = 1

    [again] = await store.load(UploadKey("ann", "u"))
    assert again.metadata == {"k": []}


async def test_a_full_second_flows_over_into_the_next() -> None:
    """And what is known only by the second is looked up, where that matters."""
    clock = FakeClock()
    store = MemoryStore(clock=clock, retention=Retention(ended_seconds=10))
    ended = [
        record(clock, f"u{number}", S.COMPLETED, finished_at=clock.time())
        for number in range(BUCKET_CAPACITY + 1)
    ]
    await store.save(ended)

    assert sorted(map(len, store._buckets.values())) == [1, BUCKET_CAPACITY]
    page = await store.list("ann", ended_since=clock.time(), limit=2 * BUCKET_CAPACITY)
    assert len(page.uploads) == BUCKET_CAPACITY + 1
    page = await store.list("ann", ended_since=clock.time() + 0.001)
    assert page.uploads == ()


def test_its_repr_tells_nothing_of_what_it_holds() -> None:
    assert repr(MemoryStore()) == "<MemoryStore of 0 uploads>"


def test_a_bucket_says_its_number_and_nobody_s_names() -> None:
    """I14: asyncio shows what tasks return."""
    bucket = Bucket(7)
    bucket.add(Entry("ann", "secret-name"))

    assert repr(bucket) == "<Bucket 7>"
