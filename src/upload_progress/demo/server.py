"""Running the demo: one uvicorn, stopped without waiting for those who only watch."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final, NoReturn

import uvicorn
from attrs import frozen

from upload_progress._runtime.sizes import format_size
from upload_progress.demo.app import create_app
from upload_progress.demo.shutdown import Stop
from upload_progress.exceptions import UploadProgressError
from upload_progress.tracker import ProgressTracker

__all__ = ["CannotServe", "Settings", "serve"]

_GRACE_SECONDS: Final = 3
_KEY_FILE: Final = ".session-key"
_PREFIX: Final = "upload-progress-demo-"


class CannotServe(UploadProgressError):
    """The address is in use or not this machine's, or the folder cannot be written."""


@frozen
class Settings:
    """What the command line says.

    Attributes:
        data: Where received files are kept; None for a temporary folder.
        slow_bytes_per_second: How fast each upload is read; None for as fast as it comes.
        store: The URL of the session store.
        events: The URL of the broker; None for the store's own.
    """

    host: str
    port: int
    data: Path | None
    slow_bytes_per_second: int | None
    store: str = "memory:"
    events: str | None = None


def serve(settings: Settings) -> None:
    """Run the demo until it is told to stop.

    Raises:
        CannotServe: The address or the folder cannot be had.
        InvalidValue: Nothing here is for such a store or broker.
    """
    tracker, stop = ProgressTracker.from_url(settings.store, events=settings.events), Stop()
    # A driver that tells of each attempt; that a line is down is said once, by the library.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    listening = _listen(settings.host, settings.port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening)
        stack.enter_context(_ending_by_exit())
        root = settings.data or Path(stack.enter_context(TemporaryDirectory(prefix=_PREFIX)))
        app = create_app(
            tracker,
            root=root,
            key=_key(root),
            slow_bytes_per_second=settings.slow_bytes_per_second,
            stop=stop,
        )
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=2 * _GRACE_SECONDS,
        )
        sys.stdout.write(_greeting(settings, _url(listening, settings.host)))
        sys.stdout.flush()
        _Server(config, tracker, stop).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Stops in order: watchers at once, uploads when their grace is over."""

    def __init__(self, config: uvicorn.Config, tracker: ProgressTracker, stop: Stop) -> None:
        super().__init__(config)
        self._tracker = tracker
        self._stop = stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._tracker.drain()
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._stop.interrupt)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        [family, *_], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {host} port {port}: {reason}. Try another --port."
        raise CannotServe(message) from error


@contextlib.contextmanager
def _ending_by_exit() -> Iterator[None]:
    """Make SIGTERM an orderly exit: uvicorn raises it again once it has stopped."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _key(root: Path) -> bytes:
    """Return what signs the cookies, kept beside the files so that a restart signs nobody out."""
    path = root / _KEY_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        return path.read_bytes()
    except OSError as error:
        raise CannotServe(f"cannot keep files in {root}: {error.strerror}.") from error


def _url(listening: socket.socket, host: str) -> str:
    port = listening.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # shown, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _greeting(settings: Settings, url: str) -> str:
    slow = settings.slow_bytes_per_second
    speed = "as fast as it comes" if slow is None else f"{format_size(slow)}/s for each upload"
    kept = settings.data or "a temporary folder, removed at the end"
    return f"""\
upload-progress demo: {url}

  users   alice, bob (the password is the name)
  files   {kept}
  speed   {speed}

Send a file, and ask from another terminal how far it is:

  curl -u alice:alice -T FILE -H "Upload-Id: first" {url}/files/
  curl -u alice:alice {url}/uploads/first/progress

Stop with Ctrl-C.
"""
