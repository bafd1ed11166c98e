"""Announcements of clients without a user: counted by client, and forgotten when they are used."""

from __future__ import annotations

from typing import Final

import pytest

from upload_progress import Limits, MemoryStore, ProgressTracker, QuotaExceeded
from upload_progress._cluster.announcements import CHECK_SECONDS
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.identity import CapabilityIdentity
from upload_progress.testing import FakeClock

pytestmark = pytest.mark.anyio

A: Final = CapabilityIdentity(client="a")
B: Final = CapabilityIdentity(client="b")
UNKNOWN: Final = CapabilityIdentity()


class CountingStore(MemoryStore):
    """Counts how often it is read."""

    loads = 0

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Load, and count."""
        self.loads += 1
        return await super().load(*keys)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> CountingStore:
    return CountingStore(clock=clock)


@pytest.fixture
def tracker(store: CountingStore, clock: FakeClock) -> ProgressTracker:
    limits = Limits(announced_per_owner=3, announced_total=6)
    return ProgressTracker(store=store, limits=limits, clock=clock)


async def announce(tracker: ProgressTracker, who: CapabilityIdentity, count: int = 1) -> list[str]:
    """Announce uploads; return the name of the limit for each that is refused, else its id."""
    result = []
    for _ in range(count):
        try:
            result.append((await tracker.announce(owner=who)).upload_id)
        except QuotaExceeded as refused:
            result.append(refused.limit)
    return result


async def test_cancelled_and_expired_announcements_free_their_places(
    tracker: ProgressTracker, clock: FakeClock
) -> None:
    first, *_ = await announce(tracker, A, 3)
    assert await announce(tracker, A) == ["announced_per_owner"]

    await tracker.cancel(first, owner=A)
    assert await announce(tracker, A) == ["announced_per_owner"], "checked within a second"
    clock.advance(CHECK_SECONDS)
    assert len((await announce(tracker, A))[0]) == 22
    clock.advance(CHECK_SECONDS)
    assert await announce(tracker, A) == ["announced_per_owner"]

    clock.advance(25 * 3600)
    await internals_of(tracker).reaper.run_once()
    assert all(len(each) == 22 for each in await announce(tracker, A, 3))


async def test_flood_of_refused_announcements_reads_the_store_once(
    tracker: ProgressTracker, store: CountingStore
) -> None:
    await announce(tracker, A, 3)
    await announce(tracker, B, 3)
    store.loads = 0

    assert set(await announce(tracker, A, 500)) == {"announced_per_owner"}
    assert store.loads == 1
    assert set(await announce(tracker, UNKNOWN, 500)) == {"announced_total"}
    assert store.loads == 2
    assert len(internals_of(tracker).commands.announcements) == 6


async def test_full_total_forgets_what_was_used(tracker: ProgressTracker, clock: FakeClock) -> None:
    """A client without a known address counts in total only."""
    ids = await announce(tracker, UNKNOWN, 6)
    for each in ids:
        await tracker.cancel(each, owner=UNKNOWN)

    assert len((await announce(tracker, UNKNOWN))[0]) == 22
    announcements = internals_of(tracker).commands.announcements
    assert len(announcements) == 1
    assert list(announcements._clients) == [""]


async def test_announcement_that_was_forgotten_meanwhile_is_no_error(
    tracker: ProgressTracker,
) -> None:
    announcements = internals_of(tracker).commands.announcements
    await announce(tracker, A)
    keys = list(announcements._names)
    await tracker.cancel(keys[0].upload_id, owner=A)

    await announcements._forget_used([*keys, *keys])

    assert len(announcements) == 0
    assert announcements._clients == {}
