"""Promise I1: application and server get the same messages with and without the middleware."""

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
    read_body,
    run_request,
    send_response,
    tracker_lifespan,
    upload_scope,
    wait_for_end,
)
from upload_progress import Identity, ProgressTracker, UploadState
from upload_progress._internals import internals_of
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate

pytestmark = pytest.mark.anyio

Step = str | BaseException | Message

ADDED_HEADERS = {b"upload-id", b"link"}
set_by_server: ContextVar[str] = ContextVar("set_by_server")
set_by_application: ContextVar[str] = ContextVar("set_by_application")

PROTOCOL_HEADERS: dict[str, list[tuple[bytes, bytes]]] = {
    "plain": [],
    "tus": [(b"tus-resumable", b"1.0.0"), (b"upload-length", b"3")],
    "ietf": [(b"upload-complete", b"?1"), (b"upload-draft-interop-version", b"8")],
    "content-range": [(b"content-range", b"bytes 0-2/3")],
}
RETURN_SCOPES: list[Scope] = [
    upload_scope(method="GET"),
    upload_scope(method="DELETE"),
    upload_scope(length=3),
    {"type": "websocket", "path": "/", "headers": []},
    {"type": "lifespan"},
]


async def read_and_respond(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and respond."""
    await read_body(receive)
    await send_response(send)


class Stop(BaseException):
    """Something that no ``except Exception`` catches."""


RECEIVED_MESSAGES = st.one_of(
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
SENT_MESSAGES = st.one_of(
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
PLANS = st.lists(
    st.one_of(
        st.just("receive"),
        st.just("pause"),
        SENT_MESSAGES,
        st.builds(ValueError),
        st.builds(Stop),
    ),
    max_size=12,
)


@define(eq=False)
class PlannedApp:
    """An application that runs a plan and records what it receives.

    Attributes:
        plan: Steps: "receive", "pause", an exception to raise, or a message to send.
        seen: Received messages and errors.
        is_receiving: Whether a call of ``receive`` is pending.
    """

    plan: Sequence[Step]
    seen: list[object] = field(factory=list)
    is_receiving: bool = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Run the plan."""
        self.seen.append(set_by_server.get())
        set_by_application.set("set by the application")
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


async def observe(app: App, scope: Scope, server: ScriptedServer) -> tuple[object, str]:
    """Run *app*; return the exception that it raised, and the context variable that it set."""
    set_by_application.set("not set")
    set_by_server.set("set by the server")
    raised: object = None
    try:
        # At the end of the script the client is silent; both runs are stopped there.
        with anyio.CancelScope() as scope_of_run:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_at_the_end_of_the_script, server, scope_of_run)
                try:
                    await app(scope, server.receive, server.send)
                except (ValueError, OSError, Stop) as error:
                    raised = error
                tasks.cancel_scope.cancel()
        return (raised, set_by_application.get())
    finally:
        set_by_application.set("not set")


async def stop_at_the_end_of_the_script(
    server: ScriptedServer, scope_of_run: anyio.CancelScope
) -> None:
    await server.script_ended.wait()
    scope_of_run.cancel()


def without_added_headers(message: Message) -> Message:
    """Return *message* without the headers that the middleware adds."""
    if message.get("type") != "http.response.start":
        return message
    theirs = [pair for pair in message.get("headers", []) if pair[0] not in ADDED_HEADERS]
    return {**message, "headers": theirs}


def identities(objects: Sequence[object]) -> list[object]:
    return [obj if isinstance(obj, str) else id(obj) for obj in objects]


async def never_returns(_connection: Connection) -> None:
    await anyio.sleep_forever()


async def returns_immediately(_connection: Connection) -> Identity:
    return ALICE


def raises(_connection: Connection) -> Identity:
    raise LookupError("no user")


@pytest.mark.parametrize("lifespan", [True, False])
@settings(max_examples=400)
@given(
    script=st.lists(RECEIVED_MESSAGES, max_size=8),
    plan=PLANS,
    send_fails_at=st.sampled_from([None, None, 0, 1, 2]),
    named=st.sampled_from(
        [(UPLOAD_ID, None), (None, None), (None, 10 * LARGE_BYTES), (UPLOAD_ID, 0)]
    ),
    authenticate=st.sampled_from([authenticate_alice, returns_immediately, raises]),
)
async def test_only_two_headers_are_added(
    *,
    lifespan: bool,
    script: list[Message | BaseException],
    plan: list[Step],
    send_fails_at: int | None,
    named: tuple[str | None, int | None],
    authenticate: Authenticate,
) -> None:
    """I1, H06, H27: the same objects in the same order, in both directions."""
    untracked, tracked = PlannedApp(plan), PlannedApp(plan)
    untracked_server, server = (
        ScriptedServer(script, send_fails_at=send_fails_at) for _ in range(2)
    )
    server.send_error = untracked_server.send_error
    tracker = ProgressTracker()
    middleware = UploadProgressMiddleware(tracked, tracker=tracker, authenticate=authenticate)

    expected = await observe(untracked, upload_scope(named[0], length=named[1]), untracked_server)
    async with tracker_lifespan(tracker, lifespan):
        found = await observe(middleware, upload_scope(named[0], length=named[1]), server)

    assert (id(found[0]), found[1]) == (id(expected[0]), expected[1])
    assert identities(tracked.seen) == identities(untracked.seen)
    assert server.receive_calls == untracked_server.receive_calls
    sent = [without_added_headers(message) for message in server.sent]
    assert sent == [without_added_headers(message) for message in untracked_server.sent]
    same = [
        ours is theirs
        for ours, theirs in zip(server.sent, untracked_server.sent, strict=True)
        if theirs.get("type") != "http.response.start"
    ]
    assert all(same)


