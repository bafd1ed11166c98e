"""One open WebSocket: a task that reads, a task that writes, and no queue between them.

Only the writer sends. It waits for news of the watcher, which holds the newest snapshot of
each upload and no backlog, and takes the answers to commands along. A client that does not
read holds up the writer; its answers pile up to a small bound, then the reader waits as well,
and the server stops reading from that client. Nobody else notices.
"""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final

import anyio
from attrs import define, field, frozen
from starlette.types import Message, Receive, Scope, Send

from upload_progress._cluster.worker import SEPARATOR
from upload_progress._fanout.subscription import HEARTBEAT_SECONDS, Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    InvalidValue,
    QuotaExceeded,
    UploadNotFound,
    UploadProgressError,
)
from upload_progress.identity import Identity
from upload_progress.starlette.auth.authentication import check_id
from upload_progress.starlette.auth.tickets import AccessGrant
from upload_progress.starlette.context import RouteContext
from upload_progress.starlette.http import (
    MOST_PER_PAGE,
    NOT_FOUND,
    Problem,
    problem_of,
    problem_response,
)
from upload_progress.starlette.messages import Command, read_command
from upload_progress.tracker import internals_of

__all__ = [
    "BURST_MESSAGES",
    "CLOSE_SECONDS",
    "MESSAGES_PER_SECOND",
    "MOST_BAD_MESSAGES",
    "MOST_UNSENT",
    "MOST_UNSENT_FOR_OTHERS",
    "NoSocket",
    "SUBPROTOCOL",
    "Session",
    "Socket",
    "refuse",
]

MESSAGES_PER_SECOND: Final = 200
BURST_MESSAGES: Final = 1000
MOST_UNSENT: Final = 64
MOST_UNSENT_FOR_OTHERS: Final = 2000
MOST_BAD_MESSAGES: Final = 20
CLOSE_SECONDS: Final = 5.0

_NORMAL: Final = 1000
_NOT_TEXT: Final = 1003
_TOO_LARGE: Final = 1009
_RESTART: Final = 1012
_BAD_MESSAGES: Final = 4422


