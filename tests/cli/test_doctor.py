"""``doctor``: the problem it finds exists, and the configuration it prints fixes it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests._support.asgi_servers import run_app
from tests._support.demo_process import COMMAND, DEADLINE_SECONDS
from tests.asgi.test_behind_nginx import LOCATIONS, nginx, run_behind_nginx
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.cli import doctor
from upload_progress.cli.doctor import ProxyProblem, hints
from upload_progress.cli.options import ConnectionOptions
from upload_progress.exceptions import UnexpectedResponse, UploadRejected
from upload_progress.starlette import capability, progress_mount

__all__ = ["nginx"]

BUFFERING = LOCATIONS.replace("proxy_request_buffering off", "proxy_request_buffering on")


def diagnosis(url: str) -> tuple[int, str]:
    finished = subprocess.run(
        [*COMMAND, "doctor", f"{url}/files/"],
        check=False,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
    )
    assert finished.stderr == ""
    return finished.returncode, finished.stdout


def test_buffering_nginx_is_found_and_fixed_by_the_printed_line(
    nginx: str,  # the fixture, by its name
    tmp_path: Path,
) -> None:
    with run_behind_nginx(nginx, tmp_path, BUFFERING) as url:
        code, found = diagnosis(url)
    hint = re.search(r"^  nginx +(.*)$", found, re.MULTILINE)
    assert hint
    with run_behind_nginx(nginx, tmp_path, _fixed(hint[1])) as url:
        fixed_code, fixed = diagnosis(url)

    assert (code, fixed_code) == (1, 0)
    assert re.search(r"^upload +BUFFERED: 524\.3 kB were sent", found, re.MULTILINE)
    assert re.search(r"^event stream +passes", found, re.MULTILINE)
    assert re.search(r"^WebSocket +passes", found, re.MULTILINE)
    assert re.search(r"^upload +passes", fixed, re.MULTILINE)
    assert re.search(r"^clock +the server is 0\.\d s", fixed, re.MULTILINE)
    assert re.search(r"^latency +\d+ ms", fixed, re.MULTILINE)


def _fixed(lines: str) -> str:
    """Return the configuration with the printed lines in place of the ones they replace."""
    name = lines.partition(" ")[0]
    kept = [line for line in BUFFERING.splitlines() if name not in line]
    first = kept.index(next(line for line in kept if "proxy_http_version" in line))
    kept[first] = lines
    return "\n".join(kept)


async def receive(request: Request) -> Response:
    size = sum([len(chunk) async for chunk in request.stream()])
    return PlainTextResponse(f"{size}")


async def reject(_request: Request) -> Response:
    return PlainTextResponse("No room.", 507)


App = Callable[..., Any]


class Proxy:
    """A proxy that forwards neither event streams nor WebSockets."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # as ASGI has it
        if scope["type"] == "websocket":
            scope = {**scope, "path": "/nowhere"}
        elif (b"accept", b"text/event-stream") in scope.get("headers", ()):
            await anyio.sleep_forever()
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    tracker = ProgressTracker()
    authenticate = capability()
    app = Starlette(
        routes=[
            Route("/files/{name}", receive, methods=["PUT"]),
            Route("/full/{name}", reject, methods=["PUT"]),
            progress_mount(tracker, authenticate=authenticate),
        ],
        middleware=[
            Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)
        ],
        lifespan=tracker.lifespan,
    )
    with run_app(Proxy(app)) as url:
        yield url


def diagnose_in_thread(url: str) -> int:
    """Run in a thread of its own: a task that is cancelled in this one would lose its tracer."""
    with start_blocking_portal() as portal:
        return portal.start_task_soon(doctor.diagnose, url, ConnectionOptions(retries=0)).result(
            timeout=2 * DEADLINE_SECONDS
        )


def test_blocked_streams_and_websockets_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 1.0)

    assert diagnose_in_thread(f"{url}/files/") == 1

    output = capsys.readouterr().out
    assert re.search(r"^event stream +BUFFERED", output, re.MULTILINE)
    assert re.search(r"^WebSocket +BLOCKED: ", output, re.MULTILINE)
    assert "flush_interval -1" in output
    assert "$http_upgrade" in output


def test_url_that_rejects_uploads_is_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 1.0)

    with pytest.raises(UploadRejected, match="507"):
        diagnose_in_thread(f"{url}/full/")


def test_server_that_does_not_track_uploads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 0.5)
    tracker = ProgressTracker()
    mount = progress_mount(tracker, authenticate=capability())
    app = Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"]), mount])

    with run_app(app) as url, pytest.raises(UnexpectedResponse, match="lacks UploadProgressM"):
        diagnose_in_thread(f"{url}/files/")


def test_error_without_a_message_is_shown_by_its_type() -> None:
    assert doctor.error_reason(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("problem", ProxyProblem)
def test_every_problem_has_a_hint_for_every_proxy(problem: ProxyProblem) -> None:
    assert [line.split()[0] for line in hints(problem)] == ["nginx", "Caddy", "Traefik", "Apache"]