@pytest.mark.parametrize("lifespan", [True, False])
async def test_server_receive_is_called_only_inside_receive(lifespan: bool) -> None:
    """I1: reading ahead would send ``100 Continue`` for the application."""
    app = PlannedApp(["pause", "receive", "pause", "receive"])
    server = ScriptedServer(body_messages(b"a", b"b"))
    is_receiving_at_call = []

    async def receive() -> Message:
        is_receiving_at_call.append(app.is_receiving)
        return await server.receive()

    tracker = ProgressTracker()
    set_by_server.set("")
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
    async with tracker_lifespan(tracker, lifespan):
        await middleware(upload_scope(), receive, server.send)

    assert is_receiving_at_call == [True, True]


UNTRACKED_SCOPES: list[Scope] = [
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


@pytest.mark.parametrize("scope", UNTRACKED_SCOPES, ids=lambda scope: f"{scope.get('method')}")
async def test_other_scopes_are_passed_on_unchanged(scope: Scope) -> None:
    """H16, I1: other scopes and methods, and the progress API, get the objects of the server."""
    tracker = ProgressTracker()
    before, server = copy.deepcopy(scope), ScriptedServer()
    calls: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        calls.append(arguments)

    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=raises)
    receive, send = server.receive, server.send
    await middleware(scope, receive, send)

    assert calls[0] == (scope, receive, send)
    assert scope == before
    assert tracker.statistics().live_uploads == 0


@pytest.mark.parametrize("has_routes", [True, False])
async def test_slash_is_added_only_for_mounted_routes(has_routes: bool) -> None:
    """H16: a Mount would redirect ``POST /uploads``; without our routes, the path is unchanged."""
    tracker = ProgressTracker()
    internals_of(tracker).has_routes = has_routes
    scope, server = upload_scope(path="/uploads", method="POST"), ScriptedServer()
    seen: list[object] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["path"])

    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=raises)
    await middleware(scope, server.receive, server.send)

    assert seen == ["/uploads/" if has_routes else "/uploads"]
    assert scope["path"] == "/uploads"


async def test_small_request_is_passed_on_unchanged() -> None:
    """H16: a small announced size, and no id."""
    tracker = ProgressTracker()
    scope, server = upload_scope(None, length=LARGE_BYTES - 1), ScriptedServer()
    before = dict(scope)
    calls: list[tuple[object, ...]] = []

    async def app(*arguments: object) -> None:
        calls.append(arguments)

    receive, send = server.receive, server.send
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=raises)
    await middleware(scope, receive, send)

    assert calls[0][1:] == (receive, send)
    assert {**scope, **before} == scope
    assert tracker.statistics().live_uploads == 0


async def test_scope_of_the_server_stays_as_it_is() -> None:
    """I1: the application gets a copy, with the values of outer middleware."""
    scope = upload_scope(state={"pool": object()})
    before = dict(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)
        scope["endpoint"] = app

    await run_request(app, ProgressTracker(), scope=scope)

    assert scope == before
    assert {**seen[0], **before} == seen[0]
    assert seen[0]["state"] is scope["state"]


async def test_second_call_with_the_same_scope_is_tracked() -> None:
    """An outer middleware that retries calls the application twice."""
    tracker, scope = ProgressTracker(), upload_scope(length=3)

    for _ in range(2):
        server = await run_request(
            read_and_respond, tracker, scope=scope, messages=body_messages(b"abc")
        )
        await wait_for_end(tracker)
        assert server.headers["upload-id"] == UPLOAD_ID

    assert (await tracker.get(UPLOAD_ID, owner=ALICE)).attempt == 2


ODD_SCOPES: dict[str, Scope] = {
    "no type": {"path": "/files"},
    "no method": {"type": "http", "path": "/files"},
    "method is a list": {"type": "http", "method": ["PUT"], "path": "/files", "headers": []},
    "type is a list": {"type": ["http"], "method": "PUT", "path": "/files", "headers": []},
    "no path": {"type": "http", "method": "PUT", "headers": []},
    "no headers": {"type": "http", "method": "PUT", "path": "/files"},
    "headers are None": {"type": "http", "method": "PUT", "path": "/files", "headers": None},
    "a header is None": {"type": "http", "method": "PUT", "path": "/files", "headers": [None]},
    "path is a list": {"type": "http", "method": "POST", "path": ["files"], "headers": []},
    "query is None": {"type": "http", "method": "POST", "path": "/files", "query_string": None},
}


