"""Owners and ids of uploads: owners are separate, and no id prevents an upload."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from tests._support.scripted_server import (
    ALICE,
    LARGE_BYTES,
    UPLOAD_ID,
    FailingStore,
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
    wait_until,
)
from upload_progress import (
    Identity,
    InvalidValue,
    Limits,
    MemoryStore,
    MiddlewareMissing,
    ProgressTracker,
    StoreUnavailable,
    UploadNotFound,
    UploadState,
)
from upload_progress._model.models import is_upload_id, new_upload_id
from upload_progress.asgi import UploadProgressMiddleware, authentication, current_upload
from upload_progress.connection import Connection
from upload_progress.identity import CapabilityIdentity
from upload_progress.interfaces import Authenticate

pytestmark = pytest.mark.anyio

BOB = Identity("bob")
SECRET_ID = new_upload_id()

with_and_without_lifespan = pytest.mark.parametrize(
    "lifespan", [True, False], ids=["lifespan", "lazy"]
)


async def read_and_respond(_scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await send_response(send)


def authenticate_by_header(connection: Connection) -> Identity | None:
    """Return the user named in the header ``X-User``."""
    name = connection.header("x-user")
    return None if name is None else Identity(name)


def authenticate_by_capability(_connection: Connection) -> Identity:
    return CapabilityIdentity()


def scope_of_user(name: str, upload_id: str = UPLOAD_ID) -> Scope:
    return upload_scope(upload_id, headers=[(b"x-user", name.encode())])


@with_and_without_lifespan
async def test_same_id_of_two_owners_is_separate(lifespan: bool) -> None:
    """A07, I5: Bob uploads with the id that Alice is using; neither sees the other's upload."""
    tracker = ProgressTracker()
    servers = [ScriptedServer(body_messages(b"abc")[:1]), ScriptedServer(body_messages(b"of bob"))]

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def upload_as_alice() -> None:
            with pytest.raises(ConnectionError):
                await run_request(
                    read_and_respond,
                    tracker,
                    scope=scope_of_user("alice"),
                    server=servers[0],
                    authenticate=authenticate_by_header,
                )

        tasks.start_soon(upload_as_alice)
        await servers[0].script_ended.wait()
        before = await tracker.get(UPLOAD_ID, owner=ALICE)
        await run_request(
            read_and_respond,
            tracker,
            scope=scope_of_user("bob"),
            server=servers[1],
            authenticate=authenticate_by_header,
        )
        bobs = await wait_for_end(tracker, UPLOAD_ID, BOB)
        after = await tracker.get(UPLOAD_ID, owner=ALICE)
        servers[0].client_leaves.set()

    assert (servers[1].status, servers[1].headers["upload-id"]) == (200, UPLOAD_ID)
    assert (bobs.state, bobs.bytes_transferred) == (UploadState.COMPLETED, 6)
    assert after.state == before.state == UploadState.RECEIVING
    assert after.bytes_transferred == before.bytes_transferred == 3


@with_and_without_lifespan
async def test_newer_upload_of_a_capability_is_the_next_attempt(lifespan: bool) -> None:
    """Who knows the id is the owner."""
    tracker = ProgressTracker()
    servers = [ScriptedServer(body_messages(b"abc")[:1]), ScriptedServer(body_messages(b"later"))]

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def first_upload() -> None:
            with pytest.raises(ConnectionError):
                await run_request(
                    read_and_respond,
                    tracker,
                    scope=upload_scope(SECRET_ID),
                    server=servers[0],
                    authenticate=authenticate_by_capability,
                )

        tasks.start_soon(first_upload)
        await servers[0].script_ended.wait()
        await run_request(
            read_and_respond,
            tracker,
            scope=upload_scope(SECRET_ID),
            server=servers[1],
            authenticate=authenticate_by_capability,
        )
        shown = await tracker.get(SECRET_ID, owner=CapabilityIdentity())
        servers[0].client_leaves.set()

    assert servers[1].status == 200
    assert servers[1].headers["upload-id"] == SECRET_ID
    assert (shown.attempt, shown.state) == (2, UploadState.COMPLETED)


