"""Promise I1: the application and the server see the same with the middleware as without it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextvars import ContextVar

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._support.scripted_server import (
    ALICE,
    LARGE_BYTES,
    UPLOAD_ID,
    App,
    Message,
    Receive,
    Scope,
    ScriptedServer,
    Send,
    authenticate_alice,
    body_messages,
    run_request,
    tracker_lifespan,
    upload_scope,
)
from upload_progress import Identity, ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

Step = str | BaseException | Message

OURS = {b"upload-id", b"link"}
outside: ContextVar[str] = ContextVar("outside")
inside: ContextVar[str] = ContextVar("inside")


class Stop(BaseException):
    """Something that no ``except Exception`` catches."""


RECEIVED = st.one_of(
    st.builds(
        lambda size, more: {"type": "http.request", "body": bytes(size), "more_body": more},
        st.sampled_from([0, 1, 1000, LARGE_BYTES]),
        st.booleans(),
    ),
    st.sampled_from(
        [
            {"type": "http.request"},
            {"type": "http.request", "more_body": True},
            {"type": "http.request", "body": None, "more_body": True},
            {"type": "http.disconnect"},
            {"type": "http.stranger", "more_body": True},
            {"type": "http.stranger", "body": 7},
            {},
        ]
    ).map(copy.deepcopy),
    st.builds(OSError),
    st.builds(Stop),
)
SENT = st.one_of(
    st.builds(
        lambda status, headers: {
            "type": "http.response.start",
            "status": status,
            "headers": headers,
        },
        st.sampled_from([200, 204, 303, 413, 500]),
        st.sampled_from([[], [(b"x-one", b"1")], [(b"b", b"2"), (b"a", b"1"), (b"b", b"2")]]),
    ),
    st.builds(
        lambda content, more: {"type": "http.response.body", "body": content, "more_body": more},
        st.binary(max_size=5),
        st.booleans(),
    ),
    st.sampled_from(
        [
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.start", "status": "none", "headers": []},
            {"type": "http.response.start"},
            {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
            {"type": "http.response.push", "path": "/a.css", "headers": []},
            {"type": "http.response.pathsend", "path": "/a.bin"},
            {"type": "http.response.zerocopysend", "file": 3, "offset": 0, "count": 10},
            {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
            {"type": "http.response.debug", "info": {}},
            {"type": "http.stranger"},
            {},
        ]
    ).map(copy.deepcopy),
)
STEPS = st.lists(
    st.one_of(
        st.just("receive"),
        st.just("pause"),
        SENT,
        st.builds(ValueError),
        st.builds(Stop),
    ),
    max_size=12,
)


@define(eq=False)
class Scripted:
    """An application that follows a plan, and records what it sees."""

    plan: Sequence[Step]
    seen: list[object] = field(factory=list)
    is_receiving: bool = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Follow the plan."""
        self.seen.append(outside.get())
        inside.set("set by the application")
        for step in self.plan:
            try:
                await self._take(step, receive, send)
            except OSError as error:
                self.seen.append(error)

    async def _take(self, step: Step, receive: Receive, send: Send) -> None:
        if step == "receive":
            self.is_receiving = True
            self.seen.append(await receive())
            self.is_receiving = False
        elif isinstance(step, str):
            await checkpoint()
        elif isinstance(step, BaseException):
            raise step
        else:
            await send(step)


async def witness(app: App, scope: Scope, server: ScriptedServer) -> tuple[object, str]:
    """Return what came out of *app*, and the context variable that it has set."""
    inside.set("not set")
    outside.set("set by the server")
    app_raised: object = None
    try:
        # The script ends where the client is silent: there both runs are stopped.
        with anyio.CancelScope() as scope_of_run:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_when_silent, server, scope_of_run)
                try:
                    await app(scope, server.receive, server.send)
                except (ValueError, OSError, Stop) as error:
                    app_raised = error
                tasks.cancel_scope.cancel()
        return (app_raised, inside.get())
    finally:
        inside.set("not set")


async def stop_when_silent(server: ScriptedServer, scope_of_run: anyio.CancelScope) -> None:
    await server.script_ended.wait()
    scope_of_run.cancel()


def without_ours(message: Message) -> Message:
    """Return *message* without the two headers that the middleware adds."""
    if message.get("type") != "http.response.start":
        return message
    theirs = [pair for pair in message.get("headers", []) if pair[0] not in OURS]
    return {**message, "headers": theirs}


def ids(things: Sequence[object]) -> list[object]:
    return [thing if isinstance(thing, str) else id(thing) for thing in things]


async def asleep(_connection: Connection) -> None:
    await anyio.sleep_forever()


async def at_once(_connection: Connection) -> Identity:
    return ALICE


def broken(_connection: Connection) -> Identity:
    raise LookupError("no user")