@define(eq=False, repr=False)
class Session:
    """A conversation after the handshake.

    Attributes:
        only: The one upload of a socket of its own; None on a socket for many.
        client_id: The socket's name, its worker's and 128 random bits: who knows it, and is
            the same user, may add uploads to it.
    """

    site: RouteContext
    grant: AccessGrant
    subscription: Subscription
    receive: Receive
    send: Send
    only: str | None = None
    client_id: str = field(init=False)
    _unsent: list[str] = field(factory=list, init=False)
    _room: anyio.Event = field(factory=anyio.Event, init=False)
    _ending: int | None = field(default=None, init=False)
    _ends: anyio.Event = field(factory=anyio.Event, init=False)
    _bad_messages: int = field(default=0, init=False)
    _paid_until: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        """Name the socket so that other workers know where it is."""
        self.client_id = self.site.tracker.worker + SEPARATOR + secrets.token_urlsafe(16)

    @property
    def identity(self) -> Identity:
        """Who watches."""
        return self.grant.identity

    async def run(self) -> None:
        """Talk until one side ends it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, tasks.cancel_scope)
            tasks.start_soon(self._end_when_lapsed)
            tasks.start_soon(self._end_in_time, tasks.cancel_scope)
            # The client has gone; some servers say it by a RuntimeError ("after close").
            with suppress(OSError, RuntimeError):
                await self._write()
            tasks.cancel_scope.cancel()

    async def _show(self, updates: Sequence[Update]) -> None:
        for update in updates:
            await self.send({"type": "websocket.send", "text": update.websocket_text})
            if self.only is not None and update.is_end:
                self._end(_NORMAL)

    def greet(self) -> None:
        """Say welcome, before anything else."""
        self._tell("welcome", client_id=self.client_id, heartbeat_seconds=HEARTBEAT_SECONDS)

    # Called from other requests, too

    def add(self, progress: UploadProgress) -> None:
        """Follow that upload, and show where it stands.

        Raises:
            QuotaExceeded: The socket follows as many as it may, or reads too slowly.
        """
        if len(self._unsent) >= MOST_UNSENT_FOR_OTHERS:
            raise QuotaExceeded("subscriptions_per_socket", MOST_UNSENT_FOR_OTHERS)
        owner = self.identity.owner_of(progress.upload_id)
        self.subscription.remove_upload(owner, progress.upload_id)
        self.subscription.add_upload(owner, progress.upload_id)
        self._tell("subscribed", upload_id=progress.upload_id)
        self.subscription.offer(Update(owner, progress))

    def drop(self, upload_id: str | None) -> None:
        """Follow that upload no longer; None for everything."""
        if upload_id is not None:
            self.subscription.remove_upload(self.identity.owner_of(upload_id), upload_id)
            return self._tell("unsubscribed", upload_id=upload_id)
        for each in self.subscription.remove_all():
            self._tell("unsubscribed", upload_id=each)
        return self._tell("unsubscribed", all=True)

    # Writing

    def _tell(self, kind: str, **members: object) -> None:
        self._unsent.append(encode_json({"type": kind, **members}).decode())
        self.subscription.wake_for_heartbeat()

    def _end(self, code: int) -> None:
        """Let the writer close the socket; the first reason stands."""
        self._ending = code if self._ending is None else self._ending
        self._ends.set()
        self.subscription.wake_for_heartbeat()

    async def _write(self) -> None:
        while True:
            updates = await internals_of(self.site.tracker).wait(self.subscription, self._show)
            unsent, self._unsent = self._unsent, []
            self._room.set()
            if not (updates or unsent or self._is_over):
                unsent = ['{"type":"heartbeat"}']
            for text in unsent:
                await self._send_text(text)
            await self._show(updates)
            if self._is_over:
                code = _RESTART if self._ending is None else self._ending
                return await self.send({"type": "websocket.close", "code": code, "reason": ""})

    @property
    def _is_over(self) -> bool:
        return self._ending is not None or self.subscription.is_closed

    async def _send_text(self, text: str) -> None:
        await self.send({"type": "websocket.send", "text": text})

    async def _end_when_lapsed(self) -> None:
        problem = await self.site.door.lapse(self.grant)
        self._end(problem.close_code)

    async def _end_in_time(self, scope: anyio.CancelScope) -> None:
        """Do not wait for ever for a client that does not even read the close."""
        await self._ends.wait()
        await anyio.sleep(CLOSE_SECONDS)
        scope.cancel()

    # Reading

    async def _read(self, scope: anyio.CancelScope) -> None:
        while True:
            message = await self.receive()
            if message["type"] == "websocket.disconnect":
                return scope.cancel()
            if self._ending is None:
                await self._hear(message)

    async def _hear(self, message: Message) -> None:
        text = message.get("text")
        if text is None:
            return self._end(_NOT_TEXT)
        if (
            len(text.encode("utf-8", "surrogatepass"))
            > self.site.tracker.config.limits.message_bytes
        ):
            return self._end(_TOO_LARGE)
        await self._pace()
        try:
            await self._obey(text)
        except UploadProgressError as error:
            self._complain(error)

    async def _pace(self) -> None:
        """Read no faster than the rate allows, and no more than the client takes back."""
        while len(self._unsent) >= MOST_UNSENT:
            self._room = anyio.Event()
            await self._room.wait()
        now = anyio.current_time()
        self._paid_until = max(self._paid_until, now) + 1 / MESSAGES_PER_SECOND
        await anyio.sleep(max(self._paid_until - now - BURST_MESSAGES / MESSAGES_PER_SECOND, 0))

    async def _obey(self, text: str) -> None:
        command = read_command(text)
        if command.upload_id is not None:
            return await self._obey_for_upload(command, command.upload_id)
        if self.only is not None or not self.identity.listable:
            raise UploadNotFound
        if command.kind == "unsubscribe":
            return self._leave(command)
        return await self._follow(command)

    async def _obey_for_upload(self, command: Command, upload_id: str) -> None:
        check_id(self.identity, upload_id)
        if self.only not in {None, upload_id}:
            raise UploadNotFound
        if command.kind == "unsubscribe":
            return self.drop(upload_id)
        tracker = self.site.tracker
        if command.kind == "cancel":
            progress = await tracker.cancel(upload_id, owner=self.identity)
            return self.subscription.offer(Update(self.identity.owner_of(upload_id), progress))
        return self.add(await tracker.get(upload_id, owner=self.identity))

    async def _follow(self, command: Command) -> None:
        owner = self.identity.id
        if command.group is None:
            self.subscription.add_owner(owner)
        else:
            self.subscription.remove_group(owner, command.group)
            self.subscription.add_group(owner, command.group)
        page = await self.site.tracker.list(
            owner=self.identity, group=command.group, limit=MOST_PER_PAGE
        )
        self._tell("subscribed", **command.target)
        for progress in page.uploads:
            self.subscription.offer(Update(owner, progress))

    def _leave(self, command: Command) -> None:
        if command.group is None:
            return self.drop(None)
        self.subscription.remove_group(self.identity.id, command.group)
        return self._tell("unsubscribed", **command.target)

    def _complain(self, error: UploadProgressError) -> None:
        self._tell("error", problem=problem_of(error).document())
        self._bad_messages += isinstance(error, InvalidValue)
        if self._bad_messages >= MOST_BAD_MESSAGES:
            self._end(_BAD_MESSAGES)


# FROM starlette.sockets: The two WebSocket routes: the handshake, and how it is refused.
#
# A refusal is a real HTTP answer where the server offers denial responses (ASGI extension
# ``websocket.http.response``). Where it does not, a browser learns nothing from a failed
# handshake, so the socket is accepted and closed with a code that says why.
#

SUBPROTOCOL: Final = "upload-progress"
"""Chosen if a client offers it; nothing else that it offers, say a token, is ever repeated."""


@frozen(eq=False, repr=False)
class Socket:
    """An ASGI application for a socket: for many uploads, or the one named in the path."""

    site: RouteContext

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Shake hands, talk, and leave nothing behind."""
        self.site.check_mount(scope)
        if (await receive())["type"] != "websocket.connect":
            return
        with ExitStack() as stack, suppress(OSError):
            try:
                grant = await self.site.door.admit_socket(Connection(scope))
                session = await self._prepare(scope, receive, send, grant, stack)
            except UploadProgressError as error:
                await refuse(scope, receive, send, problem_of(error))
                return
            offered = SUBPROTOCOL in scope.get("subprotocols", ())
            subprotocol = SUBPROTOCOL if offered else None
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
            await session.run()

    async def _prepare(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        grant: AccessGrant,
        stack: ExitStack,
    ) -> Session:
        """Take a seat, and follow the upload in the path, if there is one."""
        upload_id = scope["path_params"].get("upload_id")
        identity = grant.identity
        if upload_id is not None:
            check_id(identity, upload_id)
        watching = self.site.watching(grant, Connection(scope), upload_id)
        subscription = stack.enter_context(watching)
        session = Session(self.site, grant, subscription, receive, send, only=upload_id)
        session.greet()
        if upload_id is None:
            stack.enter_context(self.site.connections.hosting(session))
        else:
            subscription.add_upload(identity.owner_of(upload_id), upload_id)
            session.add(await self.site.tracker.get(upload_id, owner=identity))
        return session


@frozen(eq=False, repr=False)
class NoSocket:
    """An ASGI application for all other paths."""

    site: RouteContext

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse."""
        if (await receive())["type"] == "websocket.connect":
            await refuse(scope, receive, send, NOT_FOUND)


async def refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    """Refuse a handshake because of *problem*."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        return await problem_response(problem)(scope, receive, send)
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    return await send(
        {"type": "websocket.close", "code": problem.close_code, "reason": problem.title}
    )
