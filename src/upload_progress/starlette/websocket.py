"""WebSockets: the handshake, and a session of one reading and one writing task.

Only the writer sends. It waits for updates of the subscription, which holds the newest snapshot
of each upload and no backlog, and sends the queued replies along. A client that does not read
blocks the writer; replies queue up to a small limit, then the reader stops reading from that
client. No other client is affected.

A refused handshake gets an HTTP response where the server supports denial responses (ASGI
extension ``websocket.http.response``). Elsewhere a browser could not see the reason, so the
socket is accepted and closed with a code.
"""

import math
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field, frozen
from msgspec import UNSET
from starlette.types import Message, Receive, Scope, Send

from upload_progress._fanout.subscription import HEARTBEAT_SECONDS, Transport
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.api_types import (
    ClientMessage,
    ErrorMessage,
    Heartbeat,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
)
from upload_progress._model.codec import encode_json
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue, UploadNotFound, UploadProgressError
from upload_progress.identity import listed_owner
from upload_progress.interfaces import HoldsStreams
from upload_progress.starlette.auth.authentication import RequestAuthenticator, check_upload_id
from upload_progress.starlette.auth.tickets import AccessGrant
from upload_progress.starlette.auth.views import group_owner, update_of
from upload_progress.starlette.connections import (
    INFERRED_END_SECONDS,
    ConnectionRegistry,
    OpenSocket,
    new_client_id,
)
from upload_progress.starlette.context import MountCheck
from upload_progress.starlette.http import (
    MAX_PAGE_SIZE,
    NOT_FOUND,
    WEBSOCKET_NOT_HELD,
    ErrorResponse,
    RequestRefused,
)
from upload_progress.starlette.messages import parse_client_message
from upload_progress.tracker import ProgressTracker

__all__ = [
    "BURST_MESSAGES",
    "CLOSE_TIMEOUT_SECONDS",
    "MAX_INVALID_MESSAGES",
    "MAX_UNSENT",
    "MESSAGES_PER_SECOND",
    "SNAPSHOTS_PER_MESSAGE",
    "SUBPROTOCOL",
    "UnknownWebSocketPath",
    "WebSocketEndpoint",
    "WebSocketSession",
    "refuse_handshake",
]

MESSAGES_PER_SECOND: Final = 200
SNAPSHOTS_PER_MESSAGE: Final = 10
"""A message that shows the snapshots of many uploads counts as one for each ten of them."""
BURST_MESSAGES: Final = 1000
MAX_UNSENT: Final = 64
MAX_INVALID_MESSAGES: Final = 20
CLOSE_TIMEOUT_SECONDS: Final = 5.0

# Close codes: RFC 6455, section 7.4.1, and the private range.
_NORMAL: Final = 1000
_NOT_TEXT: Final = 1003
_TOO_LARGE: Final = 1009
_RESTART: Final = 1012
_INVALID_MESSAGES: Final = 4422

_HEARTBEAT: Final = encode_json(Heartbeat()).decode()