@pytest.mark.parametrize("scope", ODD_SCOPES.values(), ids=ODD_SCOPES)
async def test_odd_scope_reaches_the_application(scope: Scope) -> None:
    before = copy.deepcopy(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append({key: value for key, value in scope.items() if key in before})

    await run_request(app, ProgressTracker(), scope=scope)

    assert seen == [before]
    assert scope == before


odd_values = st.sampled_from(
    [
        None,
        7,
        -1.5,
        b"PUT",
        b"http",
        "",
        "PUT",
        ["PUT"],
        {},
        {"a"},
        (),
        object(),
        "\ud800",
        "/uploads",
    ]
)
odd_headers = st.one_of(
    odd_values,
    st.lists(
        st.one_of(
            odd_values,
            st.tuples(
                st.sampled_from(
                    [b"upload-id", b"content-length", b"tus-resumable", b"content-range", b"range"]
                ),
                st.one_of(odd_values, st.binary(max_size=9)),
            ),
        ),
        max_size=4,
    ),
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["type", "method", "path", "query_string", "root_path", "http_version"]),
        odd_values,
    ),
    st.one_of(st.none(), odd_headers),
)
async def test_any_scope_reaches_the_application(odd: dict[str, object], headers: object) -> None:
    """Whatever a server or an outer middleware makes of it; the response is the application's."""
    scope: Scope = {**upload_scope(length=3), **odd}
    if headers is not None:
        scope["headers"] = headers
    before = dict(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({key: value for key, value in scope.items() if key in before})
        await read_and_respond(scope, receive, send)

    server = await run_request(app, ProgressTracker(), scope=scope, messages=body_messages(b"abc"))

    paths = (before["path"], "/uploads/") if before["path"] == "/uploads" else (before["path"],)
    assert seen[0]["path"] in paths
    assert all(seen[0][key] is value for key, value in before.items() if key != "path")
    assert scope == before
    assert server.content == b"done"


@pytest.mark.parametrize(
    "values",
    [
        [b"9007199254740992"],
        [b"3", b"4"],
        [b"3, 4"],
        [b"-3"],
        [b"+3"],
        [b""],
        [b"3 bytes"],
    ],
    ids=str,
)
async def test_upload_with_an_odd_length_is_tracked(values: list[bytes]) -> None:
    """Its size is unknown; the application gets the headers as they are."""
    tracker = ProgressTracker()
    lengths = [(b"content-length", value) for value in values]
    scope = upload_scope(headers=lengths)
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["headers"])
        await receive()
        progress = await tracker.get(UPLOAD_ID, owner=ALICE)
        seen.append((progress.bytes_transferred, progress.total_bytes))
        await read_and_respond(scope, receive, send)

    server = await run_request(app, tracker, scope=scope, messages=body_messages(b"abc"))
    progress = await wait_for_end(tracker)

    assert seen == [scope["headers"], (3, None)]
    assert server.headers["upload-id"] == UPLOAD_ID
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


@pytest.mark.parametrize("headers", PROTOCOL_HEADERS.values(), ids=PROTOCOL_HEADERS)
async def test_headers_may_be_iterators(headers: list[tuple[bytes, bytes]]) -> None:
    """ASGI says *iterable*: the application and the server can read them, too."""
    sent = [(b"location", b"/files/1"), (b"upload-offset", b"3"), (b"etag", b'"1"')]
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await receive()
        await send({"type": "http.response.start", "status": 201, "headers": iter(sent)})
        await send({"type": "http.response.body"})

    scope = upload_scope(length=3, headers=headers, method="POST")
    expected = scope["headers"]
    server = await run_request(
        app,
        ProgressTracker(),
        scope={**scope, "headers": iter(expected)},
        messages=body_messages(b"abc"),
    )

    assert seen == expected
    received = list(server.sent[0]["headers"])
    assert [header for header in received if header[0] not in ADDED_HEADERS] == sent
    assert {name for name, _ in received} >= ADDED_HEADERS


@pytest.mark.parametrize("lifespan", [True, False])
@pytest.mark.parametrize("scope", RETURN_SCOPES, ids=lambda scope: f"{scope.get('method')}")
async def test_return_value_is_that_of_the_application(scope: Scope, lifespan: bool) -> None:
    """Uvicorn reports an application that returns a value: it must be able to."""
    result = object()
    tracker, server = ProgressTracker(), ScriptedServer()

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> object:
        return result

    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
    async with tracker_lifespan(tracker, lifespan):
        assert await middleware(scope, server.receive, server.send) is result


async def test_pending_hook_leaves_no_task() -> None:
    """I1, A14: a pending ``authenticate`` leaves no task and no warning."""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    server = await run_request(
        app, ProgressTracker(), messages=body_messages(b"x"), authenticate=never_returns
    )

    assert server.receive_calls == 1
