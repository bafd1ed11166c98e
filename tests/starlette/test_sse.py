"""Event streams, message by message: what comes first, when they end, and who may keep them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from tests._support.asgi_client import (
    Line,
    Message,
    as_user,
    build_app,
    call,
    client,
    http_scope,
    never,
    until,
)
from upload_progress import Identity, Limits, ProgressTracker
from upload_progress.connection import Connection
from upload_progress.starlette import sse
from upload_progress.tracker import internals_of

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream", **as_user("alice")}


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


async def hear_start(line: Line) -> dict[str, str]:
    """Hear the head of a stream, and its first words."""
    start, first = await line.hear(), await line.hear()
    assert start["status"] == 200
    assert first["more_body"]
    retry = int(first["body"].removeprefix(b"retry: ").removesuffix(b"\n\n"))
    assert 1000 <= retry < 3000
    return {name.decode(): value.decode() for name, value in start["headers"]}


async def hear_events(line: Line) -> list[dict[str, Any]]:
    """Return the snapshots of the next chunk; none where the stream ends or beats."""
    message = await line.hear()
    parts = message["body"].decode().split("\n\n")
    snapshots = []
    for event in [part for part in parts if part and not part.startswith(":")]:
        name, data = event.split("\n")
        snapshot = json.loads(data.removeprefix("data: "))
        assert name == f"id: {snapshot['sequence']}"
        snapshots.append(snapshot)
    return snapshots


async def hear_end(line: Line) -> None:
    """Hear that a stream ends cleanly."""
    message: Message = {"more_body": True}
    while message.get("more_body", False):
        message = await line.hear()
    assert message["body"] == b""
    with anyio.fail_after(5):
        await line.ended.wait()


async def test_an_upload_is_followed_to_its_end(app: Starlette, tracker: ProgressTracker) -> None:
    upload_id = (await tracker.announce(owner="alice", total_bytes=100)).upload_id
    async with call(app, stream(f"/uploads/{upload_id}/progress")) as line:
        headers = await hear_start(line)
        seen = await hear_events(line)
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            upload.advance(50)
            while seen[-1]["bytes_transferred"] < 50:
                seen += await hear_events(line)
        while seen[-1]["state"] != "completed":
            seen += await hear_events(line)
        await hear_end(line)

    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["x-accel-buffering"] == "no"
    assert headers["cache-control"] == "no-store"
    assert seen[0]["state"] == "pending"
    sequences = [snapshot["sequence"] for snapshot in seen]
    assert sequences == sorted(set(sequences))
    assert tracker.statistics().subscriptions == 0


@pytest.fixture
async def ended(tracker: ProgressTracker) -> str:
    """An upload that has ended; its last snapshot is stored."""
    async with tracker.track(owner="alice", total_bytes=1) as upload:
        upload.advance(1)
    await until(lambda: tracker.statistics().live_uploads == 0)
    return upload.upload_id


async def test_who_comes_late_sees_the_end(app: Starlette, ended: str) -> None:
    """W06, W16."""
    async with call(app, stream(f"/uploads/{ended}/progress")) as line:
        await hear_start(line)
        [snapshot] = await hear_events(line)
        await hear_end(line)

    assert snapshot["state"] == "completed"


@pytest.mark.parametrize("place", ["header", "query"])
async def test_who_has_seen_the_end_is_told_to_stop(
    app: Starlette, tracker: ProgressTracker, ended: str, place: str
) -> None:
    """W07, W13: 204 makes an EventSource stop."""
    last = str((await tracker.get(ended, owner="alice")).sequence)
    path = f"/uploads/{ended}/progress"
    scope = (
        stream(path, last_event_id=last)
        if place == "header"
        else stream(path, f"last_event_id={last}")
    )
    async with call(app, scope) as line:
        status, _, body = await line.hear_response()

    assert (status, body) == (204, b"")


@pytest.mark.parametrize(
    "last", ["", "0", "-1", "1e400", "999999999999999999999", "1\r\ndata: x", "é", "\x00"]
)
async def test_any_other_last_event_id_gets_the_current_snapshot(
    app: Starlette, ended: str, last: str
) -> None:
    """W07: old, negative, huge, of another epoch, with a line end."""
    async with call(app, stream(f"/uploads/{ended}/progress", last_event_id=last)) as line:
        await hear_start(line)
        [snapshot] = await hear_events(line)

    assert snapshot["upload_id"] == ended


async def test_an_open_upload_is_shown_whatever_was_seen(
    app: Starlette, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice", upload_id="mine"):
        sequence = str((await tracker.get("mine", owner="alice")).sequence)
        async with call(app, stream("/uploads/mine/progress", last_event_id=sequence)) as line:
            await hear_start(line)
            assert (await hear_events(line))[0]["state"] == "receiving"


async def test_names_cannot_break_out_of_an_event(app: Starlette) -> None:
    """W09: a file name with line ends and separators is inside one event."""
    name = "a\n\ndata: evil\r\rid: 1\u2028\u2029"
    async with client(app) as http:
        path = (await http.post("/uploads", json={"filename": name})).headers["location"]
    async with call(app, stream(path)) as line:
        await hear_start(line)
        message = await line.hear()

    assert message["body"].count(b"\n") == 3
    assert b"\r" not in message["body"]


@pytest.mark.parametrize("path", ["/uploads/progress", "/uploads/{}/progress"])
async def test_head_ends_at_once(
    app: Starlette, tracker: ProgressTracker, ended: str, path: str
) -> None:
    """W13."""
    scope = {**stream(path.format(ended)), "method": "HEAD"}
    async with call(app, scope) as line:
        status, headers, body = await line.hear_response()

    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")
    assert tracker.statistics().subscriptions == 0


async def test_the_list_streams_what_there_is_and_what_comes(
    app: Starlette, tracker: ProgressTracker, ended: str
) -> None:
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        seen = await hear_events(line)
        async with tracker.track(owner="alice", upload_id="new", group="g"):
            while seen[-1]["upload_id"] != "new":
                seen += await hear_events(line)
        while seen[-1]["state"] != "completed":
            seen += await hear_events(line)
        assert not line.ended.is_set()

    assert seen[0]["upload_id"] == ended


async def test_a_list_of_nothing_begins_at_once(app: Starlette) -> None:
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)


async def test_a_list_of_one_group(app: Starlette, tracker: ProgressTracker) -> None:
    async with call(app, stream("/uploads/progress", "group=g")) as line:
        await hear_start(line)
        async with (
            tracker.track(owner="alice", upload_id="other"),
            tracker.track(owner="alice", upload_id="in-it", group="g"),
        ):
            [snapshot, *_] = await hear_events(line)

    assert snapshot["upload_id"] == "in-it"


async def test_a_list_of_some_states_shows_how_uploads_leave_it(
    app: Starlette, tracker: ProgressTracker, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_SHOWN_UPLOADS", 1)
    async with call(app, stream("/uploads/progress", "state=receiving")) as line:
        await hear_start(line)
        seen: list[dict[str, Any]] = []
        for upload_id in ("one", "two"):
            async with tracker.track(owner="alice", upload_id=upload_id):
                while not seen or seen[-1]["upload_id"] != upload_id:
                    seen += await hear_events(line)
            while seen[-1]["state"] == "receiving":
                seen += await hear_events(line)

    told = [(snapshot["upload_id"], snapshot["state"]) for snapshot in seen]
    assert ended not in {upload_id for upload_id, _ in told}
    assert list(dict.fromkeys(told)) == [
        ("one", "receiving"),
        ("one", "completed"),
        ("two", "receiving"),
        ("two", "completed"),
    ]


async def test_what_was_shown_is_remembered_within_bounds(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9."""
    monkeypatch.setattr(sse, "MAX_SHOWN_UPLOADS", 1)
    async with call(app, stream("/uploads/progress", "state=receiving")) as line:
        await hear_start(line)
        async with (
            tracker.track(owner="alice", upload_id="one"),
            tracker.track(owner="alice", upload_id="two"),
        ):
            seen: set[str] = set()
            while seen != {"one", "two"}:
                seen |= {snapshot["upload_id"] for snapshot in await hear_events(line)}