@pytest.mark.parametrize("lifespan", [True, False])
@settings(max_examples=400)
@given(
    script=st.lists(RECEIVED, max_size=8),
    plan=STEPS,
    send_fails_at=st.sampled_from([None, None, 0, 1, 2]),
    named=st.sampled_from(
        [(UPLOAD_ID, None), (None, None), (None, 10 * LARGE_BYTES), (UPLOAD_ID, 0)]
    ),
    authenticate=st.sampled_from([authenticate_alice, at_once, broken]),
)
async def test_nothing_but_two_headers_is_changed(
    *,
    lifespan: bool,
    script: list[Message | BaseException],
    plan: list[Step],
    send_fails_at: int | None,
    named: tuple[str | None, int | None],
    authenticate: Authenticate,
) -> None:
    """I1, H06, H27: the same objects, in the same order, from both sides, whatever happens."""
    bare, tracked = Scripted(plan), Scripted(plan)
    bare_server, server = (ScriptedServer(script, send_fails_at=send_fails_at) for _ in range(2))
    server.send_error = bare_server.send_error
    tracker = ProgressTracker()
    middleware = UploadProgressMiddleware(tracked, tracker=tracker, authenticate=authenticate)

    expected = await witness(bare, upload_scope(named[0], length=named[1]), bare_server)
    async with tracker_lifespan(tracker, lifespan):
        found = await witness(middleware, upload_scope(named[0], length=named[1]), server)

    assert (id(found[0]), found[1]) == (id(expected[0]), expected[1])
    assert ids(tracked.seen) == ids(bare.seen)
    assert server.receive_calls == bare_server.receive_calls
    told = [without_ours(message) for message in server.sent]
    assert told == [without_ours(message) for message in bare_server.sent]
    same = [
        mine is theirs
        for mine, theirs in zip(server.sent, bare_server.sent, strict=True)
        if theirs.get("type") != "http.response.start"
    ]
    assert all(same)


@pytest.mark.parametrize("lifespan", [True, False])
async def test_the_server_is_asked_only_while_the_application_asks(lifespan: bool) -> None:
    """I1: reading ahead would send ``100 Continue`` for the application."""
    app = Scripted(["pause", "receive", "pause", "receive"])
    server = ScriptedServer(body_messages(b"a", b"b"))
    asked = []

    async def receive() -> Message:
        asked.append(app.is_receiving)
        return await server.receive()

    tracker = ProgressTracker()
    outside.set("")
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
    async with tracker_lifespan(tracker, lifespan):
        await middleware(upload_scope(), receive, server.send)

    assert asked == [True, True]


NOT_OURS: list[Scope] = [
    {"type": "websocket", "path": "/files", "headers": [(b"upload-id", b"x")]},
    {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}},
    {"type": "stranger"},
    upload_scope(length=10 * LARGE_BYTES, method="GET"),
    upload_scope(length=10 * LARGE_BYTES, method="HEAD"),
    upload_scope(
        length=10 * LARGE_BYTES, method="OPTIONS", headers=[(b"origin", b"https://example.org")]
    ),
    upload_scope(length=10 * LARGE_BYTES, method="DELETE"),
    upload_scope(length=10 * LARGE_BYTES, path="/uploads"),
    upload_scope(length=10 * LARGE_BYTES, path="/uploads/tickets", method="POST"),
]


@pytest.mark.parametrize("scope", NOT_OURS, ids=lambda scope: f"{scope.get('method')}")
async def test_what_is_not_ours_is_not_touched(scope: Scope) -> None:
    """H16, I1: other scopes, methods and the progress API get the very objects of the server."""
    tracker = ProgressTracker()
    before, server = copy.deepcopy(scope), ScriptedServer()
    calls: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        calls.append(arguments)

    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=broken)
    receive, send = server.receive, server.send
    await middleware(scope, receive, send)

    assert calls[0][0] is scope
    assert calls[0][1:] == (receive, send)
    assert scope == before
    assert tracker.statistics().live_uploads == 0


@pytest.mark.parametrize("has_routes", [True, False])
async def test_only_the_api_itself_gets_its_slash(has_routes: bool) -> None:
    """H16: a Mount would redirect ``POST /uploads``; without routes of ours it is somebody's."""
    tracker = ProgressTracker()
    internals_of(tracker).has_routes = has_routes
    scope, server = upload_scope(path="/uploads", method="POST"), ScriptedServer()
    seen: list[object] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["path"])

    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=broken)
    await middleware(scope, server.receive, server.send)

    assert seen == ["/uploads/" if has_routes else "/uploads"]
    assert scope["path"] == "/uploads"


async def test_a_small_request_is_passed_on_as_it_is() -> None:
    """H16: what is announced to be small, and names no id, costs nothing."""
    tracker = ProgressTracker()
    scope, server = upload_scope(None, length=LARGE_BYTES - 1), ScriptedServer()
    before = dict(scope)
    calls: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        calls.append(arguments)

    receive, send = server.receive, server.send
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=broken)
    await middleware(scope, receive, send)

    assert calls[0][1:] == (receive, send)
    assert {**scope, **before} == scope
    assert tracker.statistics().live_uploads == 0


async def test_the_scope_keeps_its_identity_and_its_values() -> None:
    """I1: what outer middleware put there is there, and what the application puts stays."""
    scope = upload_scope(state={"pool": object()})
    before = dict(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)
        scope["endpoint"] = app

    await run_request(app, ProgressTracker(), scope=scope)

    assert seen[0] is scope
    assert {**scope, **before} == scope
    assert scope["endpoint"] is app


async def test_every_waiting_hook_is_harmless_at_the_end() -> None:
    """I1, A14: an answer that never comes leaves no task and no warning behind."""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    server = await run_request(
        app, ProgressTracker(), messages=body_messages(b"x"), authenticate=asleep
    )

    assert server.receive_calls == 1
