"""Runs the demo with uvicorn; shuts down without waiting for open progress streams."""

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
from upload_progress.demo.shutdown import RunningUploads
from upload_progress.exceptions import UploadProgressError
from upload_progress.settings import Settings, TrackerOptions, settings_from_environment
from upload_progress.tracker import ProgressTracker

__all__ = ["DemoConfig", "DemoStartFailed", "serve"]

_GRACE_SECONDS: Final = 3
_KEY_FILE: Final = ".session-key"
_TEMPORARY_PREFIX: Final = "upload-progress-demo-"


class DemoStartFailed(UploadProgressError):
    """The demo cannot listen on the address or cannot write to the folder."""


@frozen
class DemoConfig:
    """Configuration of the demo, as given on the command line.

    Attributes:
        host: The address to listen on.
        port: The TCP port to listen on; 0 for a free one.
        data: The folder of received files; None for a temporary folder.
        bytes_per_second: The rate at which each upload is read; None for no limit.
        store: The URL of the session store; None for that of the environment, else the memory.
        events: The URL of the message broker; None for that of the environment, else that of the
            store.
    """

    host: str
    port: int
    data: Path | None
    bytes_per_second: int | None
    store: str | None = None
    events: str | None = None

    def create_tracker(self, settings: Settings) -> ProgressTracker:
        """Return a tracker with *settings*; the URLs of the command line win.

        Raises:
            InvalidValue: A URL or a setting is not valid.
        """
        if self.store is None and self.events is None:
            return settings.create_tracker()
        options: TrackerOptions = {"url": "memory:", **settings.tracker}
        if self.store is not None:
            options["url"] = self.store
        if self.events is not None:
            options["events"] = self.events
        return ProgressTracker.from_url(**options)


def serve(config: DemoConfig) -> None:
    """Run the demo until SIGINT or SIGTERM, with the settings of the environment.

    Args:
        config: The address, the folder and the backends.

    Raises:
        DemoStartFailed: The address is not available, or the folder cannot be written.
        InvalidValue: The URL of the store or broker has an unknown scheme, or a setting is not
            valid.
    """
    settings = settings_from_environment()
    tracker = config.create_tracker(settings)
    # aiokafka logs every failed attempt; the library itself logs a lost connection once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    listener = _listen(config.host, config.port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        stack.enter_context(_exit_on_sigterm())
        root = config.data or Path(
            stack.enter_context(TemporaryDirectory(prefix=_TEMPORARY_PREFIX))
        )
        running_uploads = RunningUploads()
        app = create_app(
            tracker,
            root=root,
            secret_key=_secret_key(root),
            bytes_per_second=config.bytes_per_second,
            running_uploads=running_uploads,
            settings=settings,
        )
        sys.stdout.write(_startup_message(config, _url(listener, config.host), tracker))
        sys.stdout.flush()
        server_config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=2 * _GRACE_SECONDS,
        )
        _Server(server_config, tracker, running_uploads).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that closes progress streams at once, and uploads after a grace period."""

    def __init__(
        self, config: uvicorn.Config, tracker: ProgressTracker, running_uploads: RunningUploads
    ) -> None:
        super().__init__(config)
        self._tracker = tracker
        self._running_uploads = running_uploads

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._tracker.drain()
        asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._running_uploads.interrupt)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        [family, *_], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {host} port {port}: {reason}. Try another --port."
        raise DemoStartFailed(message) from error


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Exit with status 0 on SIGTERM: uvicorn raises the signal again after its shutdown."""

    def handle(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _secret_key(root: Path) -> str:
    """Return the key of the session cookies; a file keeps sessions valid across restarts."""
    path = root / _KEY_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.touch(mode=0o600)
            path.write_bytes(secrets.token_bytes(32))
        return path.read_bytes().hex()
    except OSError as error:
        raise DemoStartFailed(f"cannot write to {root}: {error.strerror}.") from error


def _url(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # shown, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _startup_message(config: DemoConfig, url: str, tracker: ProgressTracker) -> str:
    rate = config.bytes_per_second
    speed = "unlimited" if rate is None else f"{format_size(rate)}/s for each upload"
    folder = config.data or "a temporary folder, removed at exit"
    return f"""\
upload-progress demo: {url}

  users   alice, bob, operator (the password is the name)
  files   {folder}
  speed   {speed}

Upload a file, and read its progress in another terminal:

  curl -u alice:alice -T FILE -H "Upload-Id: first" {url}/files/
  curl -u alice:alice {url}{tracker.config.mount_path}/first/progress

Stop with Ctrl-C.
"""
