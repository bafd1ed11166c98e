"""Budget 7: memory of an idle upload, measured with a hundred thousand.

Each kind is measured in a new process: the growth of the resident memory, and the memory allocated
according to ``tracemalloc``, which does not depend on the machine.
"""

from __future__ import annotations

import gc
import secrets
import sys
import tracemalloc
from pathlib import Path

import anyio

from benchmarks.harness import BenchmarkUnavailable, Figure, run, run_child
from upload_progress import Identity, MemoryStore, ProgressTracker
from upload_progress._internals import internals_of
from upload_progress._model.models import Arrival, TransferRecord, UploadState, new_upload_id

TITLE = "memory per upload"
UPLOADS = 100_000
BUDGET_BYTES = 420
NOW = 1_700_000_000.0
IDLE = ("pending", "ended")
UNBUDGETED = ("capability", "live")


class FixedClock:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return NOW

    def time(self) -> float:
        return NOW


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise BenchmarkUnavailable("/proc/self/smaps_rollup is needed") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def upload_record(number: int, kind: str) -> TransferRecord:
    """Return a record with all usual fields; 100 uploads per owner."""
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


async def fill_store(kind: str, uploads: int) -> MemoryStore:
    """Return a store with that many idle uploads."""
    store = MemoryStore(clock=FixedClock())
    for number in range(uploads):
        await store.save([upload_record(number, kind)])
    return store


def open_uploads(count: int) -> tuple[object, ...]:
    """Return a tracker that is receiving *count* uploads, a hundred per owner."""
    tracker = ProgressTracker(clock=FixedClock())
    uploads = []
    for number in range(count):
        upload = internals_of(tracker).admission.open(
            total_bytes=1_000_000, filename=f"archive-{number:06}.tar.gz"
        )
        internals_of(tracker).admission.admit(upload, Identity(f"user-{number // 100:06}"))
        upload.begin()
        uploads.append(upload)
    return tracker, uploads


def fill(kind: str, uploads: int) -> object:
    """Return an object that holds that many uploads of a kind."""
    if kind == "live":
        return open_uploads(uploads)
    return anyio.run(fill_store, kind, uploads)


def resident(kind: str) -> float:
    """Return resident bytes per upload, for a new process."""
    fill(kind, 100)
    gc.collect()
    before = resident_bytes()
    content = fill(kind, UPLOADS)
    gc.collect()
    growth = resident_bytes() - before
    del content
    return growth / UPLOADS


def allocated(kind: str, uploads: int) -> float:
    """Return allocated bytes per upload."""
    fill(kind, 100)
    gc.collect()
    tracemalloc.start()
    content = fill(kind, uploads)
    gc.collect()
    growth = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del content
    return growth / uploads


def measure() -> list[Figure]:
    """Measure each kind in a new process."""
    names = {
        "pending": "announced, with a file name",
        "ended": "completed, with a file name",
        "capability": "announced, one upload per owner (capability)",
        "live": "being received",
    }
    figures = []
    for kind in IDLE + UNBUDGETED:
        bytes_each = float(run_child("benchmarks.upload_memory", "--child", kind))
        figures.append(
            Figure(
                name=names[kind],
                value=bytes_each,
                unit="B resident",
                budget=f"<= {BUDGET_BYTES} B" if kind in IDLE else "",
                is_met=bytes_each <= BUDGET_BYTES if kind in IDLE else None,
            )
        )
    return figures


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(resident(sys.argv[2]))
    else:
        run(TITLE, measure)