@pytest.mark.parametrize("upload_id", ["1", "short", "00000000-0000-0000-0000-000000000000"])
async def test_guessable_id_is_not_a_capability(upload_id: str) -> None:
    """Only an id that may contain 120 random bits is used; else a new one is generated."""
    tracker = ProgressTracker()

    server = await run_request(
        read_and_respond,
        tracker,
        scope=upload_scope(upload_id),
        messages=body_messages(b"x"),
        authenticate=authenticate_by_capability,
    )

    given_id = server.headers["upload-id"]
    assert given_id != upload_id
    assert (await wait_for_end(tracker, given_id, CapabilityIdentity())).bytes_transferred == 1
    with pytest.raises(UploadNotFound):
        await tracker.get(upload_id, owner=CapabilityIdentity())


@with_and_without_lifespan
async def test_ended_upload_is_not_visible_to_another_owner(lifespan: bool) -> None:
    """A08: Bob reuses the id of an ended upload of Alice; each sees their own."""
    tracker = ProgressTracker()

    async with tracker_lifespan(tracker, lifespan):
        for name, content in (("alice", b"of alice"), ("bob", b"bob")):
            await run_request(
                read_and_respond,
                tracker,
                scope=scope_of_user(name),
                messages=body_messages(content),
                authenticate=authenticate_by_header,
            )
        alices, bobs = (
            await wait_for_end(tracker, UPLOAD_ID, ALICE),
            await wait_for_end(tracker, UPLOAD_ID, BOB),
        )

    assert (alices.attempt, alices.bytes_transferred) == (1, 8)
    assert (bobs.attempt, bobs.bytes_transferred) == (1, 3)


@with_and_without_lifespan
async def test_one_of_100_concurrent_claims_succeeds(lifespan: bool) -> None:
    """A08, I5: the others get False and cannot see the upload."""
    tracker = ProgressTracker()
    successful: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def claim(name: str) -> None:
            if current_upload(scope).claim(name):
                successful.append(name)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(claim, f"user-{number}")
        await read_body(receive)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, messages=body_messages(b"a", b"b"), authenticate=lambda _: None
        )
        progress = await wait_for_end(tracker, UPLOAD_ID, successful[0])
        for number in range(100):
            if f"user-{number}" not in successful:
                with pytest.raises(UploadNotFound):
                    await tracker.get(UPLOAD_ID, owner=f"user-{number}")

    assert (len(successful), server.headers["upload-id"]) == (1, UPLOAD_ID)
    assert progress.bytes_transferred == 2


@with_and_without_lifespan
@pytest.mark.parametrize("size", [1, LARGE_BYTES])
async def test_claimed_small_upload_is_removed(lifespan: bool, size: int) -> None:
    """R02: an endpoint that claims all uploads does not fill the registry."""
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert current_upload(scope).claim("alice")
        current_upload(scope).set(metadata={"a": 1})
        await read_body(receive)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        for length in (None, size):
            await run_request(
                app,
                tracker,
                scope=upload_scope(None, length=length),
                messages=body_messages(bytes(size)),
                authenticate=lambda _: None,
            )
        await wait_until(lambda: tracker.statistics().live_uploads == 0)
        page = await tracker.list(owner="alice")

    assert len(page.uploads) == (2 if size == LARGE_BYTES else 0)
    assert all(upload.metadata == {"a": 1} for upload in page.uploads)


INVALID_IDS = [
    "x" * 10_000,
    "",
    "../../etc/passwd",
    "..",
    ".",
    "a\x00b",
    "a\r\nSet-Cookie: b=c",
    "\u202eevil",
    "\ud800",
    "\N{PILE OF POO}",
    "tickets",
    "progress",
    "a b",
    "a/b",
    "ä",
]


