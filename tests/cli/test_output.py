from __future__ import annotations

import io
import json
import sys

import pytest
from attrs import evolve

from benchmarks.snapshots import snapshot
from upload_progress.cli.formatting import Row
from upload_progress.cli.options import Mode, Shown
from upload_progress.cli.output import Json, Plain, open_display
from upload_progress.cli.progress import Bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(is_quiet: bool = False) -> tuple[Plain, io.StringIO, io.StringIO, list[float]]:
    out, log, now = io.StringIO(), io.StringIO(), [0.0]
    return Plain(is_quiet, out=out, log=log, clock=lambda: now[0]), out, log, now


def percents(log: io.StringIO) -> list[str]:
    return [line.split("  ")[1] for line in log.getvalue().splitlines()]


def test_a_log_gets_a_line_at_every_tenth() -> None:
    display, out, log, _ = plain()
    row = Row("a")
    with display:
        for percent in range(0, 101, 3):
            row.progress = evolve(snapshot(), percent=float(percent))
            display.show(row)
        row.outcome = "completed"
        display.end(row)

    assert percents(log) == [f"{p} %" for p in (12, 21, 30, 42, 51, 60, 72, 81, 90)]
    assert out.getvalue().startswith("a: completed, ")


def test_a_log_is_not_silent_for_longer_than_ten_seconds() -> None:
    display, _, log, now = plain()
    row = Row("a")
    for now[0] in [0.0, 9.0, 10.0, 19.0, 20.0]:
        display.show(row)

    assert log.getvalue().splitlines() == 2 * ["a  0 B sent, no word from the server yet"]


def test_none_prints_only_results() -> None:
    display, out, log, now = plain(is_quiet=True)
    row = Row("a", outcome="completed")
    for now[0] in [0.0, 100.0]:
        display.show(row)
    display.end(row)

    assert log.getvalue() == ""
    assert out.getvalue().count("\n") == 1


def test_json_prints_each_snapshot_once() -> None:
    out, log = io.StringIO(), io.StringIO()
    row = Row("a")
    with Json(out=out, log=log) as display:
        display.show(row)
        row.progress = snapshot()
        display.show(row)
        display.show(row)
        display.end(row)
        display.drop(row)
        display.say("oops")

    [line] = out.getvalue().splitlines()
    assert json.loads(line)["upload_id"] == "upload-0000"
    assert log.getvalue() == "oops\n"


@pytest.mark.parametrize(
    ("mode", "environment", "is_terminal", "kind"),
    [
        (Mode.AUTO, {}, True, Bars),
        (Mode.AUTO, {}, False, Plain),
        (Mode.AUTO, {"CI": "true"}, True, Plain),
        (Mode.AUTO, {"TERM": "dumb"}, True, Plain),
        (Mode.TTY, {"CI": "true"}, False, Bars),
        (Mode.JSON, {}, True, Json),
        (Mode.NONE, {}, True, Plain),
    ],
)
def test_the_place_decides_unless_one_says(
    mode: Mode,
    environment: dict[str, str],
    is_terminal: bool,
    kind: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if is_terminal else io.StringIO())

    assert type(open_display(mode, environment)) is kind


def test_json_is_short_for_a_mode() -> None:
    assert Shown(json=True).mode is Mode.JSON
    assert Shown(Mode.PLAIN).mode is Mode.PLAIN


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_end_in_results(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one screen both stand above each other; redirected results are nothing but results."""
    screen, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", Terminal() if is_terminal else file)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    rows = [Row("one", 5, outcome="completed"), Row("t[b]wo", 5), Row("three", 5)]
    with Bars() as bars:
        for row in rows:
            bars.show(row)
        rows[0].progress = evolve(snapshot(), percent=12.5)
        bars.show(rows[0])
        bars.say("a word")
        bars.end(rows[0])
        bars.drop(rows[1])
        bars.drop(rows[1])
        rows[2].progress = evolve(snapshot(), bytes_transferred=3, total_bytes=5)
        bars.show(rows[2])

    shown = screen.getvalue()
    assert "t[b]wo" in shown
    assert "12.5 %" in shown
    assert "all" in shown
    assert "a word" in shown
    assert ("one: completed" in shown) is is_terminal
    assert file.getvalue().startswith("one: completed") is not is_terminal
