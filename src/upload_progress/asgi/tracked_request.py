"""One request that carries an upload, from its head to the end of its response.

Three things run beside the request or after it: an ``authenticate`` that has to be awaited, the
grace period of a cancelled transfer, and storing the end of the upload. They run in background
tasks of the tracker. So the call ends when the application returns, whatever is slow.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVarTuple

import anyio
from attrs import define, field

from upload_progress._internals import TrackerInternals
from upload_progress._model.models import truncate_text
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking import outcomes
from upload_progress._tracking.live_upload import FAILURE_MESSAGE_CHARACTERS, LiveUpload
from upload_progress._tracking.requests.transfer import Transfer, TransferPhase
from upload_progress.asgi.authentication import UploadAuthentication
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.asgi.responses import (
    DIAGNOSIS_HEADER,
    cancelled_response,
    is_http1,
    may_have_reason,
    message_type,
    reason_in,
    response_headers,
    send_while_discarding,
    with_listed_headers,
)
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import FORM_PREFIX_BYTES, MAX_BODY_BYTES, RequestHead, TransferKind
from upload_progress.protocols.request_head import search_form
from upload_progress.throttling import NEVER
from upload_progress.upload import Upload

__all__ = ["CANCEL_GRACE_SECONDS", "App", "Result", "TrackedRequest"]

Arguments = TypeVarTuple("Arguments")

Result = Any
"""What an application returns. Servers ignore it, and expect None (ASGI 3.0, "Applications")."""
App = Callable[[Scope, Receive, Send], Awaitable[Result]]

CANCEL_GRACE_SECONDS: Final = 1.0
"""How long the application may take to end a cancelled request, before its task is cancelled."""

_FIRST_ERROR: Final = 400
_BODY_TYPES: Final = frozenset(
    {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}
)


@define(eq=False, repr=False, kw_only=True)
class TrackedRequest:
    """Tracks one request. Its own failures are logged and do not affect the request.

    Attributes:
        scope: The ASGI scope of the request.
        internals: The parts of the tracker.
        authenticate: Returns the owner of a connection.
        log_limiter: Logs failures.
        min_size_bytes: An upload without a given id is tracked if it is larger than this.
        head: What the request announces about its upload.
        opened: The upload that was opened for this request.
    """

    scope: Scope
    internals: TrackerInternals
    authenticate: Authenticate
    log_limiter: LogLimiter
    min_size_bytes: int
    head: RequestHead
    opened: LiveUpload
    _status: int | None = field(default=None, init=False)
    _has_begun: bool = field(default=False, init=False)
    _form_prefix: bytes = field(default=b"", init=False)
    _form_position: int = field(default=0, init=False)
    _is_cancelled: bool = field(default=False, init=False)
    _has_more_body: bool = field(default=True, init=False)
    _is_over: bool = field(default=False, init=False)
    _error_body: bytes | None = field(default=None, init=False)
    _transfer: Transfer = field(init=False)
    _authentication: UploadAuthentication = field(init=False)
    _cancel_scope: anyio.CancelScope = field(init=False)

    @_transfer.default
    def _opening_transfer(self) -> Transfer:
        return self.opened.opened_by

    @_authentication.default
    def _make_authentication(self) -> UploadAuthentication:
        return UploadAuthentication(
            self.internals, self.opened, self.authenticate, self.log_limiter, self._report_end
        )

    @_cancel_scope.default
    def _make_cancel_scope(self) -> anyio.CancelScope:
        return self.internals.tasks.cancel_scope()

    def __repr__(self) -> str:
        """Show the upload only, as the scope contains secrets."""
        return f"<TrackedRequest {self.live!r}>"

    def upload(self) -> Upload:
        """Return the upload, as the endpoint uses it."""
        return Upload(self.opened)

    @property
    def live(self) -> LiveUpload:
        """The upload. Another one than ``opened`` if this request turned out to be part of it."""
        return self.opened.merged_into or self.opened

    # The run of a request

    async def run(self, app: App, receive: Receive, send: Send) -> Result:
        """Run *app* for this request and record the progress and end of the upload.

        Returns:
            What *app* returns.
        """
        self._transfer.on_cancel = self._cancel
        self._transfer.wait_for_owner = self._authentication.wait
        counted = counting(
            receive,
            self._transfer.meter,
            on_first=self._on_first,
            on_gate=self._on_gate,
            on_last=self._on_last,
            on_error=self._log_failure,
        )
        try:
            result = await self._run(app, counted, partial(self._send, send))
            if self._is_cancelled and self._status is None:
                await self._send_cancelled_response(receive, send)
            return result
        finally:
            self._transfer.on_cancel = None
            self._is_over = True
            if not self.internals.tasks.is_running:
                self._safely(self._report_end)

    async def _run(self, app: App, receive: Receive, send: Send) -> Result:
        if self._begins_with_head():
            self._safely(self._begin)
        try:
            with self._cancel_scope:
                return await self._call(app, receive, send)
        except RuntimeError as error:
            if isinstance(error.__context__, GeneratorExit):
                # The coroutine was closed by another task than the one that entered the scope.
                raise error.__context__ from None
            raise
        return None  # cancelled by the owner

    def _report_end(self) -> None:
        """Store what is due at the end of the request, if the tracker's lifespan does not."""
        if self._is_over and self.live.is_tracked and not self.internals.tasks.is_running:
            self.internals.tasks.start(self.internals.background.run_once)

    async def _call(self, app: App, receive: Receive, send: Send) -> Result:
        try:
            result = await app(self.scope, receive, send)
        except Exception:
            self._safely(self._record_exception)
            if not self._is_cancelled or self._status is not None:
                raise
            return None
        except BaseException as error:
            self._safely(self._record_interruption, error)
            raise
        else:
            if self._transfer.phase is not TransferPhase.ENDED:
                self._safely(self._on_response_end)
            return result

    def _record_exception(self) -> None:
        outcomes.app_raised(self.live, self._transfer)

    def _record_interruption(self, error: BaseException) -> None:
        """Record that the application was cancelled or closed, or that it raised *error*."""
        # A coroutine may be closed outside of an event loop, which has the other exception.
        is_closed = isinstance(error, GeneratorExit)
        if is_closed or isinstance(error, anyio.get_cancelled_exc_class()):
            outcomes.app_cancelled(self.live, self._transfer)
        else:
            self._record_exception()

    def _begins_with_head(self) -> bool:
        """Return whether the head suffices to track the request; else its size decides."""
        head = self._transfer.head
        if head is not None:
            needs_response = head.kind in {TransferKind.CREATE, TransferKind.QUERY}
            return head.carries_bytes or not needs_response
        total = self.head.total_bytes
        return self.head.requested_id is not None or (
            total is not None and total > self.min_size_bytes
        )

    def _is_large(self, size_bytes: int) -> bool:
        return size_bytes > self.min_size_bytes

    def _safely(self, step: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            self._log_failure(error)

    def _log_failure(self, error: Exception) -> None:
        self.log_limiter.log_warning("tracking an upload failed", error)

    # Messages from the server

    def _begin(self) -> None:
        self._has_begun = True
        self.live.begin(self._transfer)
        self.internals.background.work_while_receiving()
        self._authenticate()

    def _authenticate(self) -> None:
        if self._has_begun and not self._authentication.has_identity:
            self._authentication.attempt(Connection(self.scope))

    def _on_first(self, message: Message) -> bool:
        """Authenticate again, as inner middleware has run by now; search a form for a file name."""
        self._authenticate()
        return self.head.is_form and self._needs_filename() and self._search_form(message)

    def _needs_filename(self) -> bool:
        """Return whether the name in a form is better: there is none, or only that of the path."""
        live = self.live
        return live.filename is None or (live.has_path_name and "filename" not in live.set_by_app)

    def _search_form(self, message: Message) -> bool:
        """Search the first bytes of a form for a file name; return whether to search more.

        Each header of a part is read once, however small the messages and how many the parts are.
        """
        known = len(self._form_prefix)
        self._form_prefix += message.get("body", b"")[: FORM_PREFIX_BYTES - known]
        is_whole = len(self._form_prefix) == FORM_PREFIX_BYTES or not message.get("more_body")
        ends_header = b"\r\n\r\n" in self._form_prefix[max(0, known - 3) :]
        if ends_header or is_whole:
            name, self._form_position = search_form(
                self._form_prefix, self._form_position, is_whole=is_whole
            )
            if name is not None:
                self.live.filename, self.live.has_path_name = name, False
        needs_more = self._needs_filename() and not is_whole
        if not needs_more:
            self._form_prefix = b""
        return needs_more

    def _on_gate(self, message: Message) -> Message:
        if self._is_cancelled:
            return {"type": "http.disconnect"}
        if not self._has_begun and self._is_large(self._transfer.meter.received_bytes):
            self._begin()
        if self.live.is_tracked:
            self.internals.background.work_while_receiving()
        else:
            self._transfer.meter.gate_bytes = NEVER
        self.live.check_due(self._transfer)
        return message

    def _on_last(self, message: Message) -> Message:
        self._has_more_body = False
        kind = message.get("type")
        if kind == "http.request":
            if self._is_cancelled:
                return {"type": "http.disconnect"}
            self._transfer.meter.received_bytes += len(message.get("body", b""))
            if not self._has_begun and self._is_large(self._transfer.meter.received_bytes):
                self._begin()
            self.live.end_body(self._transfer)
        elif kind == "http.disconnect":
            outcomes.client_disconnected(self.live, self._transfer)
        return message

    # Messages from the application

    async def _send(self, send: Send, message: Message) -> None:
        kind = message_type(message)
        if kind == "http.response.start":
            message = with_listed_headers(message)
            if self._transfer.head is not None:
                self._safely(self._read_response, message)
            self._authenticate()
            if self._authentication.pending is not None:
                await self._authentication.wait_briefly()
        if self._is_cancelled:
            # Without its end, a response that has begun tells the client that it failed.
            return
        if kind == "http.response.start":
            self.live.begin_response(self._transfer)
            message = self._with_upload_headers(message)
        elif kind in _BODY_TYPES:
            if self._transfer.reads_body:
                self._safely(self._read_body, message)
            if self._error_body is not None:
                self._safely(self._read_error, message)
            is_over = self._transfer.phase is TransferPhase.ENDED
            if not (is_over or message.get("more_body", False)):
                self._safely(self._on_response_end)
        await send(message)

    def _read_response(self, message: Message) -> None:
        """Pass the response to the transfer: it may contain the address of the upload."""
        status, headers = int(message["status"]), response_headers(message)
        is_created = outcomes.read_response(self.live, self._transfer, status, headers)
        self._has_begun = self._has_begun or is_created

    def _read_body(self, message: Message) -> None:
        self._transfer.read_body(bytes(message.get("body", b"")))

    def _read_error(self, message: Message) -> None:
        """Read the reason for an error, which the client may not get if it still sends."""
        content = (self._error_body or b"") + bytes(message.get("body", b""))
        self._error_body = content[:MAX_BODY_BYTES]
        if not message.get("more_body", False):
            reason = reason_in(self._error_body)
            if reason is not None:
                self._transfer.reason = truncate_text(reason, FAILURE_MESSAGE_CHARACTERS)

    def _with_upload_headers(self, message: Message) -> Message:
        """Return ``http.response.start`` with the headers ``Upload-Id`` and ``Link``."""
        try:
            self._status, live = int(message["status"]), self.live
            may_explain = self._status >= _FIRST_ERROR and may_have_reason(message)
            self._error_body = b"" if may_explain else None
            if not live.is_tracked:
                return self._with_reason(message)
            live.id_is_sent, upload_id = True, live.upload_id
            link = f'<{self.internals.config.mount_path}/{upload_id}/progress>; rel="status"'
            added = [(b"upload-id", upload_id.encode()), (b"link", link.encode("latin-1"))]
            return {**message, "headers": [*message.get("headers", ()), *added]}
        except Exception as error:  # noqa: BLE001  # our failure must not affect the upload
            self._log_failure(error)
            return message

    def _with_reason(self, message: Message) -> Message:
        """Return ``http.response.start``, if asked with the reason why this is not tracked."""
        if Connection(self.scope).header(DIAGNOSIS_HEADER) is None:
            return message
        reason = b"limit" if self._authentication.has_identity else b"no-identity"
        added = (DIAGNOSIS_HEADER.encode(), reason)
        return {**message, "headers": [*message.get("headers", ()), added]}

    def _on_response_end(self) -> None:
        if self._status is None:
            outcomes.app_raised(self.live, self._transfer)
        else:
            outcomes.finish(self.live, self._status, self._transfer)

    # Cancellation

    def _cancel(self) -> None:
        """End the transfer: ``receive()`` returns a disconnect; after the grace period, cancel."""
        self._is_cancelled = True
        self._transfer.meter.gate_bytes = 0
        self.internals.tasks.start(self._cancel_after_grace)

    async def _cancel_after_grace(self) -> None:
        await anyio.sleep(CANCEL_GRACE_SECONDS)
        self._cancel_scope.cancel()

    async def _send_cancelled_response(self, receive: Receive, send: Send) -> None:
        start, body = cancelled_response(self.scope, self.opened.protocol)
        try:
            await send(self._with_upload_headers(start))
            if self._has_more_body:
                await send_while_discarding(body, receive, send, holds=is_http1(self.scope))
            else:
                await send(body)
        except OSError:
            return  # the client has disconnected
