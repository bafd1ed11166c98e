"""The number of workers of a server, by its command line and environment."""

from __future__ import annotations

import sys

import pytest

from upload_progress import MemoryStore, ProgressTracker
from upload_progress._runtime.server_workers import configured_workers
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("line", "environment", "workers"),
    [
        ("uvicorn app:app --workers 4", {}, 4),
        ("/bin/uvicorn --workers=3 app:app", {}, 3),
        ("uvicorn app:app", {"WEB_CONCURRENCY": "2"}, 2),
        ("uvicorn app:app --workers 1", {"WEB_CONCURRENCY": "2"}, 1),
        ("uvicorn app:app --workers 4 --reload", {}, 1),
        ("uvicorn app:app --reload", {"WEB_CONCURRENCY": "2"}, 1),
        ("uvicorn app:app", {}, 1),
        ("uvicorn app:app --workers", {}, 1),
        ("uvicorn app:app --workers many", {"WEB_CONCURRENCY": "\u0663"}, 1),
        ("/lib/python3/site-packages/uvicorn/__main__.py app:app --workers 2", {}, 2),
        ("gunicorn -k uvicorn.workers.UvicornWorker -w 4 app:app", {}, 4),
        ("gunicorn -w4 app:app", {}, 4),
        ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "--bind=:80 --workers=3"}, 3),
        ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "'", "WEB_CONCURRENCY": "5"}, 5),
        ("uvicorn app:app", {"GUNICORN_CMD_ARGS": "--workers=3"}, 1),
        ("hypercorn app:app -w 2", {"WEB_CONCURRENCY": "9"}, 2),
        ("hypercorn app:app", {"WEB_CONCURRENCY": "9"}, 1),
        ("granian.exe --workers 2 app:app", {}, 2),
        ("granian app:app", {"GRANIAN_WORKERS": "3"}, 3),
        ("fastapi run --workers 4 app.py", {}, 4),
        ("pytest -w 4", {"WEB_CONCURRENCY": "4"}, 1),
        ("", {"WEB_CONCURRENCY": "4"}, 1),
    ],
)
def test_workers_of_a_server(line: str, environment: dict[str, str], workers: int) -> None:
    assert configured_workers(line.split(), environment) == workers


@pytest.mark.parametrize("is_shared", [False, True])
async def test_workers_that_share_nothing_are_logged_at_the_start(
    is_shared: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["uvicorn", "app:app", "--workers", "2"])
    tracker = ProgressTracker(store=FaultyStore(MemoryStore()) if is_shared else None)

    async with tracker.lifespan():
        logged = caplog.text

    assert ("the server runs 2 workers" in logged) is not is_shared
    assert ("ProgressTracker.from_url" in logged) is not is_shared
