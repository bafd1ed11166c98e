"""A site that receives uploads of two users, for tests with real servers in front of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests._support.go_programs import load_generator
from tests.conftest import RequireProgram
from upload_progress import ProgressTracker
from upload_progress.starlette import UploadProgressApp, basic, upload_progress_app

LOAD_SECONDS = 60

RunLoad = Callable[..., dict[str, Any]]


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
