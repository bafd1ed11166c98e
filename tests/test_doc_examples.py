"""The code in the documentation runs: the tutorial, the blocks of the other pages, docstrings."""

from __future__ import annotations

import doctest
import inspect
import json
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import anyio
import httpx2
import pytest
from attrs import define, evolve, field
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tests._support.child_process import run_python_server
from tests._support.doc_examples import (
    Example,
    docstring_examples,
    fenced_examples,
    modules,
    run_example,
)
from tests._support.paths import ROOT
from tests.conftest import RequireProgram
from upload_progress import MemoryStore, ProgressTracker
from upload_progress.backends import MemoryPublisher

pytestmark = pytest.mark.anyio

TUTORIAL = ROOT / "docs/tutorial.md"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {TUTORIAL})]
}
PUBLIC = ["", ".asgi", ".client", ".interfaces", ".openapi", ".protocols", ".starlette"]
NAMES = {
    name: getattr(module, name)
    for module in [import_module(f"upload_progress{package}") for package in PUBLIC]
    for name in dir(module)
    if not name.startswith("_")
}

MODULES = [module for module in modules() if ">>> " in inspect.getsource(module)]

# --- the tutorial, from top to bottom -------------------------------------------------------------

BLOCK = re.compile(
    r'^```(python|console)(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
COMMAND_SECONDS = 60
# "sleep 1" in the tutorial waits until the upload in the background has begun. On a terminal, each
# response begins on a new line.
SHELL = f"""
python() {{ {shlex.quote(sys.executable)} "$@"; }}
curl() {{ command curl "$@"; echo; }}
sleep() {{
    until command curl -sf -u alice:wonderland http://127.0.0.1:8000/uploads/progress |
        grep -q '"state":"receiving"'
    do command sleep 0.05; done
}}
"""
END = "kill $(jobs -p) 2> /dev/null; wait"


@define
class Tutorial:
    """Follows the tutorial in an empty folder."""

    folder: Path
    bash: str
    servers: ExitStack
    url: str = field(default="")

    def follow(self, language: str, title: str, text: str) -> None:
        """Append a block of Python to its file, start a server, or run a console session."""
        if language == "python":
            with (self.folder / title).open("a", encoding="utf-8") as file:
                file.write(self.with_address(text))
        elif text.startswith("$ uvicorn "):
            self.start(*text.split()[1:])
        else:
            self.run(text)

    def with_address(self, text: str) -> str:
        """Return *text* with the address of the running server."""
        return text.replace("http://127.0.0.1:8000", self.url)

    def start(self, *command: str) -> None:
        """Stop the server that is running, and start a new one."""
        self.servers.close()
        module = ("-m", *command, "--port", "0")
        self.url = self.servers.enter_context(run_python_server(*module, cwd=self.folder))

    def run(self, text: str) -> None:
        """Run the commands of a console session, and compare their output."""
        lines = text.splitlines()
        commands = [line[2:] for line in lines if line.startswith("$ ")]
        expected = [line for line in lines if not line.startswith("$ ")]
        finished = subprocess.run(
            [self.bash, "-c", self.with_address("\n".join([SHELL, *commands, END]))],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        output = f"{finished.stdout}\n---\n{finished.stderr}"
        assert matches("\n".join(expected), finished.stdout), output


def matches(expected: str, output: str) -> bool:
    """Return whether *output* is *expected*, in which ``…`` stands for any text."""
    parts = [re.escape(part) for part in without_empty_lines(expected).split("…")]
    return re.fullmatch(".*".join(parts), without_empty_lines(output), re.DOTALL) is not None


def without_empty_lines(text: str) -> str:
    """Return the lines of *text* that are not empty."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def test_tutorial_runs_from_top_to_bottom(tmp_path: Path, require_program: RequireProgram) -> None:
    require_program("curl", install="install curl with your system's package manager")
    bash = require_program("bash", install="install bash with your system's package manager")
    blocks = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))

    with ExitStack() as servers:
        tutorial = Tutorial(tmp_path, bash, servers)
        for block in blocks:
            tutorial.follow(*block)

    assert {language for language, _, _ in blocks} == {"python", "console"}


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a…c", "abc\n", True),
        ("a…c", "ab", False),
        ("a.c", "abc", False),
        ("a\n…\nb", "a\n1\nb", True),
    ],
)
def test_output_is_compared(expected: str, output: str, same: bool) -> None:
    assert matches(expected, output) is same


# --- the blocks of the other pages, and docstrings ------------------------------------------------

SERVER = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from upload_progress import MemoryStore, ProgressTracker
from upload_progress.backends import MemoryPublisher
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.starlette import basic, bearer, first_of, progress_mount

tracker = ProgressTracker()
authenticate = first_of(
    bearer(lambda token: "ann" if token == "secret" else None),
    basic(lambda name, password: password == "secret"),
)

async def receive(request):
    return PlainTextResponse(f"{len(await request.body())} bytes")

app = Starlette(
    routes=[
        progress_mount(tracker, authenticate=authenticate),
        Route("/files/{name}", receive, methods=["PUT"]),
    ],
    middleware=[Middleware(UploadProgressMiddleware, tracker=tracker, authenticate=authenticate)],
    lifespan=tracker.lifespan,
)
"""
SENT = "0123456789abcdef"
EXAMPLE_SECONDS, ENDLESS_SECONDS = 10, 0.2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server that takes files, and knows one upload that has ended."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "app.py").write_text(SERVER, encoding="utf-8")
    with run_python_server("-m", "uvicorn", "app:app", "--port", "0", cwd=folder) as url:
        headers = {"Upload-Id": SENT, "Authorization": "Bearer secret"}
        httpx2.put(f"{url}/files/a", content=b"abc", headers=headers).raise_for_status()
        yield url


@asynccontextmanager
async def context_of(url: str) -> AsyncIterator[dict[str, object]]:
    """Yield the names that examples use without defining them."""

    async def scan(_part: bytes) -> None:
        """Do the work of an application."""

    async with AsyncExitStack() as stack:
        tracker = ProgressTracker()
        await stack.enter_async_context(tracker.lifespan())
        upload = await stack.enter_async_context(tracker.track(owner="ann", upload_id=SENT))
        yield {
            **NAMES,
            "Middleware": Middleware,
            "Mount": Mount,
            "Path": Path,
            "Request": Request,
            "Response": Response,
            "Route": Route,
            "Starlette": Starlette,
            "asynccontextmanager": asynccontextmanager,
            "current_upload": lambda _request: upload,
            "request": None,
            "anyio": anyio,
            "json": json,
            "parts": [b"one", b"two"],
            "scan": scan,
            "store": MemoryStore(),
            "subscriber": MemoryPublisher(),
            "MyPublisher": MemoryPublisher,
            "AsyncConnectionPool": AsyncConnectionPool,
            "context": ssl.create_default_context(),
            "tracker": tracker,
            "upload": upload,
            "upload_id": SENT,
            "token": "secret",
            "tokens": {"secret": "ann"},
            "check_password": lambda _name, password: password == "secret",
            "password": "secret",
            "url": url,
        }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the examples in a folder that contains the file that they send."""
    (tmp_path / "app.tar.gz").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
async def test_page_runs_from_top_to_bottom(page: str, server: str) -> None:
    async with context_of(server) as context:
        for example in fenced_examples(page, with_server(PAGES[page], server)):
            await run_example(example, context)


@pytest.mark.parametrize("example", docstring_examples(), ids=str)
async def test_docstring_example_runs(example: Example, server: str) -> None:
    example = evolve(example, code=with_server(example.code, server))
    # Those that connect to a database or broker are only compiled.
    connects = re.search(r"await.*\"(postgresql|redis|amqp|kafka)://", example.code)

    # Those that receive events do not end by themselves.
    is_endless = "async for event in" in example.code

    with anyio.move_on_after(ENDLESS_SECONDS if is_endless else EXAMPLE_SECONDS) as scope:
        async with context_of(server) as context:
            await run_example(example, context, compile_only=connects is not None)

    assert scope.cancelled_caught is is_endless


def with_server(text: str, url: str) -> str:
    """Return *text* with the address of the running server in place of that of the examples."""
    return re.sub(r"https://(host|server\.example|uploads\.example)\b", url, text)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_doctests_pass(module: ModuleType) -> None:
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)

    assert results.attempted > 0
    assert results.failed == 0


async def test_failing_example_fails(server: str) -> None:
    example = Example("page:1", "await scan(b'1')\nraise LookupError(upload_id)")

    async with context_of(server) as context:
        assert context["current_upload"] is not None
        with pytest.raises(LookupError, match=SENT):
            await run_example(example, context)
