from __future__ import annotations

import io
import json
import sys
from time import monotonic

import pytest
from attrs import evolve
from rich.console import Console

from benchmarks.sample_snapshot import sample_snapshot
from upload_progress import UploadState
from upload_progress.cli.commands import open_output
from upload_progress.cli.formatting import UploadRow
from upload_progress.cli.options import OutputMode, OutputOptions
from upload_progress.cli.output import JsonOutput, PlainOutput
from upload_progress.cli.progress import TerminalOutput


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain_output(
    is_quiet: bool = False,
) -> tuple[PlainOutput, io.StringIO, io.StringIO, list[float]]:
    out, log, now = io.StringIO(), io.StringIO(), [0.0]
    return PlainOutput(is_quiet, out=out, log=log, clock=lambda: now[0]), out, log, now


def percents(log: io.StringIO) -> list[str]:
    return [line.split("  ")[1] for line in log.getvalue().splitlines()]


def test_plain_output_has_a_line_for_every_10_percent() -> None:
    output, out, log, _ = plain_output()
    row = UploadRow("a")
    with output:
        for percent in range(0, 101, 3):
            row.progress = evolve(sample_snapshot(), percent=float(percent))
            output.update(row)
        row.result = "completed"
        output.finish(row)

    assert percents(log) == [f"{p} %" for p in (12, 21, 30, 42, 51, 60, 72, 81, 90)]
    assert out.getvalue().startswith("a: completed, ")


def test_plain_output_begins_again_with_a_file_that_is_sent_again() -> None:
    output, _, log, _ = plain_output()
    row = UploadRow("a")
    for percent in [45.0, 5.0, 12.0, 50.0]:
        row.progress = evolve(sample_snapshot(), percent=percent)
        output.update(row)

    assert percents(log) == ["45 %", "12 %", "50 %"]


def test_plain_output_is_not_silent_for_more_than_3_seconds() -> None:
    """Any line counts: two uploads do not write twice as many."""
    output, _, log, now = plain_output()
    rows = [UploadRow("a"), UploadRow("b")]
    for now[0] in [0.0, 2.0, 2.5, 4.0]:
        for row in rows:
            output.refresh(row)
    output.message("a: a retry")
    rows[0].retry_at = monotonic() + 100
    for now[0] in [6.0, 6.5]:
        output.refresh(rows[0])

    assert log.getvalue().splitlines() == [
        "a  0 B sent, no progress from the server yet",
        "a: a retry",
        "a  waiting, trying again in 1 min 40 s",
    ]


def test_quiet_output_has_results_only() -> None:
    output, out, log, now = plain_output(is_quiet=True)
    row = UploadRow("a", result="completed")
    for now[0] in [0.0, 100.0]:
        output.update(row)
    output.finish(row)
    output.summarize("1 file")

    assert log.getvalue() == ""
    assert out.getvalue().count("\n") == 1


def test_json_output_has_each_snapshot_once() -> None:
    out, log = io.StringIO(), io.StringIO()
    row = UploadRow("a")
    with JsonOutput(out=out, log=log) as output:
        output.update(row)
        row.progress = sample_snapshot()
        output.update(row)
        output.update(row)
        output.refresh(row)
        output.finish(row)
        output.remove(row)
        output.message("oops")

    [line] = out.getvalue().splitlines()
    assert json.loads(line)["upload_id"] == "upload-0000"
    assert log.getvalue() == "oops\n"


@pytest.mark.parametrize(
    ("mode", "environment", "is_terminal", "output_type"),
    [
        (OutputMode.AUTO, {}, True, TerminalOutput),
        (OutputMode.AUTO, {}, False, PlainOutput),
        (OutputMode.AUTO, {"CI": "true"}, True, PlainOutput),
        (OutputMode.AUTO, {"TERM": "dumb"}, True, PlainOutput),
        (OutputMode.TTY, {"CI": "true"}, False, TerminalOutput),
        (OutputMode.JSON, {}, True, JsonOutput),
        (OutputMode.NONE, {}, True, PlainOutput),
    ],
)
def test_auto_mode_depends_on_terminal_and_environment(
    mode: OutputMode,
    environment: dict[str, str],
    is_terminal: bool,
    output_type: type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if is_terminal else io.StringIO())

    assert type(open_output(OutputOptions(mode), environment)) is output_type


def test_details_are_written_on_request() -> None:
    output, _, log, _ = plain_output()
    output.detail("nothing")
    output.is_verbose = True
    output.detail("a: status 201")

    assert open_output(OutputOptions(OutputMode.PLAIN, verbose=True)).is_verbose
    assert log.getvalue() == "a: status 201\n"


def test_json_option_selects_the_json_mode() -> None:
    assert OutputOptions(json=True).mode is OutputMode.JSON
    assert OutputOptions(OutputMode.PLAIN).mode is OutputMode.PLAIN
    assert OutputOptions(quiet=True).mode is OutputMode.NONE


@pytest.mark.parametrize("is_terminal", [True, False])
def test_terminal_output_shows_bars_and_results(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal shows both; a file receives the results only."""
    screen, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", Terminal() if is_terminal else file)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    rows = [UploadRow("one", result="completed"), UploadRow("t[b]wo"), UploadRow("three")]
    with TerminalOutput() as bars:
        for row in rows:
            bars.update(row)
        rows[0].progress = evolve(sample_snapshot(), percent=12.5)
        bars.update(rows[0])
        bars.refresh(rows[0])
        bars.message("a message")
        bars.finish(rows[0])
        bars.remove(rows[1])
        bars.remove(rows[1])
        rows[2].progress = evolve(sample_snapshot(), bytes_transferred=3, total_bytes=5)
        bars.update(rows[2])

    shown = screen.getvalue()
    assert "t[b]wo" in shown
    assert "12.5 %" in shown
    assert "all" in shown
    assert "a message" in shown
    assert ("one: completed" in shown) is is_terminal
    assert file.getvalue().startswith("one: completed") is not is_terminal


def test_total_counts_the_next_attempt_of_an_upload_once() -> None:
    screen = Terminal()
    output = TerminalOutput(console=Console(file=screen, width=100, force_terminal=True))
    first, other = UploadRow("a"), UploadRow("b", progress=sample_snapshot())
    first.progress = evolve(sample_snapshot(), state=UploadState.FAILED)
    with output:
        output.update(first)
        output.update(other)
        output.finish(first)
        progress = evolve(sample_snapshot(), attempt=2)
        output.update(UploadRow("a", progress=progress, before=first.progress))

    shown = screen.getvalue()
    assert "of 2.0 GB" in shown
    assert "of 3.0 GB" not in shown
    assert "attempt 2" in shown
