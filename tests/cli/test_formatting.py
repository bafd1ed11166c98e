from __future__ import annotations

from datetime import timedelta

import pytest
from attrs import evolve

from benchmarks.snapshots import snapshot
from upload_progress._model.models import Arrival, Stage, UploadState
from upload_progress.cli.formatting import Row, clean, duration, figures, result_line, standing

HALF = evolve(snapshot(), bytes_transferred=5000, total_bytes=10_000, eta_seconds=70.4)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (9000, "2 h 30 min")],
)
def test_a_duration_has_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_name_cannot_move_the_cursor() -> None:
    assert clean("a\x1b[2Jb\r\n") == "a?[2Jb??"
    assert clean("x" * 99, 10) == "x" * 9 + "…"


def test_figures_say_what_is_known() -> None:
    row = Row("a", sent_bytes=2000)
    assert figures(row) == "2.0 kB sent, no word from the server yet"

    row.progress = HALF
    assert figures(row) == "5.0 kB of 10.0 kB  2.3 MB/s  1 min 10 s left"

    row.progress = evolve(HALF, total_bytes=None, bytes_per_second=None, eta_seconds=None)
    assert figures(row) == "5.0 kB"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"stage": Stage("scan\x07", 1, 3)}, "scan? 33 %"),
        ({"stage": Stage("scan", 1)}, "scan"),
        ({"stalled": True}, "stalled"),
        ({"state": UploadState.PAUSED}, "paused"),
    ],
)
def test_what_is_no_figure_is_said_beside_them(changes: dict[str, object], words: str) -> None:
    assert standing(evolve(HALF, **changes)) == words  # type: ignore[arg-type]  # any field


def test_a_result_is_one_line() -> None:
    row = Row("a.bin", outcome="completed")
    assert result_line(row) == "a.bin: completed, the server tells no progress"

    assert HALF.started_at is not None
    finished = HALF.started_at + timedelta(seconds=3)
    row.progress = evolve(HALF, finished_at=finished, arrival=Arrival.BUFFERED)
    assert result_line(row) == (
        "a.bin: completed, 5.0 kB, in 3 s, "
        "held back by a proxy (see: upload-progress doctor), id upload-0000"
    )

    row.progress = HALF
    assert result_line(row) == "a.bin: completed, 5.0 kB, id upload-0000"
