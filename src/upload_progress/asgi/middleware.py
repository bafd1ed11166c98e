"""``UploadProgressMiddleware``: sees which requests carry uploads, and follows those.

Its own configuration never changes; what changes is one small object per upload. A request
is followed when it names an upload id, or when its body is announced or grows above a size.
All others pass untouched: no other scope type, no other method, no small body.
"""

from collections.abc import Collection, Mapping
from typing import Final, Protocol, runtime_checkable

from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.multi_request_upload import Transfer
from upload_progress.asgi.receive import Receive, Scope, Send
from upload_progress.asgi.tracked_request import App, TrackedRequest
from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue, MiddlewareMissing
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import (
    DEFAULT_PROTOCOLS,
    RequestHead,
    TransferHead,
    TransferProtocol,
    read_request_head,
)
from upload_progress.throttling import Meter
from upload_progress.tracker import ProgressTracker, TrackerInternals, internals_of
from upload_progress.upload import Upload

__all__ = [
    "MIN_SIZE_BYTES",
    "SCOPE_KEY",
    "UPLOAD_METHODS",
    "UploadProgressMiddleware",
    "current_upload",
]

SCOPE_KEY: Final = "upload_progress"
UPLOAD_METHODS: Final = ("POST", "PUT", "PATCH")
MIN_SIZE_BYTES: Final = 64 * 1024


class _HasScope(Protocol):
    @property
    def scope(self) -> Scope: ...


@runtime_checkable
class _HasUpload(Protocol):
    def upload(self) -> Upload: ...


class UploadProgressMiddleware:
    """Counts the body bytes of uploads as the application receives them.

    Args:
        app: The application.
        tracker: Keeps what is counted.
        authenticate: Says whose an upload is: ``Connection`` → ``Identity`` or None. An
            upload of nobody is received like any other, and shown to nobody.
        min_size_bytes: A body above this is followed even without an id.
        methods: The HTTP methods that can carry uploads.
        protocols: Those by which an upload may come in many requests; the first that knows a
            request has it. Without any, each request is an upload of its own.
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
            raise InvalidValue("authenticate", "must be callable, and say who is asking")
        self.app = app
        self._internals = internals_of(tracker)
        self._authenticate = authenticate
        self._min_size_bytes = min_size_bytes
        self._protocols = tuple(protocols)
        self._methods = frozenset(methods) | ({"DELETE"} if self._protocols else set())
        self._own_path = tracker.config.mount_path + "/"
        self._complaints = LogLimiter(tracker.config.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the application, followed or untouched."""
        carried = None
        if self._announces(scope):
            # A Mount does not answer at its own path: it would redirect this.
            scope = {**scope, "path": self._own_path}
        if scope["type"] == "http" and scope["method"] in self._methods:
            carried = self._carried(scope)
        if carried is None:
            await self.app(scope, receive, send)
        else:
            await carried.run(self.app, receive, send)

    def _announces(self, scope: Scope) -> bool:
        """Tell whether this is ``POST /uploads``, and there are routes of ours to answer it."""
        is_there = (
            scope.get("path") == self._internals.config.mount_path and self._internals.has_routes
        )
        return is_there and scope["type"] == "http" and scope["method"] == "POST"

    def _carried(self, scope: Scope) -> TrackedRequest | None:
        """Return what follows this request; None where nothing does. Never raises."""
        if SCOPE_KEY in scope or f"{scope.get('path')}/".startswith(self._own_path):
            return None
        try:
            connection = Connection(scope)
            transfer_head, protocol = self._piece(connection)
            if transfer_head is None and scope["method"] == "DELETE":
                return None
            incoming = read_request_head(connection)
            if transfer_head is not None and protocol is not None:
                carried = scope[SCOPE_KEY] = self._follow_piece(
                    scope, incoming, transfer_head, protocol
                )
                return carried
            if self._is_small(scope, incoming):
                scope[SCOPE_KEY] = _Small(self._internals)
                return None
            carried = scope[SCOPE_KEY] = self._follow(scope, incoming)
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            self._complaints.warn("reading a request head failed", error)
            scope[SCOPE_KEY] = _Small(self._internals)
            return None
        else:
            return carried

    def _piece(
        self, connection: Connection
    ) -> tuple[TransferHead, TransferProtocol] | tuple[None, None]:
        """Return what the first protocol that knows the request has read in its head."""
        for protocol in self._protocols:
            transfer_head = protocol.read_request(connection)
            if transfer_head is not None:
                return transfer_head, protocol
        return None, None

    def _follow_piece(
        self,
        scope: Scope,
        incoming: RequestHead,
        transfer_head: TransferHead,
        protocol: TransferProtocol,
    ) -> TrackedRequest:
        opened = self._internals.admission.open_transfer(
            transfer_head,
            client_id=incoming.client_id,
            is_proxied=incoming.is_proxied,
            total_bytes=transfer_head.total_bytes,
            filename=transfer_head.filename,
            content_type=None,
            group=incoming.group,
        )
        transfer = Transfer(opened, transfer_head, protocol, Meter(self._internals.config.policy))
        return TrackedRequest(
            scope,
            self._internals,
            self._authenticate,
            self._complaints,
            self._min_size_bytes,
            incoming,
            opened,
            transfer,
        )

    def _is_small(self, scope: Scope, incoming: RequestHead) -> bool:
        """Tell whether no id is named and no large body can follow."""
        if incoming.client_id is not None:
            return False
        return incoming.total_bytes is not None and incoming.total_bytes <= self._min_size_bytes

    def _follow(self, scope: Scope, incoming: RequestHead) -> TrackedRequest:
        live = self._internals.admission.open(
            client_id=incoming.client_id,
            total_bytes=incoming.total_bytes,
            filename=incoming.filename,
            content_type=incoming.content_type,
            group=incoming.group,
            is_proxied=incoming.is_proxied,
        )
        if incoming.client_id is None and incoming.total_bytes is None:
            live.meter.gate_bytes = self._min_size_bytes + 1
        return TrackedRequest(
            scope,
            self._internals,
            self._authenticate,
            self._complaints,
            self._min_size_bytes,
            incoming,
            live,
        )


class _Small:
    """Stands for an upload that is not followed: it is too small, or its head is unreadable."""

    __slots__ = ("_internals",)

    def __init__(self, internals: TrackerInternals) -> None:
        self._internals = internals

    def upload(self) -> Upload:
        """Return an upload that nobody can follow; what is done to it has no effect."""
        return Upload(self._internals.admission.open())


def current_upload(request: _HasScope | Mapping[str, object]) -> Upload:
    """Return the upload that *request* carries, for the endpoint to say what it knows of it.

    Args:
        request: A Starlette or FastAPI request, or the ASGI scope itself.

    Raises:
        MiddlewareMissing: The request did not pass ``UploadProgressMiddleware``.
    """
    scope = request if isinstance(request, Mapping) else request.scope
    carried = scope.get(SCOPE_KEY)
    if not isinstance(carried, _HasUpload):
        raise MiddlewareMissing
    return carried.upload()
