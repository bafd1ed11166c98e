"""Event streams, message by message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from tests._support.asgi_client import (
    AsgiConnection,
    Message,
    as_user,
    build_app,
    client,
    http_scope,
    never,
    open_connection,
    wait_until,
)
from upload_progress import Identity, Limits, MemoryStore, ProgressTracker
from upload_progress._internals import internals_of
from upload_progress.connection import Connection
from upload_progress.starlette import http, sse
from upload_progress.testing import FakeClock, FaultyStore

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream", **as_user("alice")}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    tracker = ProgressTracker(limits=Limits(sockets_per_owner=3))
    async with tracker.lifespan():
        yield tracker


@pytest.fixture
def app(tracker: ProgressTracker) -> Starlette:
    return build_app(tracker)


def stream(path: str, query: str = "", **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http_scope(path, query=query, headers={**STREAM, **named})


async def receive_start(connection: AsgiConnection) -> dict[str, str]:
    """Receive the start of a stream; return its headers."""
    start, first = await connection.receive(), await connection.receive()
    assert start["status"] == 200
    assert first["more_body"]
    retry = int(first["body"].removeprefix(b"retry: ").removesuffix(b"\n\n"))
    assert 1000 <= retry < 3000
    return {name.decode(): value.decode() for name, value in start["headers"]}


async def receive_events(connection: AsgiConnection) -> list[dict[str, Any]]:
    """Return the snapshots of the next chunk; none for a heartbeat or the end."""
    message = await connection.receive()
    parts = message["body"].decode().split("\n\n")
    snapshots = []
    for event in [part for part in parts if part and not part.startswith(":")]:
        name, data = event.split("\n")
        snapshot = json.loads(data.removeprefix("data: "))
        assert name == f"id: {snapshot['sequence']}"
        snapshots.append(snapshot)
    return snapshots


async def receive_end(connection: AsgiConnection) -> None:
    """Receive the end of a stream."""
    message: Message = {"more_body": True}
    while message.get("more_body", False):
        message = await connection.receive()
    assert message["body"] == b""
    with anyio.fail_after(20):
        await connection.ended.wait()


async def test_stream_of_an_upload_ends_with_it(app: Starlette, tracker: ProgressTracker) -> None:
    upload_id = (await tracker.announce(owner="alice", total_bytes=100)).upload_id
    async with open_connection(app, stream(f"/uploads/{upload_id}/progress")) as connection:
        headers = await receive_start(connection)
        seen = await receive_events(connection)
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            upload.advance(50)
            while seen[-1]["bytes_transferred"] < 50:
                seen += await receive_events(connection)
        while seen[-1]["state"] != "completed":
            seen += await receive_events(connection)
        await receive_end(connection)

    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["incremental"] == "?1"
    assert seen[0]["state"] == "pending"
    sequences = [snapshot["sequence"] for snapshot in seen]
    assert sequences == sorted(set(sequences))
    assert tracker.statistics().subscriptions == 0


@pytest.fixture
async def ended(tracker: ProgressTracker) -> str:
    """An upload that has ended; its last snapshot is stored."""
    async with tracker.track(owner="alice", total_bytes=1) as upload:
        upload.advance(1)
    await wait_until(lambda: tracker.statistics().live_uploads == 0)
    return upload.upload_id


async def test_late_client_gets_the_end(app: Starlette, ended: str) -> None:
    async with open_connection(app, stream(f"/uploads/{ended}/progress")) as connection:
        await receive_start(connection)
        [snapshot] = await receive_events(connection)
        await receive_end(connection)

    assert snapshot["state"] == "completed"


@pytest.mark.parametrize("place", ["header", "query"])
async def test_client_that_has_the_end_gets_204(
    app: Starlette, tracker: ProgressTracker, ended: str, place: str
) -> None:
    """A 204 makes an EventSource stop."""
    last = str((await tracker.get(ended, owner="alice")).sequence)
    path = f"/uploads/{ended}/progress"
    scope = (
        stream(path, last_event_id=last)
        if place == "header"
        else stream(path, f"last_event_id={last}")
    )
    async with open_connection(app, scope) as connection:
        status, _, body = await connection.receive_response()

    assert (status, body) == (204, b"")


@pytest.mark.parametrize(
    "last", ["", "0", "-1", "1e400", "999999999999999999999", "1\r\ndata: x", "é", "\x00"]
)
async def test_other_last_event_id_gets_the_current_snapshot(
    app: Starlette, ended: str, last: str
) -> None:
    """Old, negative, huge and malformed ids."""
    async with open_connection(
        app, stream(f"/uploads/{ended}/progress", last_event_id=last)
    ) as connection:
        await receive_start(connection)
        [snapshot] = await receive_events(connection)

    assert snapshot["upload_id"] == ended


async def test_open_upload_is_shown_with_its_current_last_event_id(
    app: Starlette, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice", upload_id="mine"):
        sequence = str((await tracker.get("mine", owner="alice")).sequence)
        async with open_connection(
            app, stream("/uploads/mine/progress", last_event_id=sequence)
        ) as connection:
            await receive_start(connection)
            assert (await receive_events(connection))[0]["state"] == "receiving"


async def test_file_name_with_line_breaks_stays_inside_one_event(app: Starlette) -> None:
    """Line breaks and separators of Unicode are escaped."""
    name = "a\n\ndata: evil\r\rid: 1\u2028\u2029"
    async with client(app) as http:
        path = (await http.post("/uploads", json={"filename": name})).headers["location"]
    async with open_connection(app, stream(path)) as connection:
        await receive_start(connection)
        message = await connection.receive()

    assert message["body"].count(b"\n") == 3
    assert b"\r" not in message["body"]


@pytest.mark.parametrize("path", ["/uploads/progress", "/uploads/{}/progress"])
async def test_head_returns_the_headers_of_a_stream(
    app: Starlette, tracker: ProgressTracker, ended: str, path: str
) -> None:
    scope = {**stream(path.format(ended)), "method": "HEAD"}
    async with open_connection(app, scope) as connection:
        status, headers, body = await connection.receive_response()

    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert tracker.statistics().subscriptions == 0


async def test_list_stream_shows_present_and_later_uploads(
    app: Starlette, tracker: ProgressTracker, ended: str
) -> None:
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        seen = await receive_events(connection)
        async with tracker.track(owner="alice", upload_id="new", group="g"):
            while seen[-1]["upload_id"] != "new":
                seen += await receive_events(connection)
        while seen[-1]["state"] != "completed":
            seen += await receive_events(connection)
        assert not connection.ended.is_set()

    assert seen[0]["upload_id"] == ended


async def test_empty_list_stream_begins_at_once(app: Starlette) -> None:
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)


async def test_list_stream_is_filtered_by_group(app: Starlette, tracker: ProgressTracker) -> None:
    async with open_connection(app, stream("/uploads/progress", "group=g")) as connection:
        await receive_start(connection)
        async with (
            tracker.track(owner="alice", upload_id="other"),
            tracker.track(owner="alice", upload_id="in-it", group="g"),
        ):
            [snapshot, *_] = await receive_events(connection)

    assert snapshot["upload_id"] == "in-it"


async def test_upload_that_leaves_the_state_filter_is_shown_once_more(
    app: Starlette, tracker: ProgressTracker, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_SHOWN_UPLOADS", 1)
    async with open_connection(app, stream("/uploads/progress", "state=receiving")) as connection:
        await receive_start(connection)
        seen: list[dict[str, Any]] = []
        for upload_id in ("one", "two"):
            async with tracker.track(owner="alice", upload_id=upload_id):
                while not seen or seen[-1]["upload_id"] != upload_id:
                    seen += await receive_events(connection)
            while seen[-1]["state"] == "receiving":
                seen += await receive_events(connection)

    shown = [(snapshot["upload_id"], snapshot["state"]) for snapshot in seen]
    assert ended not in {upload_id for upload_id, _ in shown}
    assert list(dict.fromkeys(shown)) == [
        ("one", "receiving"),
        ("one", "completed"),
        ("two", "receiving"),
        ("two", "completed"),
    ]


async def test_memory_of_shown_uploads_is_bounded(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_SHOWN_UPLOADS", 1)
    async with open_connection(app, stream("/uploads/progress", "state=receiving")) as connection:
        await receive_start(connection)
        async with (
            tracker.track(owner="alice", upload_id="one"),
            tracker.track(owner="alice", upload_id="two"),
        ):
            seen: set[str] = set()
            while seen != {"one", "two"}:
                seen |= {snapshot["upload_id"] for snapshot in await receive_events(connection)}


async def test_many_events_are_written_in_batches(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "EVENTS_PER_WRITE", 2)
    for _ in range(5):
        await tracker.announce(owner="alice")
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        event_counts = [len(await receive_events(connection)) for _ in range(3)]

    assert event_counts == [2, 2, 1]


async def test_invalid_filter_gives_422(app: Starlette) -> None:
    async with open_connection(app, stream("/uploads/progress", "state=x")) as connection:
        assert (await connection.receive_response())[0] == 422


async def test_idle_stream_gets_heartbeats(app: Starlette, tracker: ProgressTracker) -> None:
    """A comment every 15 s keeps proxies from closing the connection."""
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        internals_of(tracker).hub.wake_for_heartbeats(tracker.config.clock.monotonic() + 16, 10)
        message = await connection.receive()

    assert (message["body"], message["more_body"]) == (b": heartbeat\n\n", True)


async def test_stream_ends_after_its_maximum_duration(tracker: ProgressTracker) -> None:
    app = build_app(tracker, stream_life_seconds=0.02)
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        await receive_end(connection)


@pytest.mark.parametrize("path", ["/uploads/x/progress", "/uploads/progress"])
async def test_stream_has_no_events_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """An ``EventSource`` ends for good at any other status than 200, so it is asked to return."""
    monkeypatch.setattr(http, "MIN_RETRY_SECONDS", 0)
    monkeypatch.setattr(http, "RETRY_SPREAD_SECONDS", 1)
    tracker = ProgressTracker(store=FaultyStore(MemoryStore(), fault="raise"))
    app = build_app(tracker)
    async with client(app) as requests:
        head = await requests.head(path, headers=STREAM)
    assert (head.status_code, head.headers["retry-after"]) == (503, "0")

    async with open_connection(app, stream(path)) as connection:
        assert (await receive_start(connection))["retry-after"] == "0"
        comment = await connection.receive()
        assert comment["body"].startswith(b": The session store is not available")
        await receive_end(connection)
    async with open_connection(app, stream(path)) as connection:
        await receive_start(connection)
        tracker.drain()
        await receive_end(connection)
    assert tracker.statistics().subscriptions == 0


async def test_drain_ends_streams(app: Starlette, tracker: ProgressTracker) -> None:
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        tracker.drain()
        await receive_end(connection)


async def test_disconnected_client_leaves_no_subscription(
    app: Starlette, tracker: ProgressTracker
) -> None:
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        await connection.send(type="http.disconnect")
        with anyio.fail_after(20):
            await connection.receive()
            await connection.ended.wait()

    assert tracker.statistics().subscriptions == 0


async def test_failing_send_ends_the_stream(app: Starlette, tracker: ProgressTracker) -> None:
    """The application raises no exception."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        raise OSError

    with anyio.fail_after(20):
        await app(stream("/uploads/progress"), never, send)

    assert sent[0]["status"] == 200
    assert tracker.statistics().subscriptions == 0


