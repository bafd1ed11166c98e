"""``upload-progress top`` with the demo as its server, in which ``operator`` sees all uploads."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import pytest
from attrs import evolve
from rich.console import Console

from tests._support.demo_process import COMMAND, DEADLINE_SECONDS, DemoProcess, running_demo
from tests._support.record_strategies import snapshot_of
from tests._support.records import record
from upload_progress import UploadPage, UploadProgress, UploadState
from upload_progress._model.fold import sum_of
from upload_progress.cli.options import ConnectionOptions, SortKey
from upload_progress.cli.top import top
from upload_progress.cli.top.table import sorted_uploads, table_of

OPERATOR = "operator:operator"


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProcess]:
    with running_demo() as demo:
        for user in ("alice", "bob"):
            answer = httpx2.post(
                f"{demo.url}/uploads",
                auth=(user, user),
                json={"filename": f"{user}.bin", "total_bytes": 100},
            )
            assert answer.status_code == 201
        yield demo


def run(demo: DemoProcess, user: str, *options: str) -> str:
    """Return what the command prints."""
    environment = {**os.environ, "UPLOAD_PROGRESS_BASIC": user, "COLUMNS": "120"}
    done = subprocess.run(
        [*COMMAND, "top", demo.url, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        env=environment,
    )
    return done.stdout


def test_table_is_printed_once_without_a_terminal(demo: DemoProcess) -> None:
    lines = run(demo, OPERATOR, "--sort", "owner").splitlines()

    assert lines[0].split() == [
        *("OWNER", "NAME", "STATE", "PERCENT", "RECEIVED", "SPEED", "LEFT", "AGE"),
    ]
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["alice", "alice.bin", "pending"],
        ["bob", "bob.bin", "pending"],
    ]
    assert lines[3].strip() == "2 uploads, 0 B received"


def test_json_has_one_snapshot_on_a_line(demo: DemoProcess) -> None:
    shown = [json.loads(line) for line in run(demo, OPERATOR, "--json", "--sort=name").splitlines()]

    assert [each["owner"] for each in shown] == ["alice", "bob"]
    assert "bob.bin" not in run(demo, OPERATOR, "--owner", "alice")
    paused = run(demo, OPERATOR, "--state", "paused").splitlines()
    assert paused[-1].strip() == "0 uploads, 0 B received"


def test_other_users_see_their_own_uploads(demo: DemoProcess) -> None:
    shown = [json.loads(line) for line in run(demo, "bob:bob", "--json").splitlines()]

    assert [each["filename"] for each in shown] == ["bob.bin"]
    assert "owner" not in shown[0]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_table_is_live_on_a_terminal(
    demo: DemoProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLOAD_PROGRESS_BASIC", OPERATOR)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=6, markup=False)

    async def show() -> None:
        await top(
            demo.url,
            "*",
            (),
            SortKey.OWNER,
            ConnectionOptions(),
            seconds=0.05,
            is_once=False,
            as_json=False,
            console=console,
        )

    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(show)
            while screen.getvalue().count("alice.bin") < 3:  # noqa: ASYNC110  # text has no event
                await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()

    assert "bob.bin" in screen.getvalue()


def upload(owner: str, name: str, **changes: Any) -> UploadProgress:  # noqa: ANN401  # any field
    """Return an upload of *owner* that began at second 0."""
    progress = snapshot_of(record(name, state=UploadState.RECEIVING))
    return evolve(progress, owner=owner, **changes)


UPLOADS = (
    upload("ann", "a", percent=10.0, bytes_per_second=1000.0, bytes_transferred=10),
    upload("bob", "b", percent=None, bytes_per_second=None, eta_seconds=None, stalled=True),
    upload(
        "bob", "c", percent=90.0, bytes_per_second=2000.0, eta_seconds=70.0, filename="\x1b[31mc"
    ),
)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (SortKey.SPEED, "cab"),
        (SortKey.PERCENT, "cab"),
        (SortKey.RECEIVED, "abc"),
        (SortKey.AGE, "abc"),
        (SortKey.OWNER, "acb"),
        (SortKey.NAME, "cab"),
        (SortKey.STATE, "abc"),
    ],
)
def test_rows_are_sorted(sort: SortKey, expected: str) -> None:
    assert "".join(each.upload_id for each in sorted_uploads(UPLOADS[::-1], sort)) == expected


def test_rows_that_do_not_fit_are_counted() -> None:
    console = Console(file=io.StringIO(), width=120)
    page = UploadPage(UPLOADS, sum_of(UPLOADS))
    with console.capture() as capture:
        now = UPLOADS[0].created_at.timestamp() + 75
        console.print(table_of(page, SortKey.SPEED, now=now, max_rows=2))
    lines = capture.get().splitlines()

    assert lines[1].split() == [
        *("bob", "?[31mc", "receiving", "90.0", "%", "0", "B"),
        *("2.0", "kB/s", "1", "min", "10", "s", "1", "min", "15", "s"),
    ]
    assert lines[-1].strip() == "3 uploads, 10 B received, 3.0 kB/s, 1 stalled, 1 not shown"
