"""One request that carries an upload: the small mutable object behind the middleware.

What must run beside the request (an ``authenticate`` that takes its time, the patience with a
transfer that is to be cut) runs in the tracker's background. Where ``lifespan`` is not entered,
the request is host to it itself, and nothing of it outlives the request.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.multi_request_upload import Transfer
from upload_progress.asgi.authentication import UploadAuthentication
from upload_progress.asgi.receive import Message, Receive, Scope, Send, counting
from upload_progress.asgi.responses import cancelled_response, kind_of, response_headers
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate
from upload_progress.protocols import (
    FORM_PREFIX_BYTES,
    RequestHead,
    TransferKind,
    form_filename,
)
from upload_progress.throttling import NEVER
from upload_progress.tracker import TrackerInternals
from upload_progress.upload import Upload

__all__ = [
    "CUT_SECONDS",
    "App",
    "TrackedRequest",
]

App = Callable[[Scope, Receive, Send], Awaitable[None]]

CUT_SECONDS: Final = 1.0

_BODIES: Final = frozenset(
    {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}
)


@define(eq=False, repr=False)
class TrackedRequest:
    """Follows one request from its head to its answer; whatever fails here stays here."""

    scope: Scope
    internals: TrackerInternals
    authenticate: Authenticate
    log_limiter: LogLimiter
    min_size_bytes: int
    incoming: RequestHead
    opened: LiveUpload
    transfer: Transfer | None = None
    _status: int | None = field(default=None, init=False)
    _is_begun: bool = field(default=False, init=False)
    _form_start: bytes = field(default=b"", init=False)
    _is_cut: bool = field(default=False, init=False)
    _asking: UploadAuthentication = field(init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _cut_scope: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _inner_send: Send = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make ready to ask whose it is."""
        self._asking = UploadAuthentication(
            self.internals, self.opened, self.authenticate, self.log_limiter, self._spawn
        )

    def __repr__(self) -> str:
        """Name the upload; the scope holds secrets."""
        return f"<TrackedRequest {self.live!r}>"

    def upload(self) -> Upload:
        """Return what the endpoint holds of it."""
        return Upload(self.opened)

    @property
    def live(self) -> LiveUpload:
        """The upload: another one, once it is known that this request is a piece of that."""
        return self.opened.merged_into or self.opened

    @property
    def _told(self) -> LiveUpload | Transfer:
        """What is told of the request's life: the whole upload, or the strand that it is."""
        return self.transfer or self.opened

    # The run of a request

    async def run(self, app: App, receive: Receive, send: Send) -> None:
        """Call *app*, and see what becomes of the upload."""
        self._inner_send = send
        self._told.on_cancel = self._cut
        counted = counting(
            receive,
            self._told.meter,
            first=self._first,
            gate=self._gate,
            last=self._last,
            failed=self._failed,
        )
        run = self._run if self.internals.tasks.is_running else self._run_as_host
        try:
            await run(app, counted)
            if self._is_cut and self._status is None:
                await self._answer_cut()
        finally:
            self._told.on_cancel = None
            if self.live.is_tracked:
                await self.internals.background.run_once()

    async def _run(self, app: App, receive: Receive) -> None:
        if self._begins_at_once():
            self._safely(self._begin)
        with self._cut_scope:
            await self._call(app, receive)

    async def _run_as_host(self, app: App, receive: Receive) -> None:
        """Run the application in this task, so that its errors come out as they are."""
        failure: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                await self._run(app, receive)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001  # raised again, outside of the group
                failure = error
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _spawn(self, work: Callable[[], Coroutine[object, object, None]]) -> bool:
        if self._tasks is None:
            return self.internals.tasks.spawn(work)
        self._tasks.start_soon(work)
        return True

    async def _call(self, app: App, receive: Receive) -> None:
        try:
            await app(self.scope, receive, self._send)
        except anyio.get_cancelled_exc_class():
            self._safely(self._told.app_cancelled)
            raise
        except Exception:
            self._safely(self._told.app_raised)
            if not self._is_cut or self._status is not None:
                raise
        except BaseException:
            self._safely(self._told.app_raised)
            raise
        else:
            self._safely(self._answered)

    def _begins_at_once(self) -> bool:
        if self.transfer is not None:
            transfer_head = self.transfer.head
            return transfer_head.carries_bytes or transfer_head.kind is not TransferKind.CREATE
        return self.incoming.client_id is not None or self._is_large(self.incoming.total_bytes or 0)

    def _is_large(self, size_bytes: int) -> bool:
        return size_bytes > self.min_size_bytes

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.log_limiter.warn("following an upload failed", error)

    # What comes in

    def _begin(self) -> None:
        self._is_begun = True
        self._told.begin()
        self._ask()

    def _ask(self) -> None:
        if self._is_begun:
            self._asking.ask(Connection(self.scope))

    def _first(self, message: Message) -> bool:
        """Look at the first message; middleware further in may know by now who it is."""
        self._safely(self._ask)
        return self._wants_name() and self._look_into_form(message)

    def _wants_name(self) -> bool:
        return self.incoming.is_form and self.live.filename is None

    def _look_into_form(self, message: Message) -> bool:
        """Look for the file's name in the form's first bytes; return whether they go on."""
        missing = FORM_PREFIX_BYTES - len(self._form_start)
        self._form_start += message.get("body", b"")[:missing]
        self.live.filename = form_filename(self._form_start)
        is_whole = len(self._form_start) == FORM_PREFIX_BYTES or not message.get("more_body")
        wants_more = self._wants_name() and not is_whole
        if not wants_more:
            self._form_start = b""
        return wants_more

    def _gate(self, message: Message) -> Message:
        if self._is_cut:
            return {"type": "http.disconnect"}
        if not self._is_begun and self._is_large(self._told.meter.received_bytes):
            self._begin()
        if not self.live.is_tracked:
            self._told.meter.gate_bytes = NEVER
        if self.transfer is None:
            self.live.mark_due()
        else:
            self.transfer.check_due()
        return message

    def _last(self, message: Message) -> Message:
        kind = message.get("type")
        if kind == "http.request":
            if self._is_cut:
                return {"type": "http.disconnect"}
            self._told.meter.received_bytes += len(message.get("body", b""))
            if not self._is_begun and self._is_large(self._told.meter.received_bytes):
                self._begin()
            self._told.end_body()
        elif kind == "http.disconnect":
            self._told.client_disconnected()
        return message

    # What goes out

    async def _send(self, message: Message) -> None:
        kind = kind_of(message)
        if kind == "http.response.start":
            self._safely(lambda: self._hear(message))
            self._safely(self._ask)
            await self._asking.load_prior_state()
        if self._is_cut and self._status is None:
            return
        if kind == "http.response.start":
            message = self._start(message)
        elif kind in _BODIES and not message.get("more_body", False):
            self._safely(self._answered)
        await self._inner_send(message)

    def _hear(self, message: Message) -> None:
        """Let the strand hear the answer: an upload may have got its address by it."""
        if self.transfer is None:
            return
        is_created = self.transfer.read_response(int(message["status"]), response_headers(message))
        self._is_begun = self._is_begun or is_created

    def _start(self, message: Message) -> Message:
        try:
            self._status = int(message["status"])
            if not self.live.is_tracked:
                return message
            self.live.id_is_sent = True
            upload_id = self.live.upload_id
            link = f'<{self.internals.config.mount_path}/{upload_id}/progress>; rel="status"'
            ours = [(b"upload-id", upload_id.encode()), (b"link", link.encode("latin-1"))]
            return {**message, "headers": [*message.get("headers", ()), *ours]}
        except Exception as error:  # noqa: BLE001  # our failure is never the upload's
            self._failed(error)
            return message

    def _answered(self) -> None:
        if self._status is None:
            self._told.app_raised()
        else:
            self._told.finish(self._status)

    # Cancelling

    def _cut(self) -> None:
        """End the transfer: the next ``receive()`` says disconnect, and soon patience ends."""
        self._is_cut = True
        if self.transfer is not None:
            self.transfer.is_cancelled = True
        self._told.meter.gate_bytes = 0
        if not self._spawn(self._lose_patience):
            self._cut_scope.cancel()

    async def _lose_patience(self) -> None:
        await anyio.sleep(CUT_SECONDS)
        self._cut_scope.cancel()

    async def _answer_cut(self) -> None:
        start, body = cancelled_response(self.scope)
        try:
            await self._inner_send(self._start(start))
            await self._inner_send(body)
        except OSError:
            return  # the client is gone: nobody is left to be told