@pytest.mark.parametrize("invalid_id", INVALID_IDS, ids=ascii)
@pytest.mark.parametrize("place", ["upload-id", "x-progress-id", "upload_id", "X-Progress-ID"])
async def test_invalid_id_is_replaced(
    invalid_id: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A10, I13: the upload gets a new id, and log messages contain no line breaks."""
    tracker = ProgressTracker()
    raw = invalid_id.encode("utf-8", "surrogatepass")
    if place.islower() and "-" in place:
        scope = upload_scope(None, headers=[(place.encode(), raw)])
    else:
        scope = upload_scope(None, query_string=f"{place}={quote(raw)}".encode())

    with caplog.at_level(logging.DEBUG):
        server = await run_request(
            read_and_respond, tracker, scope=scope, messages=body_messages(bytes(LARGE_BYTES))
        )

    given_id = server.headers["upload-id"]
    assert server.status == 200
    assert is_upload_id(given_id)
    assert given_id != invalid_id
    assert (await wait_for_end(tracker, given_id)).bytes_transferred == LARGE_BYTES
    assert all("\n" not in message and "\r" not in message for message in caplog.messages)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # what is read does not depend on the loop
@settings(max_examples=1000)
@given(raw=st.binary(max_size=200), query=st.binary(max_size=200))
async def test_any_bytes_in_a_head_are_accepted(raw: bytes, query: bytes) -> None:
    """A10, I13: random bytes in every header that is read, and in the query."""
    tracker = ProgressTracker()
    names = (
        b"upload-id",
        b"x-progress-id",
        b"upload-group",
        b"content-disposition",
        b"content-type",
        b"content-length",
        b"cookie",
    )
    scope = upload_scope(None, headers=[(name, raw) for name in names], query_string=query)

    server = await run_request(
        read_and_respond, tracker, scope=scope, messages=body_messages(bytes(LARGE_BYTES))
    )

    assert (server.status, server.content) == (200, b"done")
    assert is_upload_id(server.headers["upload-id"])


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ([(b"upload-id", b"one"), (b"upload-id", b"two")], b"", "one"),
        ([(b"upload-id", b"one"), (b"x-progress-id", b"two")], b"upload_id=three", "one"),
        ([(b"x-progress-id", b"two")], b"upload_id=three", "three"),
        ([], b"upload_id=three&upload_id=four", "three"),
        ([(b"upload-id", b"not/one"), (b"x-progress-id", b"two")], b"upload_id=three", None),
    ],
)
async def test_only_the_first_id_is_used(
    headers: list[tuple[bytes, bytes]], query: bytes, expected: str | None
) -> None:
    """A12: of several ids the first is used; if it is invalid, none of the others."""
    tracker = ProgressTracker()

    scope = upload_scope(None, headers=headers, query_string=query)
    server = await run_request(read_and_respond, tracker, scope=scope, messages=body_messages(b"x"))
    page = await tracker.list(owner=ALICE)

    found = server.headers["upload-id"]
    assert [upload.upload_id for upload in page.uploads] == [found]
    assert found == expected or (expected is None and found not in {"not/one", "two", "three"})


async def test_generated_ids_are_random() -> None:
    """A13: at least 128 bits vary: neither a counter nor a timestamp."""
    tracker = ProgressTracker()
    numbers = []
    for _ in range(64):
        server = await run_request(
            read_and_respond,
            tracker,
            scope=upload_scope(None, length=LARGE_BYTES),
            messages=body_messages(bytes(LARGE_BYTES)),
        )
        text = server.headers["upload-id"]
        text = text[1:] + text[0]
        numbers.append(int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))

    varying = 0
    for number in numbers:
        varying |= number ^ numbers[0]
    assert varying.bit_count() >= 128


async def hangs(_connection: Connection) -> None:
    await anyio.sleep_forever()


async def raises_later(_connection: Connection) -> Identity:
    await checkpoint()
    raise LookupError("later")


async def raises_at_once(_connection: Connection) -> Identity:
    raise LookupError("at once")


def raises(_connection: Connection) -> Identity:
    raise LookupError("no user")


def wrong_type(_connection: Connection) -> Identity:
    return {"sub": "alice"}  # type: ignore[return-value]  # the invalid value under test


async def wrong_type_later(_connection: Connection) -> Identity:
    return {"sub": "alice"}  # type: ignore[return-value]  # the invalid value under test


def returns_none(_connection: Connection) -> None:
    """Return None for any connection."""


class FailingIdentity(Identity):
    """An identity whose methods raise."""

    def owner_of(self, upload_id: str) -> str:
        raise RuntimeError(upload_id)


def failing_identity(_connection: Connection) -> Identity:
    return FailingIdentity("odd")


async def failing_identity_later(_connection: Connection) -> Identity:
    return FailingIdentity("odd")


@pytest.fixture
def endless_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a hook that does not answer be waited for longer than the test may take."""
    module = "upload_progress.asgi.authentication"
    monkeypatch.setattr(f"{module}.AUTHENTICATE_TIMEOUT_SECONDS", 3600.0)


FAILING_HOOKS: list[tuple[Authenticate, str]] = [
    (hangs, ""),
    (raises_later, "LookupError"),
    (raises_at_once, "LookupError"),
    (raises, "LookupError"),
    (wrong_type, "must return an Identity, the name of the user, or None"),
    (wrong_type_later, "must return an Identity"),
    (returns_none, ""),
    (failing_identity, "RuntimeError"),
    (failing_identity_later, "RuntimeError"),
]


@with_and_without_lifespan
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "announced"])
@pytest.mark.parametrize(
    ("authenticate", "warning"), FAILING_HOOKS, ids=lambda value: getattr(value, "__name__", None)
)
@pytest.mark.usefixtures("endless_authentication")
async def test_failing_hook_does_not_fail_the_upload(
    lifespan: bool,
    chunked: bool,
    authenticate: Authenticate,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A14, R07, I2: it raises, hangs or returns a wrong type; one warning is logged."""
    tracker = ProgressTracker()

    with anyio.fail_after(20):
        async with tracker_lifespan(tracker, lifespan):
            scope = upload_scope(None, length=None if chunked else 2 * LARGE_BYTES)
            server = await run_request(
                read_and_respond,
                tracker,
                scope=scope,
                messages=body_messages(bytes(LARGE_BYTES), bytes(LARGE_BYTES)),
                authenticate=authenticate,
            )

    assert (server.status, server.content) == (200, b"done")
    assert server.headers == {"content-type": "text/plain"}
    assert tracker.statistics().live_uploads == 0
    assert [warning in message for message in caplog.messages] == [True] * bool(warning)
    assert "identity.py, line" not in caplog.text, "not the mistake"


@with_and_without_lifespan
@pytest.mark.usefixtures("endless_authentication")
async def test_pending_hook_is_not_called_again(lifespan: bool) -> None:
    """A14, I9: at most one pending call for each upload."""
    tracker = ProgressTracker()
    calls = []

    async def hook(connection: Connection) -> None:
        calls.append(connection)
        await hangs(connection)

    with anyio.fail_after(20):
        async with tracker_lifespan(tracker, lifespan):
            await run_request(
                read_and_respond, tracker, messages=body_messages(b"a", b"b"), authenticate=hook
            )

    assert len(calls) == 1


async def authenticate_slowly(connection: Connection) -> Identity:
    """Return Alice after a few iterations of the event loop."""
    for _ in range(3):
        await checkpoint()
    return authenticate_alice(connection)


@with_and_without_lifespan
@pytest.mark.parametrize("reads_body", [True, False], ids=["reads", "responds at once"])
async def test_slow_hook_is_awaited_in_the_background(
    lifespan: bool, reads_body: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A14, P06: the upload is tracked and named in the response, with and without lifespan."""
    # On a slow machine, a few iterations may take longer than the default.
    monkeypatch.setattr(authentication, "RESPONSE_WAIT_SECONDS", 10.0)
    tracker = ProgressTracker()
    seen = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        if reads_body:
            await receive()
            await wait_until(lambda: tracker.statistics().live_uploads)
            seen.append((await tracker.get(UPLOAD_ID, owner=ALICE)).bytes_transferred)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, messages=body_messages(b"abc"), authenticate=authenticate_slowly
        )
        await wait_for_end(tracker)

    assert seen == [3] * reads_body
    assert server.headers["upload-id"] == UPLOAD_ID
    assert server.headers["link"] == f'</uploads/{UPLOAD_ID}/progress>; rel="status"'


