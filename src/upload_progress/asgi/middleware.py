"""``UploadProgressMiddleware``: selects the requests that carry uploads, and tracks them.

A request is tracked if it names an upload id, if a protocol of uploads in several requests reads
it, or if its body is larger than a minimum size. All others pass untouched: other scope types,
other methods, small bodies. A ``HEAD`` request is read if it has a header of a protocol in which it
asks for the offset. The middleware itself is immutable; the state of a request is in its
`TrackedRequest`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from inspect import Signature
from typing import Final, Protocol, TypeVar, runtime_checkable

from upload_progress._internals import TrackerInternals, internals_of
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.asgi.tracked_request import App, Result, TrackedRequest
from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue, MiddlewareMissing
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import (
    DEFAULT_PROTOCOLS,
    ReadsQueries,
    RequestHead,
    RequiresHeaders,
    TransferHead,
    TransferProtocol,
    read_request_head,
)
from upload_progress.tracker import ProgressTracker
from upload_progress.upload import Upload

__all__ = [
    "MIN_SIZE_BYTES",
    "SCOPE_KEY",
    "UPLOAD_METHODS",
    "UploadProgressMiddleware",
    "current_upload",
]

SCOPE_KEY: Final = "upload_progress"
"""Key of the ASGI scope under which the middleware stores the request's upload."""

UPLOAD_METHODS: Final = ("POST", "PUT", "PATCH")
MIN_SIZE_BYTES: Final = 64 * 1024
_WITHOUT_BODY: Final = frozenset({"DELETE", "HEAD"})


_current: ContextVar["_HasUpload"] = ContextVar("upload_progress.current")
"""The request of this task, and of the threads that it starts with its context."""


class _HasScope(Protocol):
    @property
    def scope(self) -> Scope: ...


@runtime_checkable
class _HasUpload(Protocol):
    def upload(self) -> Upload: ...


def _required_headers(protocol: TransferProtocol) -> frozenset[bytes] | None:
    """Return headers of which each request of *protocol* has one; None if that is not said."""
    if not isinstance(protocol, RequiresHeaders):
        return None
    return _encoded(protocol.required_headers)


def _encoded(names: Iterable[str]) -> frozenset[bytes]:
    return frozenset(name.encode("latin-1") for name in names)


