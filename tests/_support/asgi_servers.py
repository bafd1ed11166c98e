"""Runs ASGI servers for tests: each in a thread with its own event loop, on a free port.

``run_app`` yields the URL; ``run_server`` yields a ``RunningServer``, which can also call a
function on the server's loop. Both stop the server at the end of the block and block until it has
stopped: use them in synchronous tests and fixtures, or in a worker thread.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from typing import Any, Final, TypeVar

import anyio
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import frozen

from tests._support.paths import ROOT

__all__ = ["SERVERS", "RunningServer", "run_app", "run_daphne", "run_granian", "run_server"]

T = TypeVar("T")
App = Callable[..., Awaitable[object]]

SERVERS: Final = (
    ("uvicorn", "httptools"),
    ("uvicorn", "h11"),
    ("hypercorn", "h11"),
    ("hypercorn-trio", "h11"),
)
"""Servers and HTTP parsers that ``run_app`` supports."""

GRACE_SECONDS: Final = 2
STOP_SECONDS: Final = 20.0
WATCHDOG_SECONDS: Final = 300.0


@frozen
class RunningServer:
    """A server that accepts connections.

    Attributes:
        url: Its URL, without a trailing slash.
    """

    url: str
    _portal: BlockingPortal
    _stop: Callable[[], object]
    _finished: Future[None]

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run *function* on the server's event loop and return what it returns."""
        return self._portal.call(function, *arguments)

    def run(self, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Run a coroutine function on the server's event loop and return what it returns."""
        return self._portal.call(function, *arguments)

    def stop(self) -> None:
        """Stop the server as a signal would, and wait until it has stopped."""
        if not self._finished.done():
            self._portal.call(self._stop)
        try:
            self._finished.result(timeout=STOP_SECONDS)
        finally:
            # Ends a server that hangs; no effect on one that has stopped.
            self._finished.cancel()


@contextmanager
def run_app(
    app: App,
    server: str = "uvicorn",
    http: str = "httptools",
    **options: Any,  # noqa: ANN401  # settings of several servers
) -> Iterator[str]:
    """Serve *app* while the block runs; yield the base URL.

    Args:
        app: An ASGI application.
        server: ``uvicorn``, ``hypercorn`` or ``hypercorn-trio``.
        http: For uvicorn, ``httptools`` or ``h11``.
        options: Further settings of that server.
    """
    with run_server(app, server, http, **options) as running:
        yield running.url


@contextmanager
def run_server(
    app: App,
    server: str = "uvicorn",
    http: str = "httptools",
    **options: Any,  # noqa: ANN401  # settings of several servers
) -> Iterator[RunningServer]:
    """Serve *app* while the block runs; yield the server. For the arguments, see ``run_app``."""
    backend = "trio" if server == "hypercorn-trio" else "asyncio"
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = "http://{}:{}".format(*listener.getsockname())
        with start_blocking_portal(backend) as portal:
            if server == "uvicorn":
                running = _start_uvicorn(app, listener, url, portal, {"http": http, **options})
            else:
                running = _start_hypercorn(
                    app, listener, url, portal, options | {"backend": backend}
                )
            try:
                yield running
            finally:
                running.stop()


def _start_uvicorn(
    app: App, listener: socket.socket, url: str, portal: BlockingPortal, options: dict[str, Any]
) -> RunningServer:
    settings = {"log_config": None, "timeout_graceful_shutdown": GRACE_SECONDS, **options}
    server = uvicorn.Server(uvicorn.Config(app, **settings))

    def stop() -> None:
        server.should_exit = True

    async def started() -> None:
        with anyio.fail_after(STOP_SECONDS):
            while not server.started and not finished.done():  # noqa: ASYNC110  # uvicorn has no event
                await anyio.sleep(0.005)

    finished = portal.start_task_soon(server.serve, [listener])
    portal.call(started)
    return RunningServer(url, portal, stop, finished)


def _start_hypercorn(
    app: App,
    listener: socket.socket,
    url: str,
    portal: BlockingPortal,
    options: dict[str, Any],
) -> RunningServer:
    serving = hypercorn.trio if options.pop("backend") == "trio" else hypercorn.asyncio
    config = hypercorn.config.Config.from_mapping(
        bind=[f"fd://{listener.detach()}"],
        graceful_timeout=GRACE_SECONDS,
        shutdown_timeout=GRACE_SECONDS,
        errorlog=None,
        **options,
    )
    stopping: anyio.Event = portal.call(anyio.Event)

    async def serve() -> None:
        await serving.serve(app, config, shutdown_trigger=stopping.wait)

    finished = portal.start_task_soon(serve)
    return RunningServer(url, portal, stopping.set, finished)


@contextmanager
def run_granian(target: str, *options: str) -> Iterator[str]:
    """Serve the application *target* with granian, in a child process; yield the base URL.

    In the process of the tests, its threads would outlive the interpreter, which then aborts.

    Args:
        target: ``module:name``, relative to the root of the project.
        options: Further options of granian's command line.
    """
    host, port = _free_address()
    command = ["granian", "--interface", "asgi", "--no-log", "--no-ws", "--host", host]
    with _run_command([*command, "--port", str(port), *options, target], host, port) as url:
        yield url


@contextmanager
def run_daphne(target: str) -> Iterator[str]:
    """Serve the application *target* with daphne, in a child process; yield the base URL.

    Twisted can run only once in a process. Daphne does not support the lifespan protocol.

    Args:
        target: ``module:name``, relative to the root of the project.
    """
    host, port = _free_address()
    command = ["daphne", "--verbosity", "0", "--bind", host, "--port", str(port), target]
    with _run_command(command, host, port) as url:
        yield url


def _free_address() -> tuple[str, int]:
    """Return an address that was free a moment ago, for servers that cannot use an open socket."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        host, port = listener.getsockname()
    return host, port


@contextmanager
def _run_command(command: list[str], host: str, port: int) -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT) as process:
        # Kills a process that hangs, so that only this test fails.
        watchdog = threading.Timer(WATCHDOG_SECONDS, process.kill)
        watchdog.start()
        try:
            while not _accepts(host, port):
                assert process.poll() is None, "the server did not start"
                time.sleep(0.02)
            yield f"http://{host}:{port}"
        finally:
            process.terminate()
            process.wait()
            watchdog.cancel()


def _accepts(host: str, port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex((host, port)) == 0
