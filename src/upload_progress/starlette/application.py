"""``upload_progress_app``: middleware, routes and lifespan around any ASGI application."""

from collections.abc import Collection, Iterable
from typing import Any

import anyio
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upload_progress._internals import internals_of
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.asgi.middleware import MIN_SIZE_BYTES, UPLOAD_METHODS
from upload_progress.asgi.tracked_request import Result
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol
from upload_progress.starlette.routes import REVALIDATE_SECONDS, STREAM_LIFE_SECONDS, progress_mount
from upload_progress.tracker import ProgressTracker

__all__ = ["UploadProgressApp", "upload_progress_app"]


def upload_progress_app(
    app: ASGIApp,
    *,
    authenticate: Authenticate,
    store: str = "memory:",
    tracker: ProgressTracker | None = None,
    mount_path: str = "/uploads",
    root_path: str = "",
    allowed_origins: Iterable[str] = (),
    min_size_bytes: int = MIN_SIZE_BYTES,
    methods: Collection[str] = UPLOAD_METHODS,
    protocols: Collection[TransferProtocol] = DEFAULT_PROTOCOLS,
    revalidate_seconds: float = REVALIDATE_SECONDS,
    stream_life_seconds: float = STREAM_LIFE_SECONDS,
) -> "UploadProgressApp":
    """Return *app* with upload progress: its uploads are tracked, and shown under *mount_path*.

    Example:
        ::

            site = Starlette()
            app = upload_progress_app(site, authenticate=capability())
            tracker = app.tracker

        *app* is an application of FastAPI, Starlette, Litestar, Quart, Django or any other ASGI
        framework. Its own lifespan runs inside that of the tracker.

    Args:
        app: The ASGI application.
        authenticate: Returns the owner of an upload, and the user who asks for progress: called
            with a ``Connection``, returns an ``Identity``, the name of the owner, or None; plain
            or async.
        store: Where uploads are shared between workers: see ``ProgressTracker.from_url``.
        tracker: A tracker with settings of its own, instead of *store*, *mount_path* and
            *root_path*.
        mount_path: The path of the progress API in this application.
        root_path: The prefix under which clients reach this application: that of a proxy which
            removes it, or of a ``Mount``. Links in snapshots begin with it.
        allowed_origins: See ``progress_routes``.
        min_size_bytes: See ``UploadProgressMiddleware``.
        methods: See ``UploadProgressMiddleware``.
        protocols: See ``UploadProgressMiddleware``.
        revalidate_seconds: See ``progress_routes``.
        stream_life_seconds: See ``progress_routes``.

    Raises:
        InvalidValue: An argument is not valid.
    """
    if tracker is None:
        prefix = root_path.rstrip("/")
        tracker = ProgressTracker.from_url(store, mount_path=prefix + mount_path)
    else:
        mount_path = tracker.config.mount_path.removeprefix(root_path.rstrip("/"))
    if not mount_path.startswith("/"):
        raise InvalidValue("mount_path", "must begin with a slash")
    middleware = UploadProgressMiddleware(
        app,
        tracker=tracker,
        authenticate=authenticate,
        min_size_bytes=min_size_bytes,
        methods=methods,
        protocols=protocols,
    )
    mount = progress_mount(
        tracker,
        authenticate=authenticate,
        allowed_origins=allowed_origins,
        revalidate_seconds=revalidate_seconds,
        stream_life_seconds=stream_life_seconds,
    )
    return UploadProgressApp(app, middleware, Router([mount]), tracker, mount_path)