class UploadProgressMiddleware:
    """ASGI middleware that tracks uploads: it counts the bytes that the application receives.

    Args:
        app: The ASGI application.
        tracker: Tracks the uploads.
        authenticate: Returns the owner of an upload: called with a ``Connection``, returns an
            ``Identity`` or None, or an awaitable of it. An upload without an owner is received as
            usual, and is visible to no one.
        min_size_bytes: Without an upload id, requests with a larger body than this are tracked;
            64 KiB by default.
        methods: HTTP methods that can carry uploads; ``POST``, ``PUT`` and ``PATCH`` by default.
        protocols: Protocols of uploads in several requests; all shipped ones by default. The
            first one that reads a request is used. If empty, each request is its own upload.

    Raises:
        InvalidValue: *authenticate* is not callable.

    Example:
        >>> from upload_progress import ProgressTracker
        >>> from upload_progress.starlette import capability
        >>> async def app(scope, receive, send): ...
        >>> tracker = ProgressTracker()
        >>> app = UploadProgressMiddleware(app, tracker=tracker, authenticate=capability())
    """

    def __init__(
        self,
        app: App,
        *,
        tracker: ProgressTracker,
        authenticate: Authenticate,
        min_size_bytes: int = MIN_SIZE_BYTES,
        methods: Collection[str] = UPLOAD_METHODS,
        protocols: Collection[TransferProtocol] = DEFAULT_PROTOCOLS,
    ) -> None:
        if not callable(authenticate):
            raise InvalidValue("authenticate", "must be a callable that returns an Identity")
        self.app = app
        self._internals = internals_of(tracker)
        self._internals.has_middleware = True
        self._authenticate = authenticate
        self._min_size_bytes = min_size_bytes
        self._protocols = tuple((each, _required_headers(each)) for each in protocols)
        self._methods = frozenset(methods) | ({"DELETE"} if self._protocols else set())
        self._query_headers = frozenset[bytes]().union(
            *(_encoded(each.query_headers) for each in protocols if isinstance(each, ReadsQueries))
        )
        self._mount_prefix = tracker.config.mount_path + "/"
        self._log_limiter = LogLimiter(tracker.config.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Result:
        """Run the application for one request, tracked or untouched; return what it returns."""
        if self._may_carry_upload(scope):
            if f"{scope.get('path')}/".startswith(self._mount_prefix):
                if self._is_announcement(scope):
                    # A Mount does not answer at its own path, but redirects to this one.
                    scope = {**scope, "path": self._mount_prefix}
            elif SCOPE_KEY not in scope:
                # The server's own scope stays as it is (ASGI 3.0, "Middleware").
                scope = {**scope}
                request = self._tracked(scope)
                return await self._run(request, scope, receive, send)
        return await self.app(scope, receive, send)

    async def _run(
        self, request: TrackedRequest | None, scope: Scope, receive: Receive, send: Send
    ) -> Result:
        """Run the application for one request that may carry an upload."""
        tracked = scope.get(SCOPE_KEY)
        token = None if tracked is None else _current.set(tracked)
        try:
            if request is None:
                return await self.app(scope, receive, send)
            return await request.run(self.app, receive, send)
        finally:
            if token is not None:
                try:  # noqa: SIM105  # for each upload: a context manager costs three calls
                    _current.reset(token)
                except ValueError:
                    pass  # closed from another context

    def _may_carry_upload(self, scope: Scope) -> bool:
        """Return whether this is an HTTP request that can belong to an upload."""
        method = scope.get("method")
        if scope.get("type") != "http" or not isinstance(method, str):
            return False
        return method in self._methods or (method == "HEAD" and self._is_query(scope))

    def _is_query(self, scope: Scope) -> bool:
        """Return whether a ``HEAD`` request has a header of a protocol that reads it.

        Headers in an iterator are not read: the request has to pass as it is.
        """
        headers = scope.get("headers")
        try:
            return isinstance(headers, (list, tuple)) and any(
                name in self._query_headers for name, _ in headers
            )
        except (TypeError, ValueError):
            return False

    def _is_announcement(self, scope: Scope) -> bool:
        """Return whether this is ``POST /uploads``, and the progress API is mounted there."""
        is_api = (
            scope.get("path") == self._internals.config.mount_path and self._internals.has_routes
        )
        return is_api and scope["method"] == "POST"

    def _tracked(self, scope: Scope) -> TrackedRequest | None:
        """Return the tracked request; None if it is not tracked. Never raises."""
        try:
            headers = scope.get("headers", ())
            if hasattr(headers, "__next__"):
                # An iterator can be read only once.
                scope["headers"] = list(headers)
            connection = Connection(scope)
            transfer_head, protocol = self._read_transfer(connection)
            if transfer_head is None and scope["method"] in _WITHOUT_BODY:
                return None
            head = read_request_head(connection)
            if transfer_head is not None and protocol is not None:
                request = self._track_transfer(scope, head, transfer_head, protocol)
            elif self._is_small(head):
                scope[SCOPE_KEY] = _UntrackedRequest(self._internals)
                return None
            else:
                request = self._track_upload(scope, head)
            scope[SCOPE_KEY] = request
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            self._log_limiter.log_warning("reading a request head failed", error)
            scope[SCOPE_KEY] = _UntrackedRequest(self._internals)
            return None
        else:
            return request

    def _read_transfer(
        self, connection: Connection
    ) -> tuple[TransferHead, TransferProtocol] | tuple[None, None]:
        """Return the transfer and its protocol, the first one that reads the request."""
        names = connection.header_names
        for protocol, required_headers in self._protocols:
            if required_headers is not None and required_headers.isdisjoint(names):
                continue
            transfer_head = protocol.read_request(connection)
            if transfer_head is not None:
                return transfer_head, protocol
        return None, None

    def _track_transfer(
        self,
        scope: Scope,
        head: RequestHead,
        transfer_head: TransferHead,
        protocol: TransferProtocol,
    ) -> TrackedRequest:
        """Track a request that carries an upload, or a part of it, by a protocol."""
        opened = self._internals.admission.open_transfer(
            transfer_head,
            protocol,
            requested_id=head.requested_id,
            is_proxied=head.is_proxied,
            total_bytes=transfer_head.total_bytes,
            filename=transfer_head.filename,
            content_type=transfer_head.content_type,
            group=head.group,
        )
        return self._request(scope, head, opened)

    def _is_small(self, head: RequestHead) -> bool:
        """Return whether the request names no id, and announces a small body."""
        if head.requested_id is not None:
            return False
        return head.total_bytes is not None and head.total_bytes <= self._min_size_bytes

    def _track_upload(self, scope: Scope, head: RequestHead) -> TrackedRequest:
        """Track a request that is an upload of its own."""
        live = self._internals.admission.open_request(head)
        if head.requested_id is None and head.total_bytes is None:
            live.meter.gate_bytes = self._min_size_bytes + 1
        return self._request(scope, head, live)

    def _request(self, scope: Scope, head: RequestHead, opened: LiveUpload) -> TrackedRequest:
        return TrackedRequest(
            scope=scope,
            internals=self._internals,
            authenticate=self._authenticate,
            log_limiter=self._log_limiter,
            min_size_bytes=self._min_size_bytes,
            head=head,
            opened=opened,
        )


class _UntrackedRequest:
    """A request whose upload is not tracked: it is too small, or its head is not readable."""

    __slots__ = ("_internals",)

    def __init__(self, internals: TrackerInternals) -> None:
        self._internals = internals

    def upload(self) -> Upload:
        """Return an upload that is not tracked; its methods have no effect."""
        return Upload(self._internals.admission.open())


_Function = TypeVar("_Function", bound=Callable[..., object])


def _dependency(function: _Function) -> _Function:
    """Let FastAPI call *function* without arguments; it takes parameters for query values."""
    vars(function)["__signature__"] = Signature()
    return function


@_dependency
def current_upload(request: _HasScope | Mapping[str, object] | None = None) -> Upload:
    """Return the upload that *request* carries, to report stages, metadata or a failure.

    Args:
        request: A request with a ``scope``, such as that of Starlette, FastAPI or Django, or the
            ASGI scope itself. None is the request that the current task or thread handles: also
            in a WSGI application behind a2wsgi or asgiref.

    Returns:
        The upload. Its methods have no effect if the request is not tracked.

    Raises:
        MiddlewareMissing: The request did not pass ``UploadProgressMiddleware``.

    Example:
        ::

            async def endpoint(request: Request) -> Response:
                upload = current_upload(request)
                async with upload.stage("scanning"):
                    await scan(await request.body())
                return Response()

        In FastAPI it is a dependency::

            from typing import Annotated

            from fastapi import Depends, FastAPI

            app = FastAPI()

            @app.put("/files/{name}")
            async def put(upload: Annotated[Upload, Depends(current_upload)]) -> None:
                upload.set(metadata={"reviewed": True})
    """
    tracked: object
    if request is None:
        tracked = _current.get(None)
    else:
        scope = request if isinstance(request, Mapping) else request.scope
        tracked = scope.get(SCOPE_KEY)
    if not isinstance(tracked, _HasUpload):
        raise MiddlewareMissing
    return tracked.upload()
