"""``doctor``: what it says is wrong is wrong, and what it prints mends it."""

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
from tests.asgi.test_behind_nginx import LOCATIONS, nginx, proxied
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.cli import doctor
from upload_progress.cli.doctor import Fault, mends_of
from upload_progress.cli.options import Reach
from upload_progress.exceptions import UnexpectedAnswer, UploadRejected
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


def test_a_buffering_nginx_is_found_and_the_line_printed_mends_it(
    nginx: str,  # the fixture, by its name
    tmp_path: Path,
) -> None:
    with proxied(nginx, tmp_path, BUFFERING) as url:
        code, found = diagnosis(url)
    hint = re.search(r"^  nginx +(.*)$", found, re.MULTILINE)
    assert hint
    with proxied(nginx, tmp_path, _mended(hint[1])) as url:
        mended_code, mended = diagnosis(url)

    assert (code, mended_code) == (1, 0)
    assert re.search(r"^upload +HELD BACK: 524\.3 kB were sent", found, re.MULTILINE)
    assert re.search(r"^event stream +passes", found, re.MULTILINE)
    assert re.search(r"^WebSocket +passes", found, re.MULTILINE)
    assert re.search(r"^upload +passes", mended, re.MULTILINE)
    assert re.search(r"^clock +the server's is 0\.\d s", mended, re.MULTILINE)
    assert re.search(r"^latency +\d+ ms", mended, re.MULTILINE)


def _mended(lines: str) -> str:
    """Return the configuration with the doctor's lines instead of those that they are about."""
    name = lines.partition(" ")[0]
    kept = [line for line in BUFFERING.splitlines() if name not in line]
    first = kept.index(next(line for line in kept if "proxy_http_version" in line))
    kept[first] = lines
    return "\n".join(kept)


async def receive(request: Request) -> Response:
    size = sum([len(transfer_head) async for transfer_head in request.stream()])
    return PlainTextResponse(f"{size}")


async def refuse(_request: Request) -> Response:
    return PlainTextResponse("No room.", 507)


App = Callable[..., Any]


class Proxy:
    """Stands before an application, and lets no stream and no socket through."""

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
    who = capability()
    app = Starlette(
        routes=[
            Route("/files/{name}", receive, methods=["PUT"]),
            Route("/full/{name}", refuse, methods=["PUT"]),
            progress_mount(tracker, authenticate=who),
        ],
        middleware=[Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=who)],
        lifespan=tracker.lifespan,
    )
    with run_app(Proxy(app)) as url:
        yield url


def examined(url: str) -> int:
    """Examine in a thread of its own: what is cancelled there takes no tracer along."""
    with start_blocking_portal() as portal:
        return portal.start_task_soon(doctor.examine, url, Reach(retries=0)).result(
            timeout=2 * DEADLINE_SECONDS
        )


def test_streams_and_sockets_that_do_not_pass_are_found(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_SECONDS", 1.0)

    assert examined(f"{url}/files/") == 1

    said = capsys.readouterr().out
    assert re.search(r"^event stream +HELD BACK", said, re.MULTILINE)
    assert re.search(r"^WebSocket +DOES NOT PASS: ", said, re.MULTILINE)
    assert "flush_interval -1" in said
    assert "$http_upgrade" in said


def test_an_address_that_takes_no_uploads_is_said(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_SECONDS", 1.0)

    with pytest.raises(UploadRejected, match="507"):
        examined(f"{url}/full/")


def test_a_server_that_follows_no_uploads_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_SECONDS", 0.5)
    tracker = ProgressTracker()
    mount = progress_mount(tracker, authenticate=capability())
    app = Starlette(routes=[Route("/files/{name}", receive, methods=["PUT"]), mount])

    with run_app(app) as url, pytest.raises(UnexpectedAnswer, match="lacks UploadProgressM"):
        examined(f"{url}/files/")


def test_a_failure_that_has_no_words_has_a_name() -> None:
    assert doctor.told(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("fault", Fault)
def test_there_is_a_mend_for_every_fault_and_proxy(fault: Fault) -> None:
    assert [line.split()[0] for line in mends_of(fault)] == ["nginx", "Caddy", "Traefik", "Apache"]
