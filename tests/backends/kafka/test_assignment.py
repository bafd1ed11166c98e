"""Who ends what a dead worker left behind, where nobody can claim it."""

from __future__ import annotations

from tests._support.records import record
from upload_progress.backends.kafka.assignment import TURN_SECONDS, ReaperAssignment

UPLOADS = [
    record(f"up-{number}", owner=owner) for owner in ("ann", "\udcff") for number in range(99)
]
WORKERS = ["a", "b", "c"]


def test_each_upload_is_one_workers_at_first_and_then_one_mores() -> None:
    turns = {worker: ReaperAssignment() for worker in WORKERS}
    for waited, allowed in ((0.0, 1), (TURN_SECONDS, 2), (2 * TURN_SECONDS, 3)):
        due = {
            worker: [each.key for each in mine.due_to(worker, WORKERS, UPLOADS, 5.0 + waited)]
            for worker, mine in turns.items()
        }
        for upload in UPLOADS:
            assert sum(upload.key in keys for keys in due.values()) == allowed

    first = {worker: ReaperAssignment().due_to(worker, WORKERS, UPLOADS, 5.0) for worker in WORKERS}
    assert all(len(UPLOADS) / 6 < len(mine) < len(UPLOADS) / 2 for mine in first.values())


def test_whoever_is_alone_waits_for_nobody() -> None:
    assert ReaperAssignment().due_to("a", ["a"], UPLOADS, 5.0) == UPLOADS
    assert ReaperAssignment().due_to(None, [], UPLOADS, 5.0) == UPLOADS


def test_who_has_no_name_yet_comes_last() -> None:
    turns = ReaperAssignment()

    assert turns.due_to(None, WORKERS, UPLOADS, 5.0) == []
    assert turns.due_to(None, WORKERS, UPLOADS, 5.0 + 2 * TURN_SECONDS) == []
    assert turns.due_to(None, WORKERS, UPLOADS, 5.0 + 3 * TURN_SECONDS) == UPLOADS


def test_what_is_overdue_no_more_is_forgotten() -> None:
    turns = ReaperAssignment()
    turns.due_to(None, WORKERS, UPLOADS, 5.0)
    turns.due_to(None, WORKERS, [], 6.0)

    assert turns.due_to(None, WORKERS, UPLOADS, 5.0 + 9 * TURN_SECONDS) == []
    assert len(turns._since) == len(UPLOADS)
