"""A site that receives uploads of two users, for tests with real servers in front of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from attrs import define, field, frozen
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests._support.asgi_servers import RunningServer, run_server
from tests._support.go_programs import load_generator
from tests._support.server_factories import centrifugo, pushpin
from tests._support.server_processes import ServerProcess, free_port
from tests.conftest import RequireProgram
from upload_progress import ProgressTracker
from upload_progress.connection import Connection
from upload_progress.edge import Centrifugo, GripProxy
from upload_progress.identity import Identity
from upload_progress.starlette import UploadProgressApp, basic, upload_progress_app

LOAD_SECONDS = 60
API_KEY = "an-api-key"
GRIP_KEY = "0123456789abcdef0123456789abcdef"
HOLD_SECONDS = 3

RunLoad = Callable[..., dict[str, Any]]


@contextmanager
def client(url: str, user: str = "") -> Iterator[httpx2.Client]:
    auth = (user, user) if user else None
    with httpx2.Client(base_url=url, auth=auth, timeout=10, trust_env=False) as http:
        yield http


def announce(url: str, user: str, **options: Any) -> str:  # noqa: ANN401  # JSON
    with client(url, user) as http:
        response = http.post("/uploads", json={"total_bytes": 4, **options})
    upload_id: str = response.raise_for_status().json()["upload_id"]
    return upload_id


def put(url: str, user: str, upload_id: str) -> None:
    with client(url, user) as http:
        headers = {"upload-id": upload_id}
        http.put("/files/one", content=b"data", headers=headers).raise_for_status()


async def _receive(request: Request) -> PlainTextResponse:
    async for _chunk in request.stream():
        pass
    status = 507 if request.path_params["place"] == "full" else 201
    return PlainTextResponse("", status_code=status)


def make_site(tracker: ProgressTracker, **options: Any) -> UploadProgressApp:  # noqa: ANN401  # options of the application
    """Return an application that receives files; the password of each user is the name."""
    site = Starlette(routes=[Route("/{place}/{name}", _receive, methods=["PUT"])])
    authenticate = options.pop("authenticate", basic(lambda name, password: name == password))
    return upload_progress_app(site, authenticate=authenticate, tracker=tracker, **options)


@define
class Users:
    """The users of a site; the password of each is the name."""

    allowed: set[str] = field(factory=lambda: {"alice", "bob", "probe", "root"})

    def authenticate(self, connection: Connection) -> object:
        def check(name: str, password: str) -> Identity | None:
            is_allowed = name == password and name in self.allowed
            return Identity(name, is_operator=name == "root") if is_allowed else None

        return basic(check)(connection)


@frozen
class PushpinSite:
    """A site behind Pushpin."""

    users: Users
    tracker: ProgressTracker
    server: RunningServer
    pushpin: ServerProcess

    @property
    def url(self) -> str:
        """The address of Pushpin."""
        return self.pushpin.url


@pytest.fixture
def pushpin_site(require_program: RequireProgram) -> Iterator[PushpinSite]:
    with run_pushpin_site(require_program) as site:
        yield site


@pytest.fixture
def short_holds(require_program: RequireProgram) -> Iterator[PushpinSite]:
    """The same, with streams that are closed after up to ``HOLD_SECONDS``."""
    with run_pushpin_site(require_program, hold_seconds=HOLD_SECONDS) as site:
        yield site


@contextmanager
def run_pushpin_site(find: RequireProgram, *, hold_seconds: int = 60) -> Iterator[PushpinSite]:
    """Run a site and Pushpin in front of it while the block runs."""
    control_port, users = free_port(), Users()
    proxy = GripProxy(f"http://127.0.0.1:{control_port}", key=GRIP_KEY, hold_seconds=hold_seconds)
    tracker = ProgressTracker(edge=proxy)
    site = make_site(tracker, authenticate=users.authenticate)
    with run_server(site) as server:
        app_port = int(server.url.rpartition(":")[2])
        ports = {"app_port": app_port, "control_port": control_port}
        process = pushpin(find, **ports, key=GRIP_KEY, probe="/uploads/progress")
        try:
            yield PushpinSite(users, tracker, server, process.start())
        finally:
            process.stop()


@frozen
class CentrifugoSite:
    """A site whose watchers connect to Centrifugo."""

    users: Users
    tracker: ProgressTracker
    edge: Centrifugo
    server: RunningServer
    centrifugo: ServerProcess

    @property
    def url(self) -> str:
        """The address of the site."""
        return self.server.url


@pytest.fixture
def centrifugo_site(require_program: RequireProgram) -> Iterator[CentrifugoSite]:
    with run_centrifugo_site(require_program) as site:
        yield site


@contextmanager
def run_centrifugo_site(
    find: RequireProgram, *, revalidate_seconds: float = 60
) -> Iterator[CentrifugoSite]:
    """Run a site and Centrifugo while the block runs."""
    process = centrifugo(find, api_key=API_KEY, token_key=GRIP_KEY)
    edge = Centrifugo(process.url, api_key=API_KEY, token_key=GRIP_KEY, public_url=process.url)
    users, tracker = Users(), ProgressTracker(edge=edge)
    site = make_site(
        tracker, authenticate=users.authenticate, revalidate_seconds=revalidate_seconds
    )
    with run_server(site) as server:
        try:
            yield CentrifugoSite(users, tracker, edge, server, process.start())
        finally:
            process.stop()


@pytest.fixture(scope="session")
def load_program(require_program: RequireProgram) -> Path:
    return load_generator(require_program)


@pytest.fixture
def run_load(load_program: Path) -> RunLoad:
    """Return a function that runs the load generator, and returns its report."""

    def run(*arguments: str, expected_code: int = 0) -> dict[str, Any]:
        command = [str(load_program), "-user=alice:alice", "-user=bob:bob", *arguments]
        result = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=LOAD_SECONDS
        )
        assert result.returncode == expected_code, result.stdout + result.stderr
        report: dict[str, Any] = json.loads(result.stdout or "{}")
        return {**report, "stderr": result.stderr}

    return run