@with_and_without_lifespan
async def test_claim_precedes_a_later_identity(lifespan: bool) -> None:
    """I5: the first owner keeps the upload, also if the hook returns another one later."""
    tracker = ProgressTracker()
    go = anyio.Event()
    answered = anyio.Event()

    async def hook(_connection: Connection) -> Identity:
        await go.wait()
        answered.set()
        return BOB

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert current_upload(scope).claim(ALICE)
        go.set()
        await answered.wait()
        await checkpoint()
        assert not current_upload(scope).claim(BOB)
        await read_and_respond(scope, receive, send)

    async with tracker_lifespan(tracker, lifespan):
        await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)
        progress = await wait_for_end(tracker)
        with pytest.raises(UploadNotFound):
            await tracker.get(UPLOAD_ID, owner=BOB)

    assert progress.bytes_transferred == 3


async def test_identity_after_the_response_owns_the_ended_upload() -> None:
    """A14: the response was sent before the hook returned; the ended upload appears."""
    tracker = ProgressTracker()
    go = anyio.Event()

    async def hook(connection: Connection) -> Identity:
        await go.wait()
        return authenticate_alice(connection)

    async with tracker_lifespan(tracker, lifespan=True):
        server = await run_request(
            read_and_respond, tracker, messages=body_messages(b"abc"), authenticate=hook
        )
        go.set()
        progress = await wait_for_end(tracker)

    assert "upload-id" not in server.headers
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


