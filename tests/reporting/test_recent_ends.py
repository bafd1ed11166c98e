"""The ends that were stored last."""

from __future__ import annotations

from tests._support.records import record
from upload_progress import UploadState
from upload_progress._reporting import recent_ends
from upload_progress._reporting.recent_ends import KEEP_SECONDS, RecentEnds
from upload_progress.testing import FakeClock


def test_newest_end_of_each_upload_is_remembered() -> None:
    ends = RecentEnds(FakeClock())
    first = record("up", state=UploadState.FAILED, worker=None)
    again = record("up", state=UploadState.COMPLETED, worker=None, attempt=2)

    ends.add(first)
    assert ends.find(first.key) == first
    ends.add(again)

    assert ends.find(first.key) == again
    assert len(ends) == 1
    ends.forget(again.key)
    ends.forget(again.key)
    assert (len(ends), ends._size, ends.find(again.key)) == (0, 0, None)


def test_old_ends_are_forgotten() -> None:
    clock = FakeClock()
    ends = RecentEnds(clock)
    for upload_id in ("old", "recent", "new"):
        ends.add(record(upload_id))
        clock.advance(KEEP_SECONDS / 2 + 1)

    assert ends.find(record("old").key) is None
    assert list(ends.since(KEEP_SECONDS)) == [record("new").key]
    assert list(ends.since(2 * KEEP_SECONDS)) == [record("new").key, record("recent").key]


def test_memory_is_bounded() -> None:
    """Whatever clients put into the metadata."""
    ends = RecentEnds(FakeClock())
    for number in range(3000):
        ends.add(record(f"up-{number}", metadata={"k": "x" * 4000}))

    assert ends._size <= recent_ends.MAX_BYTES
    assert 0 < len(ends) < 1100
    assert ends.find(record("up-2999").key)
