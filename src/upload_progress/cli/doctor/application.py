"""``doctor module:app``: checks an application that this process runs, without a proxy.

Uvicorn serves the application on a free port of this machine, with its lifespan. What the package
logs meanwhile are mistakes of the integration with their fix, so they are findings as well.
"""

import logging
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
import uvicorn
from anyio import to_thread

from upload_progress.cli.doctor.report import Report
from upload_progress.cli.process import beside
from upload_progress.exceptions import InvalidValue

__all__ = ["captured_warnings", "import_app", "served"]

_GRACE_SECONDS: Final = 1
_POLL_SECONDS: Final = 0.005
_LOGGER: Final = logging.getLogger("upload_progress")

_App = Callable[..., Awaitable[object]]


def import_app(target: str) -> _App:
    """Return the application that ``module:app`` names; modules are found from the current folder.

    Raises:
        InvalidValue: The module cannot be imported, or has no such application.
    """
    module_name, _, name = target.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        problem = f"cannot be imported: {type(error).__name__}: {error}"
        raise InvalidValue(target, problem) from error
    if not callable(found):
        raise InvalidValue(target, f"is a {type(found).__name__}, not an ASGI application")
    app: _App = found
    return app


@asynccontextmanager
async def served(app: _App) -> AsyncGenerator[str]:
    """Serve *app* while the block runs; yield its URL.

    Raises:
        InvalidValue: The start-up of the application failed.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS)
        )
        ended = anyio.Event()

        def run() -> None:
            with suppress(SystemExit):  # raised by uvicorn if the start-up fails
                server.run([listener])

        async def serve() -> None:
            # In a thread, where it handles no signals: these end the command.
            await to_thread.run_sync(run)
            ended.set()

        async with beside(serve):
            try:
                while not (server.started or ended.is_set()):  # noqa: ASYNC110  # uvicorn has no event
                    await anyio.sleep(_POLL_SECONDS)
                if server.started:
                    yield "http://{}:{}".format(*listener.getsockname())
            finally:
                # The end of the block waits for the thread.
                server.should_exit = True
        if not server.started:
            raise InvalidValue("application", "failed to start; its log contains the reason")


@contextmanager
def captured_warnings(report: Report) -> Iterator[None]:
    """Report the warnings that the package logs while the block runs."""
    handler = _ReportingHandler(report)
    _LOGGER.addHandler(handler)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)


class _ReportingHandler(logging.Handler):
    def __init__(self, report: Report) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report.warning(record.getMessage())