async def test_upload_beyond_the_limit_is_received_untracked() -> None:
    """R01: a quota does not refuse the upload; it is counted once as untracked."""
    tracker = ProgressTracker(limits=Limits(tracked_per_owner=1))

    async with tracker_lifespan(tracker, lifespan=True), tracker.track(owner=ALICE):
        server = await run_request(read_and_respond, tracker, messages=body_messages(b"abc"))

    assert server.status == 200
    assert "upload-id" not in server.headers
    assert tracker.statistics().untracked == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_task_in_a_hook_does_not_stop_the_tracker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A14, R07: a stray CancelledError does not end the tracker's background tasks."""
    tracker = ProgressTracker()

    async def hook(_connection: Connection) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async with tracker_lifespan(tracker, lifespan=True):
        server = await run_request(
            read_and_respond, tracker, messages=body_messages(b"abc"), authenticate=hook
        )
        await run_request(read_and_respond, tracker, messages=body_messages(b"next"))
        progress = await wait_for_end(tracker)

    assert server.status == 200
    assert progress.bytes_transferred == 4
    assert caplog.messages == [
        "authenticate was cancelled (CancelledError); uploads are not affected"
    ]


async def test_hook_is_called_again_with_the_first_message() -> None:
    """Inner middleware has put the user into the scope by then."""
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = "alice"
        await read_and_respond(scope, receive, send)

    def hook(connection: Connection) -> Identity:
        return Identity(connection.scope["user"])

    server = await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)

    assert server.headers["upload-id"] == UPLOAD_ID
    assert (await wait_for_end(tracker)).bytes_transferred == 3


async def test_hook_is_called_again_before_the_response() -> None:
    """For an application that responds without reading."""
    tracker = ProgressTracker()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["user"] = "alice"
        await send_response(send)

    def hook(connection: Connection) -> Identity | None:
        name = connection.scope.get("user")
        return None if name is None else Identity(name)

    server = await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)

    assert server.headers["upload-id"] == UPLOAD_ID
    assert (await wait_for_end(tracker)).bytes_transferred == 0