@define(eq=False, repr=False, kw_only=True)
class WebSocketSession:
    """An open WebSocket after its handshake.

    Attributes:
        socket: The state that other requests may change, too.
        only: The upload of a socket for one upload; None on a socket for many.
    """

    tracker: ProgressTracker
    authenticator: RequestAuthenticator
    grant: AccessGrant
    socket: OpenSocket
    receive: Receive
    send: Send
    only: str | None
    _life: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _queue_taken: anyio.Event = field(factory=anyio.Event, init=False)
    _close_code: int | None = field(default=None, init=False)
    _closing: anyio.Event = field(factory=anyio.Event, init=False)
    _invalid_messages: int = field(default=0, init=False)
    _paced_until: float = field(default=0.0, init=False)

    async def run(self) -> None:
        """Read and write until either side closes the socket."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, tasks.cancel_scope)
            tasks.start_soon(self._close_on_expiry)
            tasks.start_soon(self._cancel_after_close_timeout, tasks.cancel_scope)
            # The client has gone; some servers report it by a RuntimeError ("after close").
            with suppress(OSError, RuntimeError):
                with self._life:
                    await self._write()
                if self._life.cancelled_caught:
                    await self._send_close(_NORMAL)
            tasks.cancel_scope.cancel()

    def _close(self, code: int) -> None:
        """Have the writer close the socket; the first code counts."""
        self._close_code = code if self._close_code is None else self._close_code
        self._closing.set()
        self.socket.subscription.wake_for_heartbeat()

    async def _close_on_expiry(self) -> None:
        reason = await self.authenticator.wait_until_expired(self.grant)
        self._close(reason.close_code)

    async def _cancel_after_close_timeout(self, scope: anyio.CancelScope) -> None:
        """Cancel the session of a client that does not read, so that it cannot be closed."""
        await self._closing.wait()
        await anyio.sleep(CLOSE_TIMEOUT_SECONDS)
        scope.cancel()

    # Writing

    async def _write(self) -> None:
        while True:
            updates = await internals_of(self.tracker).wait(
                self.socket.subscription, self._send_updates
            )
            unsent = self.socket.take_unsent()
            self._queue_taken.set()
            if not (updates or unsent or self._is_over):
                unsent = [_HEARTBEAT]
            for text in unsent:
                await self._write_text(text)
            await self._write_updates(updates)
            if self._is_over:
                code = _RESTART if self._close_code is None else self._close_code
                return await self._send_close(code)

    async def _send_close(self, code: int) -> None:
        await self.send({"type": "websocket.close", "code": code, "reason": ""})

    @property
    def _is_over(self) -> bool:
        return self._close_code is not None or self.socket.subscription.is_closed

    def _send_updates(self, updates: Sequence[Update]) -> Awaitable[None]:
        """Send *updates*; one to a socket for many uploads without a coroutine in between."""
        if len(updates) > 1 or self.only is not None:
            return self._write_updates(updates)
        return self.send({"type": "websocket.send", "text": updates[0].websocket_text})

    async def _write_updates(self, updates: Sequence[Update]) -> None:
        for number, update in enumerate(updates, start=1):
            await self._write_text(update.websocket_text)
            if number % YIELD_EVERY == 0:
                await checkpoint()  # a server may send without one
            if self.only is not None:
                self._end_with(update)

    def _end_with(self, update: Update) -> None:
        """Close the socket with *update*, if that is an end; later, if it may be overruled."""
        self._life.deadline = math.inf
        if update.is_inferred_end:
            self._life.deadline = anyio.current_time() + INFERRED_END_SECONDS
        elif update.is_end:
            self._close(_NORMAL)

    async def _write_text(self, text: str) -> None:
        await self.send({"type": "websocket.send", "text": text})

    # Reading

    async def _read(self, scope: anyio.CancelScope) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                return scope.cancel()
            if self._close_code is None:
                await self._handle_frame(message)

    async def _handle_frame(self, message: Message) -> None:
        text = message.get("text")
        if text is None:
            return self._close(_NOT_TEXT)
        if len(text.encode("utf-8", "surrogatepass")) > self.tracker.config.limits.message_bytes:
            return self._close(_TOO_LARGE)
        await self._limit_rate()
        try:
            await self._handle(parse_client_message(text))
        except UploadProgressError as error:
            self._reply_with_error(error)

    async def _limit_rate(self) -> None:
        """Wait while the client sends too fast, or does not read the replies."""
        while self.socket.unsent_count >= MAX_UNSENT:
            self._queue_taken = anyio.Event()
            await self._queue_taken.wait()
        now = anyio.current_time()
        self._paced_until = max(self._paced_until, now) + 1 / MESSAGES_PER_SECOND
        ahead = self._paced_until - now - BURST_MESSAGES / MESSAGES_PER_SECOND
        await anyio.sleep(max(ahead, 0))

    def _reply_with_error(self, error: UploadProgressError) -> None:
        self.socket.send(ErrorMessage(ErrorResponse.for_exception(error).problem))
        self._invalid_messages += isinstance(error, InvalidValue)
        if self._invalid_messages >= MAX_INVALID_MESSAGES:
            self._close(_INVALID_MESSAGES)

    async def _handle(self, message: ClientMessage) -> None:
        if message.upload_id is not None:
            await self._handle_for_upload(message, message.upload_id)
            return
        if self.only is not None or not self.grant.subject.listable:
            raise UploadNotFound
        match message:
            case Subscribe(group=None):
                await self._subscribe_to_all()
            case Subscribe(group=str(group)):
                await self._subscribe_to_group(group)
            case Unsubscribe(group=str(group)):
                owner = group_owner(self.grant.subject)
                self.socket.subscription.remove_group(owner, group)
                self.socket.send(Unsubscribed(group=group))
            case _:
                self.socket.unsubscribe(None)

    async def _handle_for_upload(self, message: ClientMessage, upload_id: str) -> None:
        identity = self.grant.subject
        check_upload_id(identity, upload_id)
        if self.only not in {None, upload_id}:
            raise UploadNotFound
        match message:
            case Subscribe():
                await self.socket.subscribe(upload_id, self.tracker)
            case Unsubscribe():
                self.socket.unsubscribe(upload_id)
            case _:
                progress = await self.tracker.cancel(upload_id, owner=identity)
                owner = identity.owner_of(upload_id)
                self.socket.subscription.offer(Update(owner, progress))

    async def _subscribe_to_all(self) -> None:
        self.socket.subscription.add_owner(listed_owner(self.grant.subject))
        await self._show_list(Subscribed(all=True), group=None)

    async def _subscribe_to_group(self, group: str) -> None:
        owner = group_owner(self.grant.subject)
        # A repeated subscription shows the current snapshots again.
        self.socket.subscription.remove_group(owner, group)
        self.socket.subscription.add_group(owner, group)
        await self._show_list(Subscribed(group=group), group=group)

    async def _show_list(self, confirmation: Subscribed, *, group: str | None) -> None:
        identity = self.grant.subject
        page = await self.tracker.list(owner=identity, group=group, limit=MAX_PAGE_SIZE)
        self._paced_until += len(page.uploads) / SNAPSHOTS_PER_MESSAGE / MESSAGES_PER_SECOND
        self.socket.send(confirmation)
        for progress in page.uploads:
            self.socket.subscription.offer_current(update_of(identity, progress))


SUBPROTOCOL: Final = "upload-progress"
"""Selected if a client offers it. No other offer, which may be a token, is ever repeated."""


@frozen(eq=False, repr=False)
class WebSocketEndpoint:
    """An ASGI application for the sockets: for many uploads, or for the one in the path."""

    tracker: ProgressTracker
    authenticator: RequestAuthenticator
    connections: ConnectionRegistry
    mount_check: MountCheck
    proxy: HoldsStreams | None
    has_edge: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept or refuse a handshake, and run the session."""
        self.mount_check.check(scope)
        if (await receive())["type"] != "websocket.connect":
            return
        with ExitStack() as stack, suppress(OSError):
            try:
                connection = Connection(scope)
                grant = await self.authenticator.authenticate_socket(connection)
                if self.proxy is not None and self.proxy.is_proxied(connection):
                    # The proxy would pass on each message, and this process hold the socket.
                    raise RequestRefused(WEBSOCKET_NOT_HELD)
                socket = await self._open_socket(scope, grant, stack)
            except UploadProgressError as error:
                response = ErrorResponse.for_exception(error)
                await refuse_handshake(scope, receive, send, response)
                return
            is_offered = SUBPROTOCOL in scope.get("subprotocols", ())
            subprotocol = SUBPROTOCOL if is_offered else None
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            session = WebSocketSession(
                tracker=self.tracker,
                authenticator=self.authenticator,
                grant=grant,
                socket=socket,
                receive=receive,
                send=send,
                only=scope["path_params"].get("upload_id"),
            )
            await session.run()

    async def _open_socket(self, scope: Scope, grant: AccessGrant, stack: ExitStack) -> OpenSocket:
        """Open a subscription, and subscribe to the upload in the path, if there is one."""
        identity, upload_id = grant.subject, scope["path_params"].get("upload_id")
        if upload_id is not None:
            check_upload_id(identity, upload_id)
        subscription = stack.enter_context(
            self.connections.subscription(identity, Transport.WEBSOCKET)
        )
        client_id = new_client_id(internals_of(self.tracker).directory)
        socket = OpenSocket(client_id, identity, subscription)
        socket.send(Welcome(client_id, HEARTBEAT_SECONDS, True if self.has_edge else UNSET))
        if upload_id is None:
            stack.enter_context(self.connections.registered(socket))
        else:
            # Before the snapshot is read, so that no update between the two is missed.
            subscription.add_upload(identity.owner_of(upload_id), upload_id)
            await socket.subscribe(upload_id, self.tracker)
        return socket


@frozen(eq=False, repr=False)
class UnknownWebSocketPath:
    """An ASGI application that refuses the handshake on any other path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a handshake."""
        if (await receive())["type"] == "websocket.connect":
            await refuse_handshake(scope, receive, send, NOT_FOUND)


async def refuse_handshake(
    scope: Scope, receive: Receive, send: Send, response: ErrorResponse
) -> None:
    """Refuse a handshake with *response*, or with the close code that stands for it."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        return await response.to_response()(scope, receive, send)
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    return await send(
        {
            "type": "websocket.close",
            "code": response.close_code,
            "reason": response.problem.title,
        }
    )
