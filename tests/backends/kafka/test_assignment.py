"""``ReaperAssignment``: each worker in turn has to end an overdue upload."""

from __future__ import annotations

from collections.abc import Sequence

from tests._support.records import record
from upload_progress._model.models import TransferRecord
from upload_progress.backends.kafka.assignment import RANK_DELAY_SECONDS, ReaperAssignment

UPLOADS = [
    record(f"up-{number}", owner=owner) for owner in ("ann", "\udcff") for number in range(99)
]
WORKERS = ["a", "b", "c"]


def assigned(
    assignment: ReaperAssignment, worker: str | None, now: float, live_workers: list[str] = WORKERS
) -> Sequence[TransferRecord]:
    """Return which of ``UPLOADS`` *worker* has to end at *now*."""
    return assignment.assigned_to(worker, live_workers=live_workers, overdue=UPLOADS, now=now)


def test_each_upload_is_assigned_to_one_worker_more_after_each_delay() -> None:
    assignments = {worker: ReaperAssignment() for worker in WORKERS}
    for rank in range(len(WORKERS)):
        now = 5.0 + rank * RANK_DELAY_SECONDS
        keys = {
            worker: [each.key for each in assigned(assignment, worker, now)]
            for worker, assignment in assignments.items()
        }
        for upload in UPLOADS:
            assert sum(upload.key in each for each in keys.values()) == rank + 1

    first = {worker: assigned(ReaperAssignment(), worker, 5.0) for worker in WORKERS}
    assert all(len(UPLOADS) / 6 < len(each) < len(UPLOADS) / 2 for each in first.values())


def test_single_worker_does_not_wait() -> None:
    assert assigned(ReaperAssignment(), "a", 5.0, ["a"]) == UPLOADS
    assert assigned(ReaperAssignment(), None, 5.0, []) == UPLOADS


def test_worker_without_name_is_ranked_last() -> None:
    assignment = ReaperAssignment()

    assert assigned(assignment, None, 5.0) == []
    assert assigned(assignment, None, 5.0 + 2 * RANK_DELAY_SECONDS) == []
    assert assigned(assignment, None, 5.0 + 3 * RANK_DELAY_SECONDS) == UPLOADS


def test_upload_that_is_no_longer_overdue_is_forgotten() -> None:
    assignment = ReaperAssignment()
    assigned(assignment, None, 5.0)
    assignment.assigned_to(None, live_workers=WORKERS, overdue=[], now=6.0)

    assert assigned(assignment, None, 5.0 + 9 * RANK_DELAY_SECONDS) == []
    assert len(assignment._overdue_since) == len(UPLOADS)
