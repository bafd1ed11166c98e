"""Budget 7: what an idle session costs, of a hundred thousand.

Each kind is measured in a fresh process: by the growth of its resident memory, and by what
``tracemalloc`` says was allocated. The second does not depend on the machine.
"""

from __future__ import annotations

import gc
import secrets
import sys
import tracemalloc
from pathlib import Path

import anyio

from benchmarks.common import CannotRun, Figure, child, run
from upload_progress import Identity, MemoryStore, ProgressTracker
from upload_progress._model.models import Arrival, TransferRecord, UploadState, new_upload_id
from upload_progress.tracker import internals_of

CLAIM = "memory per session"
SESSIONS = 100_000
BUDGET_BYTES = 420
NOW = 1_700_000_000.0
IDLE = ("pending", "ended")
TOLD = ("capability", "live")


class StandingClock:
    """A moment that lasts."""

    def monotonic(self) -> float:
        return NOW

    def time(self) -> float:
        return NOW


def resident_bytes() -> int:
    """Return what of this process is in memory."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise CannotRun("/proc/self/smaps_rollup is needed") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def session(number: int, kind: str) -> TransferRecord:
    """Return the last record of an upload, with all that one usually has; 100 to an owner."""
    upload_id, at = new_upload_id(), NOW + number / 1000
    is_ended = kind == "ended"
    return TransferRecord(
        owner=f"capability:{upload_id}" if kind == "capability" else f"user-{number // 100:06}",
        upload_id=upload_id,
        transfer_id=secrets.token_urlsafe(8),
        attempt=1,
        sequence=12 if is_ended else 1,
        state=UploadState.COMPLETED if is_ended else UploadState.PENDING,
        received_bytes=123_456_789 if is_ended else 0,
        total_bytes=123_456_789,
        bytes_per_second=2_345_678.9 if is_ended else None,
        arrival=Arrival.STREAMED if is_ended else None,
        filename=f"archive-{number:06}.tar.gz",
        content_type="application/gzip",
        created_at=at,
        started_at=at + 0.5 if is_ended else None,
        updated_at=at + 60.5 if is_ended else at,
        last_byte_at=at + 60 if is_ended else None,
        finished_at=at + 60.5 if is_ended else None,
    )


async def fill_store(kind: str, sessions: int) -> MemoryStore:
    """Return a store with that many idle sessions."""
    store = MemoryStore(clock=StandingClock())
    for number in range(sessions):
        await store.save([session(number, kind)])
    return store


def open_uploads(sessions: int) -> tuple[object, ...]:
    """Return a tracker that receives that many uploads, a hundred of each owner."""
    tracker = ProgressTracker(clock=StandingClock())
    uploads = []
    for number in range(sessions):
        upload = internals_of(tracker).admission.open(
            total_bytes=1_000_000, filename=f"archive-{number:06}.tar.gz"
        )
        internals_of(tracker).admission.admit(upload, Identity(f"user-{number // 100:06}"))
        upload.begin()
        uploads.append(upload)
    return tracker, uploads


def fill(kind: str, sessions: int) -> object:
    """Return whatever holds that many sessions of a kind."""
    if kind == "live":
        return open_uploads(sessions)
    return anyio.run(fill_store, kind, sessions)


def resident(kind: str) -> float:
    """Return resident bytes per session; for a fresh process."""
    fill(kind, 100)
    gc.collect()
    before = resident_bytes()
    held = fill(kind, SESSIONS)
    gc.collect()
    grown = resident_bytes() - before
    del held
    return grown / SESSIONS


def allocated(kind: str, sessions: int) -> float:
    """Return allocated bytes per session."""
    fill(kind, 100)
    gc.collect()
    tracemalloc.start()
    held = fill(kind, sessions)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del held
    return grown / sessions


def measure() -> list[Figure]:
    """Measure each kind in a process of its own."""
    names = {
        "pending": "announced, with a file name",
        "ended": "completed, with a file name",
        "capability": "announced, each an owner of its own (capability)",
        "live": "being received: the handle, not idle",
    }
    figures = []
    for kind in IDLE + TOLD:
        bytes_each = float(child("benchmarks.session_memory", "--child", kind))
        figures.append(
            Figure(
                what=names[kind],
                value=bytes_each,
                unit="B resident",
                budget=f"<= {BUDGET_BYTES} B" if kind in IDLE else "",
                holds=bytes_each <= BUDGET_BYTES if kind in IDLE else None,
            )
        )
    return figures


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(resident(sys.argv[2]))
    else:
        run(CLAIM, measure)
