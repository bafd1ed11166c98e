from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from benchmarks.sample_snapshot import sample_snapshot
from upload_progress._model.models import Arrival, Stage, UploadState
from upload_progress.cli.formatting import (
    UploadRow,
    format_duration,
    format_progress,
    format_result,
    format_resumption,
    format_retry,
    format_status,
    format_summary,
    printable,
)
from upload_progress.client import Resumption, Retry
from upload_progress.exceptions import ServerBusy, ServerUnreachable, UploadProgressError

HALF = evolve(sample_snapshot(), bytes_transferred=5000, total_bytes=10_000, eta_seconds=70.4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (9000, "2 h 30 min")],
)
def test_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2Jb\r\n") == "a?[2Jb??"
    assert printable("x" * 99, 10) == "x" * 9 + "…"


def test_progress_contains_what_is_known() -> None:
    row = UploadRow("a", sent_bytes=2000)
    assert format_progress(row) == "2.0 kB sent, no progress from the server yet"

    row.progress = HALF
    assert format_progress(row) == "5.0 kB of 10.0 kB  2.3 MB/s  1 min 10 s left"

    row.progress = evolve(HALF, total_bytes=None, bytes_per_second=None, eta_seconds=None)
    assert format_progress(row) == "5.0 kB"

    row.progress = evolve(row.progress, stored_bytes=2000)
    assert format_progress(row) == "5.0 kB  2.0 kB stored"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"stage": Stage("scan\x07", 1, 3)}, "scan? 33 %"),
        ({"stage": Stage("scan", 1)}, "scan"),
        ({"stalled": True}, "stalled"),
        ({"state": UploadState.PAUSED}, "paused"),
    ],
)
def test_status_is_the_stage_or_the_state(changes: dict[str, object], text: str) -> None:
    assert format_status(evolve(HALF, **changes)) == text  # type: ignore[arg-type]  # any field


def test_result_is_one_line() -> None:
    row = UploadRow("a.bin", result="completed")
    assert format_result(row) == "a.bin: completed, the server does not report progress"

    assert HALF.started_at is not None
    finished = HALF.started_at + timedelta(seconds=3)
    row.progress = evolve(HALF, finished_at=finished, arrival=Arrival.BUFFERED)
    assert format_result(row) == (
        "a.bin: completed, 5.0 kB, in 3.0 s, "
        "buffered by a proxy (see: upload-progress doctor), id upload-0000"
    )

    row.progress = HALF
    assert format_result(row) == "a.bin: completed, 5.0 kB, id upload-0000"


@pytest.mark.parametrize(
    ("error", "delay", "text"),
    [
        (
            ServerUnreachable("http://h", "reset\x1b"),
            2.04,
            "connection failed (reset?), trying again in 2.0 s (1/5)",
        ),
        (ServerBusy("full", 1), 30, "The server is busy: full, trying again in 30 s (1/5)"),
    ],
)
def test_retry_names_the_reason_and_the_wait(
    error: UploadProgressError, delay: float, text: str
) -> None:
    assert format_retry(Retry(error, delay, 1, 5)) == text


def test_resumption_names_the_offset() -> None:
    assert format_resumption(Resumption(0, 2)) == "starting again from 0 bytes (attempt 2)"
    assert format_resumption(Resumption(4_000_000, 2)) == "continuing at 4.0 MB"


@pytest.mark.parametrize(
    ("counts", "seconds", "text"),
    [
        ({"completed": 1}, 2.5, "1 file completed, 5.0 MB in 2.5 s, 2.0 MB/s"),
        (
            {"completed": 2, "failed": 1},
            0.0,
            "2 files completed, 1 failed, 5.0 MB in 0.00 s, 5.0 GB/s",
        ),
        ({"completed": 0, "failed": 1}, 0.52, "1 file failed, after 0.5 s"),
        (
            {"completed": 0, "cancelled": 4, "not started": 56},
            12,
            "4 files cancelled, 56 not started, after 12 s",
        ),
    ],
)
def test_summary_counts_files_bytes_and_seconds(
    counts: dict[str, int], seconds: float, text: str
) -> None:
    assert format_summary(counts, 5_000_000, seconds) == text