async def test_many_uploads_come_in_portions(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "EVENTS_PER_WRITE", 2)
    for _ in range(5):
        await tracker.announce(owner="alice")
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        portions = [len(await hear_events(line)) for _ in range(3)]

    assert portions == [2, 2, 1]


async def test_a_malformed_filter_is_no_stream(app: Starlette) -> None:
    async with call(app, stream("/uploads/progress", "state=x")) as line:
        assert (await line.hear_response())[0] == 422


async def test_silence_is_filled_with_heartbeats(app: Starlette, tracker: ProgressTracker) -> None:
    """W12: a comment each 15 s keeps proxies from closing the connection."""
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        internals_of(tracker).hub.wake_for_heartbeats(tracker.config.clock.monotonic() + 16, 10)
        message = await line.hear()

    assert (message["body"], message["more_body"]) == (b": heartbeat\n\n", True)


async def test_a_stream_ends_after_its_time(tracker: ProgressTracker) -> None:
    app = build_app(tracker, stream_life_seconds=0.02)
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        await hear_end(line)


async def test_a_drain_ends_streams(app: Starlette, tracker: ProgressTracker) -> None:
    """W11."""
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        tracker.drain()
        await hear_end(line)


async def test_a_client_that_goes_away_leaves_nothing(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """W04."""
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        await line.say(type="http.disconnect")
        with anyio.fail_after(5):
            await line.hear()
            await line.ended.wait()

    assert tracker.statistics().subscriptions == 0


async def test_a_send_that_fails_is_a_client_that_went_away(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """W16: nothing raises out of the application."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        raise OSError

    with anyio.fail_after(5):
        await app(stream("/uploads/progress"), never, send)

    assert sent[0]["status"] == 200
    assert tracker.statistics().subscriptions == 0


async def test_a_client_that_does_not_read_is_let_go_in_the_end(
    tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W08."""
    monkeypatch.setattr(sse, "FINAL_WRITE_SECONDS", 0.02)
    app = build_app(tracker, stream_life_seconds=0.02)

    async def receive() -> Message:
        return await never()

    async def send(_message: Message) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        await app(stream("/uploads/progress"), receive, send)


async def test_streams_are_counted(app: Starlette, tracker: ProgressTracker) -> None:
    paths = "/uploads/progress", "/uploads/progress", "/uploads/progress"
    async with (
        call(app, stream(paths[0])) as one,
        call(app, stream(paths[1])) as two,
        call(app, stream(paths[2])) as three,
    ):
        for line in (one, two, three):
            await hear_start(line)
        async with call(app, stream("/uploads/progress")) as line:
            status, headers, _ = await line.hear_response()
        assert (status, headers["retry-after"]) == (429, "5")
        async with call(app, {**stream("/uploads/progress", **as_user("bob"))}) as line:
            await hear_start(line)
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
    assert tracker.statistics().subscriptions == 0


async def test_a_stream_ends_with_the_users_session(tracker: ProgressTracker) -> None:
    """A15: signed out, while a stream is open."""
    signed_in = {"alice"}

    def by_name(connection: Connection) -> Identity | None:
        return Identity("alice") if "alice" in signed_in else None

    app = build_app(tracker, authenticate=by_name, revalidate_seconds=0.02)
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        signed_in.clear()
        await hear_end(line)


async def test_a_stream_ends_when_its_token_expires(tracker: ProgressTracker) -> None:
    """A15: without waiting for the next check."""
    ends = time.time() + 0.05
    app = build_app(tracker, authenticate=lambda _: Identity("alice", expires_at=ends))
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        await hear_end(line)

    assert time.time() >= ends


async def test_a_renewed_token_keeps_the_stream(tracker: ProgressTracker) -> None:
    checks = 0

    def renewing(_connection: Connection) -> Identity | None:
        nonlocal checks
        checks += 1
        if checks > 3:
            return Identity("mallory")
        return Identity("alice", expires_at=time.time() + (0.01 if checks == 1 else 100))

    app = build_app(tracker, authenticate=renewing, revalidate_seconds=0.02)
    async with call(app, stream("/uploads/progress")) as line:
        await hear_start(line)
        await hear_end(line)

    assert checks == 4
