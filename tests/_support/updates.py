"""Updates for the tests of subscriptions."""

from __future__ import annotations

from attrs import evolve

from upload_progress._fanout.hub import Hub
from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.task_spawner import TaskSpawner
from upload_progress.interfaces import SystemClock

__all__ = ["hub_without_tasks", "taken", "update"]


def update(
    sequence: int,
    *,
    owner: str = "ann",
    upload_id: str = "up",
    group: str | None = None,
    state: UploadState = UploadState.RECEIVING,
    updated_at: float = 0.0,
) -> Update:
    """Return an update of an upload that is being received, or in another state."""
    record = TransferRecord(owner, upload_id, "t", 1, sequence, state, updated_at=updated_at)
    progress = fold([evolve(record, group=group)], now=0.0)
    assert progress is not None
    return Update(owner, progress)


def taken(subscription: Subscription) -> list[tuple[str, int]]:
    """Take the updates of *subscription*; return the upload id and the sequence of each."""
    return [(each.progress.upload_id, each.progress.sequence) for each in subscription.take()]


def hub_without_tasks() -> Hub:
    """Return a hub that starts no tasks: it wakes all subscriptions."""
    return Hub(TaskSpawner(LogLimiter(SystemClock())))