async def test_stream_of_a_client_that_does_not_read_ends(
    tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "FINAL_WRITE_SECONDS", 0.02)
    app = build_app(tracker, stream_life_seconds=0.02)

    async def receive() -> Message:
        return await never()

    async def send(_message: Message) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(20):
        await app(stream("/uploads/progress"), receive, send)


async def test_streams_count_towards_the_connection_limit(
    app: Starlette, tracker: ProgressTracker
) -> None:
    paths = "/uploads/progress", "/uploads/progress", "/uploads/progress"
    async with (
        open_connection(app, stream(paths[0])) as one,
        open_connection(app, stream(paths[1])) as two,
        open_connection(app, stream(paths[2])) as three,
    ):
        for connection in (one, two, three):
            await receive_start(connection)
        async with open_connection(app, stream("/uploads/progress")) as connection:
            status, headers, _ = await connection.receive_response()
        assert (status, headers["retry-after"]) == (429, "5")
        async with open_connection(
            app, {**stream("/uploads/progress", **as_user("bob"))}
        ) as connection:
            await receive_start(connection)
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
    assert tracker.statistics().subscriptions == 0


async def test_stream_ends_when_the_user_signs_out(tracker: ProgressTracker) -> None:
    """The next check finds that the user has signed out."""
    signed_in = {"alice"}

    def by_name(connection: Connection) -> Identity | None:
        return Identity("alice") if "alice" in signed_in else None

    app = build_app(tracker, authenticate=by_name, revalidate_seconds=0.02)
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        signed_in.clear()
        await receive_end(connection)


async def test_stream_ends_when_the_identity_expires(clock: FakeClock) -> None:
    """The stream does not wait for the next check."""
    ends = clock.time() + 0.05
    app = build_app(
        ProgressTracker(clock=clock), authenticate=lambda _: Identity("alice", expires_at=ends)
    )
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        clock.advance(1)
        await receive_end(connection)


async def test_renewed_identity_keeps_the_stream_open(clock: FakeClock) -> None:
    checks = 0

    def renewing(_connection: Connection) -> Identity | None:
        nonlocal checks
        checks += 1
        if checks > 3:
            return Identity("mallory")
        if checks == 2:
            clock.advance(1)
        return Identity("alice", expires_at=clock.time() + (0.01 if checks == 1 else 100))

    app = build_app(ProgressTracker(clock=clock), authenticate=renewing, revalidate_seconds=0.02)
    async with open_connection(app, stream("/uploads/progress")) as connection:
        await receive_start(connection)
        await receive_end(connection)

    assert checks == 4