class UploadProgressApp:
    """An ASGI application with upload progress, see ``upload_progress_app``.

    Attributes:
        app: The application inside. Other attributes than those named here are its own, so that
            ``app.state`` or ``app.get`` still work.
        tracker: The tracker, to follow and cancel uploads from Python.
    """

    def __init__(
        self,
        app: ASGIApp,
        middleware: UploadProgressMiddleware,
        routes: Router,
        tracker: ProgressTracker,
        mount_path: str,
    ) -> None:
        self.app = app
        self.tracker = tracker
        self._middleware = middleware
        self._routes = routes
        self._mount_path = mount_path
        self._log_limiter = internals_of(tracker).log_limiter

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # any attribute of the application
        """Return an attribute of the application inside."""
        if name == "app":  # not set yet, as in a copy
            raise AttributeError(name)
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Result:
        """Answer requests for progress; pass all others to the application, and track uploads."""
        if scope.get("type") == "lifespan":
            await self._run_lifespan(scope, receive, send)
            return None
        path = self._path_below_mount(scope)
        if path is None:
            return await self._middleware(scope, receive, send)
        self._check_root_path(scope)
        external = self.tracker.config.mount_path
        own = {**scope, "path": external + path, "root_path": ""}
        own.pop("raw_path", None)
        await self._routes(own, receive, send)
        return None

    def _path_below_mount(self, scope: Scope) -> str | None:
        """Return the path relative to the mount; None if this is no request for progress."""
        path, root_path = scope.get("path"), scope.get("root_path") or ""
        if scope.get("type") not in {"http", "websocket"} or not isinstance(path, str):
            return None
        # With a root path, some servers pass the whole path, and others what follows it.
        candidates = (path, path.removeprefix(root_path)) if root_path else (path,)
        for each in candidates:
            for mount_path in (self._mount_path, self.tracker.config.mount_path):
                if f"{each}/".startswith(f"{mount_path}/"):
                    return each.removeprefix(mount_path)
        return None

    def _check_root_path(self, scope: Scope) -> None:
        root_path, external = scope.get("root_path") or "", self.tracker.config.mount_path
        if not f"{external}/".startswith(f"{root_path}/"):
            self._log_limiter.log_warning(
                f"clients reach this application under {root_path!r}, but links begin with "
                f"{external!r}: set upload_progress_app(root_path={root_path!r})",
                effect="links in snapshots lead nowhere",
                topic="mount path",
            )

    # Lifespan

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the application inside that of the tracker."""
        lifespan = _LifespanRun(self.tracker, receive, send)
        async with anyio.create_task_group() as tasks:
            await tasks.start(lifespan.run_tracker)
            try:
                await lifespan.run(self.app, scope)
            finally:
                lifespan.stop()


class _LifespanRun:
    """One run of both lifespans: the tracker starts first and stops last.

    The tracker runs in a task of its own, as the application may send its messages from any task.
    """

    def __init__(self, tracker: ProgressTracker, receive: Receive, send: Send) -> None:
        self._tracker = tracker
        self._receive = receive
        self._send = send
        self._is_received = False
        self._last_sent = ""
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()

    async def run_tracker(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run the tracker until ``stop``."""
        async with self._tracker.lifespan():
            task_status.started()
            await self._stopping.wait()
        self._stopped.set()

    def stop(self) -> None:
        """Stop the tracker."""
        self._stopping.set()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the lifespan of *app*, or only that of the tracker if *app* has none."""
        try:
            await app(scope, self._receive_for_app, self._send_for_app)
        except Exception:
            if self._last_sent:
                raise
        if not self._last_sent:
            await self._run_alone()

    async def _run_alone(self) -> None:
        """Answer the server: the application does not support lifespan."""
        if not self._is_received:
            await self._receive()
        await self._send({"type": "lifespan.startup.complete"})
        await self._receive()
        await self._send_for_app({"type": "lifespan.shutdown.complete"})

    async def _receive_for_app(self) -> Message:
        message = await self._receive()
        self._is_received = True
        return message

    async def _send_for_app(self, message: Message) -> None:
        self._last_sent = message["type"]
        if message["type"].startswith("lifespan.shutdown"):
            # The server may exit as soon as it gets this message.
            self.stop()
            await self._stopped.wait()
        await self._send(message)
