"""The page of an example: a task queue that loses a task."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import RECORD, row_states
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests.browser.conftest import Users

EXAMPLES = ROOT / "examples"
WORKER = ("--app", "celery_app.queue", "worker", "--pool=solo", "--without-mingle")


@contextmanager
def running_queue() -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of Celery, which runs its tasks itself."""
    command = [sys.executable, "-m", "celery", *WORKER, "--loglevel=ERROR"]
    with subprocess.Popen(command, cwd=EXAMPLES) as process:
        try:
            yield process
        finally:
            process.kill()


def open_page(users: Users, url: str) -> Page:
    """Open the page of an example as Alice."""
    credentials = {"username": "alice", "password": "alice"}
    page = users.page(users.context(http_credentials=credentials))
    page.goto(url)
    page.wait_for_selector("upload-progress[data-connection=websocket]", state="attached")
    return page


def upload(page: Page, folder: Path, size: int) -> None:
    path = folder / "large.bin"
    path.write_bytes(os.urandom(size))
    page.get_by_label("Files").set_input_files(path)


def test_task_that_is_killed_fails_and_is_completed_by_the_next_attempt(
    users: Users, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page does not send the file again, which the server has."""
    monkeypatch.setenv("REDIS_URL", f"{redis_url.rpartition('/')[0]}/8")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("SECONDS_PER_BLOCK", "0.6")
    monkeypatch.setenv("LEASE_SECONDS", "1.5")
    monkeypatch.setenv("VISIBILITY_SECONDS", "1")
    with (
        running_queue() as killed,
        run_python_server("celery_app.py", "--port", "0", cwd=EXAMPLES) as url,
    ):
        page = open_page(users, url)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.method))
        row = page.locator("upload-progress li")
        # So the page follows only its own uploads.
        page.evaluate("document.querySelector('upload-progress').removeAttribute('all')")

        page.evaluate(RECORD, "large.bin")

        upload(page, tmp_path, 4 * 1024 * 1024)
        expect(row).to_contain_text(re.compile(r"Scanning.*\d%"))
        killed.kill()
        expect(row).to_contain_text("The server stopped before it had finished.")
        with running_queue():
            expect(row).to_have_attribute("data-state", "completed")

    states = [each["state"] for each in row_states(page)]
    assert "processing" in states[states.index("failed") :]
    assert requests.count("PUT") == 1