CANARY = "canary-7f3a"


async def fail_with_secret() -> None:
    raise OSError(f"redis://:{CANARY}@example.org")


@with_and_without_lifespan
@pytest.mark.parametrize("outcome", ["ok", "raises", "hook raises", "hook raises later", "store"])
async def test_secrets_are_not_logged(
    lifespan: bool, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A18, I14: tokens in query, cookie, header and errors are in no log message or repr."""
    store = FailingStore(fail_with_secret) if outcome == "store" else MemoryStore()
    tracker = ProgressTracker(store=store)
    texts: list[str] = []

    def hook(connection: Connection) -> Identity | Awaitable[Identity]:
        texts.append(repr(connection))
        if outcome == "hook raises":
            raise LookupError(connection.header("authorization"))
        return fail_later(connection) if outcome == "hook raises later" else ALICE

    async def fail_later(connection: Connection) -> Identity:
        raise LookupError(connection.cookie("session"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        upload = current_upload(scope)
        texts.extend([repr(scope["upload_progress"]), repr(upload), repr(tracker)])
        await read_body(receive)
        if outcome == "raises":
            raise RuntimeError(CANARY)
        await send_response(send)

    scope = upload_scope(
        headers=[
            (b"authorization", f"Bearer {CANARY}".encode()),
            (b"cookie", f"session={CANARY}".encode()),
        ],
        query_string=f"access_token={CANARY}".encode(),
    )
    with caplog.at_level(logging.DEBUG):
        async with tracker_lifespan(tracker, lifespan):
            try:
                await run_request(
                    app, tracker, scope=scope, messages=body_messages(b"abc"), authenticate=hook
                )
            except RuntimeError:
                assert outcome == "raises"
            try:
                texts.append(repr(await tracker.list(owner=ALICE)))
            except StoreUnavailable as error:
                texts.append(repr(error))

    texts += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert len(texts) > 3
    assert [line for line in texts if CANARY in line] == []


async def test_authenticate_is_required() -> None:
    """A03: the middleware cannot be created without it."""
    with pytest.raises(InvalidValue, match="authenticate"):
        UploadProgressMiddleware(
            read_and_respond,
            tracker=ProgressTracker(),
            authenticate=None,  # type: ignore[arg-type]  # the invalid value under test
        )


async def test_current_upload_without_middleware_names_the_cause() -> None:
    with pytest.raises(MiddlewareMissing, match="UploadProgressMiddleware"):
        current_upload(upload_scope())


class Request:
    """A request of a framework, with a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


@pytest.mark.parametrize("wrap", [Request, lambda scope: scope], ids=["request", "scope"])
async def test_current_upload_returns_the_upload(wrap: Callable[[Scope], Request]) -> None:
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        upload = current_upload(wrap(scope))
        await read_body(receive)
        assert (upload.upload_id, upload.received_bytes, upload.is_tracked) == (UPLOAD_ID, 3, True)
        upload.fail("a virus")
        await send_response(send)

    await run_request(app, tracker, messages=body_messages(b"abc"))

    progress = await wait_for_end(tracker)
    assert progress.error is not None
    assert (progress.error.message, progress.error.http_status) == ("a virus", 200)


async def test_current_upload_with_an_unreadable_head(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """I2: should reading a head ever fail, then nothing is followed, and nothing else differs."""
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert not current_upload(scope).is_tracked
        await read_and_respond(scope, receive, send)

    scope = upload_scope(headers=[(7, b"no header")])  # type: ignore[list-item]  # the invalid value under test
    server = await run_request(app, tracker, scope=scope, messages=body_messages(b"abc"))

    assert server.headers == {"content-type": "text/plain"}
    assert caplog.messages == [
        "reading a request head failed (AttributeError); uploads are not affected"
    ]
