"""``uvicorn --workers``: whichever worker a request comes to, it knows what the others receive."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx2
import pytest

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests._support.server_processes import free_port
from upload_progress._model.codec import decode_progress

LOOKS = 2000


@pytest.fixture
def url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("STORE_URL", redis_url)
    port = str(free_port())
    options = ("--factory", "--workers", "2", "--port", port, "--timeout-graceful-shutdown", "1")
    with run_python_server(
        "-m", "uvicorn", "tests.servers.worker_app:create_app", *options, cwd=ROOT
    ) as url:
        yield url


def is_whole(answer: httpx2.Response) -> bool:
    """Return whether it tells of an upload all of which is there."""
    return answer.status_code == 200 and decode_progress(answer.content).percent == 100


def test_both_workers_know_it(url: str) -> None:
    upload_id = secrets.token_urlsafe(16)
    # It says that it runs before the first of its workers listens.
    with httpx2.Client(transport=httpx2.HTTPTransport(retries=8), timeout=30) as patient:
        headers = {"Upload-Id": upload_id}
        sent = patient.put(f"{url}/files/f", content=bytes(1000), headers=headers)
    assert sent.headers["upload-id"] == upload_id
    receiver = sent.text.split()[-1]

    # Each line leads to one worker, whichever takes it first.
    answered = set[str]()
    looks = 0
    while len(answered) < 2 and looks < LOOKS:
        looks += 1
        with httpx2.Client(base_url=url, timeout=30) as line:
            worker = line.get("/worker").text
            answer = line.get(f"/uploads/{upload_id}/progress")
            answered |= {worker} if is_whole(answer) else set()

    assert receiver in answered
    assert len(answered) == 2
