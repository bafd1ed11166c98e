"""``uvicorn --workers``, ``gunicorn --preload``: every worker reports the uploads of the others."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator

import httpx2
import pytest

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests._support.server_processes import ServerProcess, free_port, new_folder, responds_to
from upload_progress._model.codec import decode_progress

MAX_REQUESTS = 2000


APP = "tests.servers.worker_app:create_app"
COMMANDS = {
    "uvicorn": f"uvicorn {APP} --factory --workers 2 --port %d --timeout-graceful-shutdown 1",
    # The tracker is created in a process that forks the workers.
    "gunicorn": f"gunicorn {APP}() --preload -w 2 -k uvicorn_worker.UvicornWorker "
    "-b 127.0.0.1:%d --graceful-timeout 1",
}


@pytest.fixture(params=list(COMMANDS))
def url(
    request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("STORE_URL", redis_url)
    command = COMMANDS[str(request.param)] % free_port()
    with run_python_server("-m", *command.split(), cwd=ROOT) as url:
        yield url


def is_complete(answer: httpx2.Response) -> bool:
    """Tell whether *answer* is the snapshot of an upload whose bytes are all received."""
    return answer.status_code == 200 and decode_progress(answer.content).percent == 100


def test_both_workers_report_an_upload(url: str) -> None:
    upload_id = secrets.token_urlsafe(16)
    # They log that they run before their first worker accepts connections.
    with httpx2.Client(transport=httpx2.HTTPTransport(retries=8), timeout=30) as client:
        headers = {"Upload-Id": upload_id}
        response = client.put(f"{url}/files/f", content=bytes(1000), headers=headers)
    assert response.headers["upload-id"] == upload_id
    receiver = response.text.split()[-1]

    # The worker that accepts a connection first serves it.
    answered = set[str]()
    requests = 0
    while len(answered) < 2 and requests < MAX_REQUESTS:
        requests += 1
        with httpx2.Client(base_url=url, timeout=30) as client:
            worker = client.get("/worker").text
            answer = client.get(f"/uploads/{upload_id}/progress")
            answered |= {worker} if is_complete(answer) else set()

    assert receiver in answered
    assert len(answered) == 2


@pytest.mark.parametrize(
    ("options", "warnings"), [(["--workers", "2"], 2), (["--workers", "1"], 0), (["--reload"], 0)]
)
def test_workers_with_a_memory_store_say_so_at_the_start(options: list[str], warnings: int) -> None:
    """Each worker, once; a single worker needs no other store, and neither does its reloader."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/statistics"
    command = ["-m", "uvicorn", "tests.servers.upload_app:app", "--port", str(port), *options]
    server = ServerProcess(
        name="uvicorn",
        url=url,
        port=port,
        folder=new_folder("uvicorn"),
        command=[sys.executable, *command],
        environment={"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        is_ready=lambda: (
            responds_to(port, b"GET /statistics HTTP/1.1\r\nHost: x\r\n\r\n")
            and server.log.read_text().count("Application startup complete") >= max(warnings, 1)
        ),
    )
    try:
        server.start()
        log = server.log.read_text()
    finally:
        server.stop()

    assert log.count("the server runs 2 workers") == warnings
