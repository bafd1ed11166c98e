"""Whose an upload is, and under which id: nobody gets another's, and no id stops an upload."""

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

lifespans = pytest.mark.parametrize("lifespan", [True, False], ids=["lifespan", "lazy"])


async def sink(_scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await send_response(send)


def by_header(connection: Connection) -> Identity | None:
    """Believe the header: it is a test."""
    name = connection.header("x-user")
    return None if name is None else Identity(name)


def anybody(_connection: Connection) -> Identity:
    return CapabilityIdentity()


def of_user(name: str, upload_id: str = UPLOAD_ID) -> Scope:
    return upload_scope(upload_id, headers=[(b"x-user", name.encode())])


@lifespans
async def test_an_id_belongs_to_its_owner_alone(lifespan: bool) -> None:
    """A07, I5: Bob uploads under the id that Alice is uploading under; neither sees the other."""
    tracker = ProgressTracker()
    servers = [ScriptedServer(body_messages(b"abc")[:1]), ScriptedServer(body_messages(b"of bob"))]

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def of_alice() -> None:
            with pytest.raises(ConnectionError):
                await run_request(
                    sink,
                    tracker,
                    scope=of_user("alice"),
                    server=servers[0],
                    authenticate=by_header,
                )

        tasks.start_soon(of_alice)
        await servers[0].script_ended.wait()
        before = await tracker.get(UPLOAD_ID, owner=ALICE)
        await run_request(
            sink, tracker, scope=of_user("bob"), server=servers[1], authenticate=by_header
        )
        mine = await wait_for_end(tracker, UPLOAD_ID, BOB)
        after = await tracker.get(UPLOAD_ID, owner=ALICE)
        servers[0].client_leaves.set()

    assert (servers[1].status, servers[1].headers["upload-id"]) == (200, UPLOAD_ID)
    assert (mine.state, mine.bytes_transferred) == (UploadState.COMPLETED, 6)
    assert after.state == before.state == UploadState.RECEIVING
    assert after.bytes_transferred == before.bytes_transferred == 3


@lifespans
async def test_who_uploads_under_a_capability_in_use_gets_another(lifespan: bool) -> None:
    """A07, I5: where the id is the key, the later upload gets a key of its own."""
    tracker = ProgressTracker()
    servers = [ScriptedServer(body_messages(b"abc")[:1]), ScriptedServer(body_messages(b"later"))]

    async with tracker_lifespan(tracker, lifespan), anyio.create_task_group() as tasks:

        async def earlier() -> None:
            with pytest.raises(ConnectionError):
                await run_request(
                    sink,
                    tracker,
                    scope=upload_scope(SECRET_ID),
                    server=servers[0],
                    authenticate=anybody,
                )

        tasks.start_soon(earlier)
        await servers[0].script_ended.wait()
        await run_request(
            sink, tracker, scope=upload_scope(SECRET_ID), server=servers[1], authenticate=anybody
        )
        first = await tracker.get(SECRET_ID, owner=CapabilityIdentity())
        servers[0].client_leaves.set()

    assert servers[1].status == 200
    assert servers[1].headers["upload-id"] != SECRET_ID
    assert (first.state, first.bytes_transferred) == (UploadState.RECEIVING, 3)


@pytest.mark.parametrize("upload_id", ["1", "short", "00000000-0000-0000-0000-000000000000"])
async def test_a_guessable_id_is_no_capability(upload_id: str) -> None:
    """The contract's section 5: only what can hold 120 random bits; else a fresh id."""
    tracker = ProgressTracker()

    server = await run_request(
        sink,
        tracker,
        scope=upload_scope(upload_id),
        messages=body_messages(b"x"),
        authenticate=anybody,
    )

    given_id = server.headers["upload-id"]
    assert given_id != upload_id
    assert (await wait_for_end(tracker, given_id, CapabilityIdentity())).bytes_transferred == 1
    with pytest.raises(UploadNotFound):
        await tracker.get(upload_id, owner=CapabilityIdentity())


@lifespans
async def test_an_ended_id_shows_nobody_else_its_past(lifespan: bool) -> None:
    """A08: Bob takes the id of an upload of Alice that has ended; he sees his own, she hers."""
    tracker = ProgressTracker()

    async with tracker_lifespan(tracker, lifespan):
        for name, content in (("alice", b"of alice"), ("bob", b"bob")):
            await run_request(
                sink,
                tracker,
                scope=of_user(name),
                messages=body_messages(content),
                authenticate=by_header,
            )
        hers, his = (
            await wait_for_end(tracker, UPLOAD_ID, ALICE),
            await wait_for_end(tracker, UPLOAD_ID, BOB),
        )

    assert (hers.attempt, hers.bytes_transferred) == (1, 8)
    assert (his.attempt, his.bytes_transferred) == (1, 3)


@lifespans
async def test_of_100_claims_at_once_one_holds(lifespan: bool) -> None:
    """A08, I5: one owner, whatever the order; all others are told no and see nothing."""
    tracker = ProgressTracker()
    won: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def claim(name: str) -> None:
            if current_upload(scope).claim(name):
                won.append(name)

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(claim, f"user-{number}")
        await read_body(receive)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(
            app, tracker, messages=body_messages(b"a", b"b"), authenticate=lambda _: None
        )
        progress = await wait_for_end(tracker, UPLOAD_ID, won[0])
        for number in range(100):
            if f"user-{number}" not in won:
                with pytest.raises(UploadNotFound):
                    await tracker.get(UPLOAD_ID, owner=f"user-{number}")

    assert (len(won), server.headers["upload-id"]) == (1, UPLOAD_ID)
    assert progress.bytes_transferred == 2


@lifespans
@pytest.mark.parametrize("size", [1, LARGE_BYTES])
async def test_a_claim_of_a_small_upload_leaves_nothing_behind(lifespan: bool, size: int) -> None:
    """R02: an endpoint that claims whatever comes does not fill the registry."""
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


BAD_IDS = [
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


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
@pytest.mark.parametrize("place", ["upload-id", "x-progress-id", "upload_id", "X-Progress-ID"])
async def test_no_id_stops_an_upload(
    bad: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A10, I13: it is received under a fresh id, and no log line is broken."""
    tracker = ProgressTracker()
    raw = bad.encode("utf-8", "surrogatepass")
    if place.islower() and "-" in place:
        scope = upload_scope(None, headers=[(place.encode(), raw)])
    else:
        scope = upload_scope(None, query_string=f"{place}={quote(raw)}".encode())

    with caplog.at_level(logging.DEBUG):
        server = await run_request(
            sink, tracker, scope=scope, messages=body_messages(bytes(LARGE_BYTES))
        )

    given_id = server.headers["upload-id"]
    assert server.status == 200
    assert is_upload_id(given_id)
    assert given_id != bad
    assert (await wait_for_end(tracker, given_id)).bytes_transferred == LARGE_BYTES
    assert all("\n" not in message and "\r" not in message for message in caplog.messages)


@settings(max_examples=1000)
@given(raw=st.binary(max_size=200), query=st.binary(max_size=200))
async def test_any_bytes_in_a_head_are_received(raw: bytes, query: bytes) -> None:
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
        sink, tracker, scope=scope, messages=body_messages(bytes(LARGE_BYTES))
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
async def test_the_first_id_speaks_and_nobody_after_it(
    headers: list[tuple[bytes, bytes]], query: bytes, expected: str | None
) -> None:
    """A12: twice, and differing: one wins by a rule, never two; a bad one is not replaced."""
    tracker = ProgressTracker()

    scope = upload_scope(None, headers=headers, query_string=query)
    server = await run_request(sink, tracker, scope=scope, messages=body_messages(b"x"))
    page = await tracker.list(owner=ALICE)

    found = server.headers["upload-id"]
    assert [upload.upload_id for upload in page.uploads] == [found]
    assert found == expected or (expected is None and found not in {"not/one", "two", "three"})


async def test_ids_made_here_are_random() -> None:
    """A13: at least 128 bits, each of which varies: no counter and no time."""
    tracker = ProgressTracker()
    numbers = []
    for _ in range(64):
        server = await run_request(
            sink,
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
    return "alice"  # type: ignore[return-value]  # that is what is tried


async def wrong_type_later(_connection: Connection) -> Identity:
    return {"sub": "alice"}  # type: ignore[return-value]  # that is what is tried


def nobody(_connection: Connection) -> None:
    """Nobody is nobody."""


class Odd(Identity):
    """An identity whose own code fails."""

    def owner_of(self, upload_id: str) -> str:
        raise RuntimeError(upload_id)


def odd(_connection: Connection) -> Identity:
    return Odd("odd")


async def odd_later(_connection: Connection) -> Identity:
    return Odd("odd")


FAILING: list[tuple[Authenticate, str]] = [
    (hangs, ""),
    (raises_later, "LookupError"),
    (raises_at_once, "LookupError"),
    (raises, "LookupError"),
    (wrong_type, "no Identity"),
    (wrong_type_later, "no Identity"),
    (nobody, ""),
    (odd, "RuntimeError"),
    (odd_later, "RuntimeError"),
]


@lifespans
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "announced"])
@pytest.mark.parametrize(
    ("authenticate", "complaint"), FAILING, ids=lambda value: getattr(value, "__name__", None)
)
async def test_a_hook_that_fails_fails_no_upload(
    lifespan: bool,
    chunked: bool,
    authenticate: Authenticate,
    complaint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A14, R07, I2: raises, hangs, is wrong: received untracked, and one line says it."""
    tracker = ProgressTracker()

    with anyio.fail_after(2):
        async with tracker_lifespan(tracker, lifespan):
            scope = upload_scope(None, length=None if chunked else 2 * LARGE_BYTES)
            server = await run_request(
                sink,
                tracker,
                scope=scope,
                messages=body_messages(bytes(LARGE_BYTES), bytes(LARGE_BYTES)),
                authenticate=authenticate,
            )

    assert (server.status, server.content) == (200, b"done")
    assert server.headers == {"content-type": "text/plain"}
    assert tracker.statistics().live_uploads == 0
    assert [complaint in message for message in caplog.messages] == [True] * bool(complaint)


@lifespans
async def test_a_hook_that_hangs_is_not_asked_twice_at_a_time(lifespan: bool) -> None:
    """A14, I9: one question for each upload, as long as it is not answered."""
    tracker = ProgressTracker()
    asked = []

    async def hook(connection: Connection) -> None:
        asked.append(connection)
        await hangs(connection)

    with anyio.fail_after(2):
        async with tracker_lifespan(tracker, lifespan):
            await run_request(sink, tracker, messages=body_messages(b"a", b"b"), authenticate=hook)

    assert len(asked) == 1


async def slow(connection: Connection) -> Identity:
    """Take a few turns of the loop, as a look into a cache does."""
    for _ in range(3):
        await checkpoint()
    return authenticate_alice(connection)


@lifespans
@pytest.mark.parametrize("read", [True, False], ids=["reads", "answers at once"])
async def test_a_hook_that_takes_its_time_is_waited_for_beside(
    lifespan: bool, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A14, P06: async, with or without lifespan: tracked while it comes, and named."""
    # A busy machine takes its time for a few turns of the loop.
    monkeypatch.setattr(authentication, "RESPONSE_WAIT_SECONDS", 10.0)
    tracker = ProgressTracker()
    seen = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        if read:
            await receive()
            await wait_until(lambda: tracker.statistics().live_uploads)
            seen.append((await tracker.get(UPLOAD_ID, owner=ALICE)).bytes_transferred)
        await send_response(send)

    async with tracker_lifespan(tracker, lifespan):
        server = await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=slow)
        await wait_for_end(tracker)

    assert seen == [3] * read
    assert server.headers["upload-id"] == UPLOAD_ID
    assert server.headers["link"] == f'</uploads/{UPLOAD_ID}/progress>; rel="status"'


@lifespans
async def test_a_claim_goes_before_an_identity_that_comes_later(lifespan: bool) -> None:
    """I5: the first owner keeps the upload, whoever the hook takes it for a moment later."""
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
        await sink(scope, receive, send)

    async with tracker_lifespan(tracker, lifespan):
        await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)
        progress = await wait_for_end(tracker)
        with pytest.raises(UploadNotFound):
            await tracker.get(UPLOAD_ID, owner=BOB)

    assert progress.bytes_transferred == 3


async def test_an_identity_that_comes_late_still_owns_the_end() -> None:
    """A14: the answer was quicker than the hook; the upload appears, ended."""
    tracker = ProgressTracker()
    go = anyio.Event()

    async def hook(connection: Connection) -> Identity:
        await go.wait()
        return authenticate_alice(connection)

    async with tracker_lifespan(tracker, lifespan=True):
        server = await run_request(sink, tracker, messages=body_messages(b"abc"), authenticate=hook)
        go.set()
        progress = await wait_for_end(tracker)

    assert "upload-id" not in server.headers
    assert (progress.state, progress.bytes_transferred) == (UploadState.COMPLETED, 3)


async def test_beyond_the_limit_an_upload_is_received_untracked() -> None:
    """R01: a quota refuses no upload, and counts it once, however often it is asked for."""
    tracker = ProgressTracker(limits=Limits(tracked_per_owner=1))

    async with tracker_lifespan(tracker, lifespan=True), tracker.track(owner=ALICE):
        server = await run_request(sink, tracker, messages=body_messages(b"abc"))

    assert server.status == 200
    assert "upload-id" not in server.headers
    assert tracker.statistics().untracked == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hook_that_waited_for_a_cancelled_task_ends_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A14, R07: a stray CancelledError must not take the tracker's background down."""
    tracker = ProgressTracker()

    async def hook(_connection: Connection) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async with tracker_lifespan(tracker, lifespan=True):
        server = await run_request(sink, tracker, messages=body_messages(b"abc"), authenticate=hook)
        await run_request(sink, tracker, messages=body_messages(b"next"))
        progress = await wait_for_end(tracker)

    assert server.status == 200
    assert progress.bytes_transferred == 4
    assert caplog.messages == [
        "authenticate was cancelled (CancelledError); uploads are not affected"
    ]


async def test_whoever_is_known_further_in_is_asked_for_again() -> None:
    """The hook reads what middleware inside ours has put into the scope by the first message."""
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = "alice"
        await sink(scope, receive, send)

    def hook(connection: Connection) -> Identity:
        return Identity(connection.scope["user"])

    server = await run_request(app, tracker, messages=body_messages(b"abc"), authenticate=hook)

    assert server.headers["upload-id"] == UPLOAD_ID
    assert (await wait_for_end(tracker)).bytes_transferred == 3


async def test_whoever_is_known_at_the_answer_is_asked_for_then() -> None:
    """The same, for an application that answers without reading."""
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


async def broken() -> None:
    raise OSError(f"redis://:{CANARY}@example.org")


@lifespans
@pytest.mark.parametrize("outcome", ["ok", "raises", "hook raises", "hook raises later", "store"])
async def test_no_secret_is_said(
    lifespan: bool, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A18, I14: tokens in query, cookie, header and errors are in no log line or repr of ours."""
    store = FailingStore(broken) if outcome == "store" else MemoryStore()
    tracker = ProgressTracker(store=store)
    said: list[str] = []

    def hook(connection: Connection) -> Identity | Awaitable[Identity]:
        said.append(repr(connection))
        if outcome == "hook raises":
            raise LookupError(connection.header("authorization"))
        return later(connection) if outcome == "hook raises later" else ALICE

    async def later(connection: Connection) -> Identity:
        raise LookupError(connection.cookie("session"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        upload = current_upload(scope)
        said.extend([repr(scope["upload_progress"]), repr(upload), repr(tracker)])
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
                said.append(repr(await tracker.list(owner=ALICE)))
            except StoreUnavailable as error:
                said.append(repr(error))

    said += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert len(said) > 3
    assert [line for line in said if CANARY in line] == []


async def test_authenticate_is_required() -> None:
    """A03: no hook, no middleware."""
    with pytest.raises(InvalidValue, match="authenticate"):
        UploadProgressMiddleware(
            sink,
            tracker=ProgressTracker(),
            authenticate=None,  # type: ignore[arg-type]  # that is what is tried
        )


async def test_without_the_middleware_current_upload_says_what_to_add() -> None:
    with pytest.raises(MiddlewareMissing, match="UploadProgressMiddleware"):
        current_upload(upload_scope())


class Request:
    """What a framework's request looks like to us."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


@pytest.mark.parametrize("wrap", [Request, lambda scope: scope], ids=["request", "scope"])
async def test_the_endpoint_finds_its_upload(wrap: Callable[[Scope], Request]) -> None:
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


async def test_an_unreadable_head_leaves_the_endpoint_its_upload(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """I2: should reading a head ever fail, then nothing is followed, and nothing else differs."""
    tracker = ProgressTracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert not current_upload(scope).is_tracked
        await sink(scope, receive, send)

    scope = upload_scope(headers=[(7, b"no header")])  # type: ignore[list-item]  # that is what is tried
    server = await run_request(app, tracker, scope=scope, messages=body_messages(b"abc"))

    assert server.headers == {"content-type": "text/plain"}
    assert caplog.messages == [
        "reading a request head failed (AttributeError); uploads are not affected"
    ]
