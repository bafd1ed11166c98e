"""The load generator of benchmarks/load checks what watchers see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._support.asgi_servers import run_app
from tests._support.go_programs import load_generator
from tests.conftest import RequireProgram, program_path
from tests.edge.conftest import RunLoad, make_site
from upload_progress import ProgressTracker

SMALL = ("-uploads=4", "-watchers=40", "-size=60000", "-rate=100000", "-timeout=20s")


def test_every_watcher_of_two_users_sees_the_end(run_load: RunLoad) -> None:
    with run_app(make_site(ProgressTracker())) as url:
        report = run_load(f"-server={url}", "-websockets=10", "-pids=1", *SMALL)

    assert report["ok"], report
    assert report["uploads_accepted"] == 4
    assert report["watchers_opened"] == report["ends_seen"] == report["connections"] == 40
    # The first one, at least one on the way, and the end.
    assert report["snapshots"] >= 3 * 40
    assert report["end_latency_ms"]["max"] < 5000
    assert report["resident_bytes_at"] == ["before", "held", "sent", "after"]


def test_a_refused_upload_and_its_watchers_are_reported(run_load: RunLoad) -> None:
    with run_app(make_site(ProgressTracker())) as url:
        report = run_load(f"-server={url}", "-files=/full/", *SMALL, expected_code=1)

    assert report["uploads_accepted"] == 0
    assert report["ends_seen"] == 40
    assert any("ends as failed" in problem for problem in report["problems"])


def test_watchers_without_a_right_are_reported(run_load: RunLoad) -> None:
    with (
        run_app(make_site(ProgressTracker())) as url,
        run_app(make_site(ProgressTracker())) as other,
    ):
        report = run_load(f"-server={url}", f"-watch={other}", *SMALL, expected_code=1)

    assert report["refused"] == {"404": 40}
    assert report["ends_seen"] == 0


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("-server=http://192.0.2.1:80", "only http://127.0.0.1:PORT is allowed"),
        ("-watch=http://localhost:80", "only http://127.0.0.1:PORT is allowed"),
        ("-watchers=100001", "-watchers: must be 1 to 100000"),
        ("-timeout=11m", "-timeout: must be at most 10m0s"),
    ],
)
def test_other_addresses_and_unbounded_numbers_are_refused(
    run_load: RunLoad, argument: str, problem: str
) -> None:
    assert problem in run_load(argument, expected_code=2)["stderr"]


def test_the_program_is_built_once(tmp_path: Path, require_program: RequireProgram) -> None:
    calls: list[str] = []

    def find(name: str, *, install: str) -> str:
        calls.append(name)
        return require_program(name, install=install)

    first = load_generator(find, tmp_path / "cache")

    assert load_generator(find, tmp_path / "cache") == first
    assert first.stat().st_size > 1_000_000
    assert calls == ["go"]


def test_an_old_go_is_refused_with_a_hint(tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.19.8\n")
    old.chmod(0o755)

    def find(name: str, *, install: str) -> str:
        return str(old) if name == "go" else program_path(name, install=install, required=True)

    with pytest.raises(pytest.fail.Exception, match=r"go of version 1\.23.*Go 1\.23 or newer"):
        load_generator(find, tmp_path / "cache")
