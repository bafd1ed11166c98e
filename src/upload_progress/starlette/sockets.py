"""The two WebSocket routes: the handshake, and how it is refused.

A refusal is a real HTTP answer where the server offers denial responses (ASGI extension
``websocket.http.response``). Where it does not, a browser learns nothing from a failed
handshake, so the socket is accepted and closed with a code that says why.
"""

from contextlib import ExitStack, suppress
from typing import Final

from attrs import frozen
from starlette.types import Receive, Scope, Send

from upload_progress.connection import Connection
from upload_progress.errors import UploadProgressError
from upload_progress.starlette.access import check_id
from upload_progress.starlette.problems import NOT_FOUND, Problem, problem_of, problem_response
from upload_progress.starlette.session import Session
from upload_progress.starlette.site import Site
from upload_progress.starlette.tickets import Admission

__all__ = ["SUBPROTOCOL", "NoSocket", "Socket", "refuse"]

SUBPROTOCOL: Final = "upload-progress"
"""Chosen if a client offers it; nothing else that it offers, say a token, is ever repeated."""


@frozen(eq=False, repr=False)
class Socket:
    """An ASGI application for a socket: for many uploads, or the one named in the path."""

    site: Site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Shake hands, talk, and leave nothing behind."""
        self.site.check_mount(scope)
        if (await receive())["type"] != "websocket.connect":
            return
        with ExitStack() as stack, suppress(OSError):
            try:
                admission = await self.site.door.admit_socket(Connection(scope))
                session = await self._prepare(scope, receive, send, admission, stack)
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
        admission: Admission,
        stack: ExitStack,
    ) -> Session:
        """Take a seat, and follow the upload in the path, if there is one."""
        upload_id = scope["path_params"].get("upload_id")
        identity = admission.identity
        if upload_id is not None:
            check_id(identity, upload_id)
        watching = self.site.watching(admission, Connection(scope), upload_id)
        watcher = stack.enter_context(watching)
        session = Session(self.site, admission, watcher, receive, send, only=upload_id)
        session.greet()
        if upload_id is None:
            stack.enter_context(self.site.rooms.hosting(session))
        else:
            watcher.follow(identity.owner_of(upload_id), upload_id)
            session.add(await self.site.tracker.get(upload_id, owner=identity))
        return session


@frozen(eq=False, repr=False)
class NoSocket:
    """An ASGI application for all other paths."""

    site: Site

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
