"""WebSockets, message by message: the handshake, the session and its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from tests._support.asgi_client import (
    AsgiConnection,
    Message,
    RecordingSend,
    as_user,
    build_app,
    client,
    http_scope,
    never,
    open_connection,
    open_socket,
    wait_until,
    websocket_scope,
)
from upload_progress import Identity, InvalidValue, Limits, MemoryStore, ProgressTracker
from upload_progress._internals import internals_of
from upload_progress._model.codec import encode_json
from upload_progress.connection import Connection
from upload_progress.interfaces import RecordPage
from upload_progress.starlette import bearer, connections, websocket
from upload_progress.starlette.messages import parse_client_message

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    limits = Limits(sockets_per_owner=2, subscriptions_per_socket=3, message_bytes=2048)
    tracker = ProgressTracker(limits=limits)
    async with tracker.lifespan():
        yield tracker


@pytest.fixture
def app(tracker: ProgressTracker) -> Starlette:
    return build_app(tracker)


async def announced(
    tracker: ProgressTracker, *, total_bytes: int | None = None, group: str | None = None
) -> str:
    made = await tracker.announce(owner="alice", total_bytes=total_bytes, group=group)
    return made.upload_id


# The handshake


async def test_welcome_is_the_first_message(app: Starlette) -> None:
    async with open_socket(app) as connection:
        welcome = await connection.receive_json()

    assert welcome["type"] == "welcome"
    assert welcome["heartbeat_seconds"] == 15
    assert len(welcome["client_id"]) >= 22


async def test_slash_at_the_end_of_the_path_changes_nothing(app: Starlette) -> None:
    async with client(app) as http:
        made = (await http.post("/uploads")).json()
    path = f"/uploads/{made['upload_id']}/progress/"
    for each in ("/uploads/progress/", path):
        scope = websocket_scope(each, headers=as_user("alice"))
        async with open_connection(app, scope) as connection:
            assert (await connection.receive())["type"] == "websocket.accept"


async def test_token_in_the_subprotocols_is_not_repeated(tracker: ProgressTracker) -> None:
    """The only subprotocol that is ever selected is ``upload-progress``."""

    def by_protocol(connection: Connection) -> Identity | None:
        offered = connection.header("sec-websocket-protocol") or ""
        return Identity("alice") if "canary" in offered else None

    app = build_app(tracker, authenticate=by_protocol)
    for offered, chosen in [(["canary"], None), (["upload-progress", "canary"], "upload-progress")]:
        headers = {"sec-websocket-protocol": ", ".join(offered)}
        scope = websocket_scope("/uploads/progress", headers=headers, subprotocols=offered)
        async with open_connection(app, scope) as connection:
            accepted = await connection.receive()
            assert accepted["subprotocol"] == chosen
            assert "canary" not in repr(accepted)


REFUSALS = [
    ({}, "/uploads/progress", 401, 4401),
    ({"authorization": "Basic !"}, "/uploads/progress", 401, 4401),
    (as_user("alice"), "/uploads/unknown/progress", 404, 4404),
    (as_user("alice"), "/uploads/not%20an%20id/progress", 404, 4404),
    (as_user("alice"), "/uploads/elsewhere", 404, 4404),
    (as_user("alice"), "/uploads/else\nwhere/x", 404, 4404),
    ({**as_user("alice"), "origin": "https://evil.example"}, "/uploads/progress", 403, 4403),
    ({**as_user("alice"), "origin": "null"}, "/uploads/progress", 403, 4403),
    ({"cookie": "a=b"}, "/uploads/progress", 403, 4403),
]


@pytest.mark.parametrize(("headers", "path", "status", "code"), REFUSALS)
async def test_refused_handshake_gets_a_response_or_a_close_code(
    app: Starlette, headers: dict[str, str], path: str, status: int, code: int
) -> None:
    """No message is sent before or after the refusal."""
    async with open_connection(app, websocket_scope(path, headers=headers)) as connection:
        start, body = await connection.receive(), await connection.receive()
    async with open_connection(
        app, websocket_scope(path, headers=headers, denial=False)
    ) as connection:
        accept, close = await connection.receive(), await connection.receive()

    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == json.loads(body["body"])["status"] == status
    assert (b"cache-control", b"no-store") in start["headers"]
    assert accept["type"] == "websocket.accept"
    assert (close["type"], close["code"]) == ("websocket.close", code)


@pytest.mark.parametrize("origin", ["http://server", "HTTPS://OK.example", "https://ok.example"])
async def test_allowed_origin_is_accepted(tracker: ProgressTracker, origin: str) -> None:
    app = build_app(tracker, allowed_origins=["https://ok.example:443"])
    async with open_socket(app, headers={"origin": origin}) as connection:
        await connection.receive_until("welcome")


async def test_disconnect_before_the_handshake_sends_nothing(app: Starlette) -> None:
    for path in ("/uploads/progress", "/uploads/elsewhere"):
        recorded = RecordingSend()

        async def receive() -> Message:
            return {"type": "websocket.disconnect", "code": 1006}

        await app(websocket_scope(path, headers=as_user("alice")), receive, recorded)
        assert recorded.sent == []


async def test_too_many_sockets_give_429(app: Starlette, tracker: ProgressTracker) -> None:
    async with open_socket(app) as one, open_socket(app) as two:
        await one.receive_until("welcome")
        await two.receive_until("welcome")
        async with open_connection(
            app, websocket_scope("/uploads/progress", headers=as_user("alice"))
        ) as connection:
            assert (await connection.receive())["status"] == 429
        async with open_socket(app, user="bob") as other:
            await other.receive_until("welcome")
    async with open_socket(app) as again:
        await again.receive_until("welcome")
    assert tracker.statistics().subscriptions == 0


# One upload


async def test_socket_for_one_upload_ends_with_it(app: Starlette, tracker: ProgressTracker) -> None:
    upload_id = await announced(tracker, total_bytes=10)
    async with open_socket(app, f"/uploads/{upload_id}/progress") as connection:
        assert [(await connection.receive_json())["type"] for _ in range(2)] == [
            "welcome",
            "subscribed",
        ]
        seen = [await connection.receive_json()]
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            upload.advance(10)
        while seen[-1]["upload"]["state"] != "completed":
            seen.append(await connection.receive_json())
        assert await connection.receive_close() == 1000

    assert seen[0]["upload"]["state"] == "pending"
    assert {message["type"] for message in seen} == {"progress"}


async def test_late_client_gets_the_end_and_1000(app: Starlette, tracker: ProgressTracker) -> None:
    async with tracker.track(owner="alice") as upload:
        pass
    async with open_socket(app, f"/uploads/{upload.upload_id}/progress") as connection:
        assert (await connection.receive_until("progress"))[-1]["upload"]["state"] == "completed"
        assert await connection.receive_close() == 1000


async def test_socket_for_one_upload_accepts_commands_for_it_only(
    app: Starlette, tracker: ProgressTracker
) -> None:
    upload_id, other = await announced(tracker), await announced(tracker)
    async with open_socket(app, f"/uploads/{upload_id}/progress") as connection:
        await connection.receive_until("progress")
        for target in ({"upload_id": other}, {"group": "g"}, {"all": True}):
            await connection.send_json(type="subscribe", **target)
            assert (await connection.receive_json())["problem"]["status"] == 404
        await connection.send_json(type="cancel", upload_id=upload_id)
        assert (await connection.receive_json())["upload"]["state"] == "cancelled"
        assert await connection.receive_close() == 1000

    assert (await tracker.get(other, owner="alice")).state == "pending"


# Many uploads


async def test_subscribe_shows_the_current_snapshot(
    app: Starlette, tracker: ProgressTracker
) -> None:
    upload_id = await announced(tracker)
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        for _ in range(2):  # a repeated subscription shows the snapshot again
            await connection.send_json(type="subscribe", upload_id=upload_id)
            assert await connection.receive_json() == {"type": "subscribed", "upload_id": upload_id}
            assert (await connection.receive_json())["upload"]["upload_id"] == upload_id
        await connection.send_json(type="unsubscribe", upload_id=upload_id)
        assert await connection.receive_json() == {"type": "unsubscribed", "upload_id": upload_id}
        await connection.send_json(type="cancel", upload_id=upload_id)
        assert (await connection.receive_json())["upload"]["state"] == "cancelled"
        await connection.send_json(type="cancel", upload_id=upload_id)
        await connection.send_json(type="unsubscribe", upload_id=upload_id)
        assert (await connection.receive_json())["type"] == "unsubscribed"


async def test_subscription_to_a_group_and_to_all(app: Starlette, tracker: ProgressTracker) -> None:
    inside, outside = await announced(tracker, group="g"), await announced(tracker)
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        for _ in range(2):
            await connection.send_json(type="subscribe", group="g")
            assert await connection.receive_json() == {"type": "subscribed", "group": "g"}
            assert (await connection.receive_json())["upload"]["upload_id"] == inside
        later = await announced(tracker, group="g")
        assert (await connection.receive_json())["upload"]["upload_id"] == later
        await connection.send_json(type="unsubscribe", group="g")
        assert await connection.receive_json() == {"type": "unsubscribed", "group": "g"}
        await connection.send_json(type="subscribe", all=True)
        assert await connection.receive_json() == {"type": "subscribed", "all": True}
        shown = {(await connection.receive_json())["upload"]["upload_id"] for _ in range(3)}
        await connection.send_json(type="subscribe", upload_id=inside)
        await connection.receive_until("progress")
        await connection.send_json(type="unsubscribe", all=True)
        assert [await connection.receive_json() for _ in range(2)] == [
            {"type": "unsubscribed", "upload_id": inside},
            {"type": "unsubscribed", "all": True},
        ]

    assert shown == {inside, outside, later}


async def test_too_many_subscriptions_give_429(app: Starlette, tracker: ProgressTracker) -> None:
    uploads = [await announced(tracker) for _ in range(4)]
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        for upload_id in uploads[:3]:
            await connection.send_json(type="subscribe", upload_id=upload_id)
            await connection.receive_until("progress")
        await connection.send_json(type="subscribe", upload_id=uploads[3])
        refused = await connection.receive_json()
        await connection.send_json(type="subscribe", upload_id=uploads[0])
        await connection.receive_until("progress")

    assert refused["type"] == "error"
    assert refused["problem"]["status"] == 429


async def test_cancel_of_an_ended_upload_is_an_error(
    app: Starlette, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice") as upload:
        pass
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        await connection.send_json(type="cancel", upload_id=upload.upload_id)
        assert (await connection.receive_json())["problem"]["code"] == "upload_ended"


async def test_slow_client_gets_the_newest_snapshot_and_the_end(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """Many changes while the client does not read become one snapshot, not a backlog."""
    upload_id = await announced(tracker, total_bytes=1000)
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        await connection.send_json(type="subscribe", upload_id=upload_id)
        await connection.receive_until("progress")
        delivered = tracker.statistics().updates_delivered
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            for _ in range(4):
                upload.advance(250)
                before = tracker.statistics().updates_delivered
                await wait_until(lambda: tracker.statistics().updates_delivered > before)  # noqa: B023  # awaited at once
        await wait_until(lambda: tracker.statistics().live_uploads == 0)
        changes = tracker.statistics().updates_delivered - delivered
        seen = [await connection.receive_json()]
        while seen[-1]["upload"]["state"] != "completed":
            seen.append(await connection.receive_json())

    assert changes >= 4
    assert len(seen) <= 3


# Subscriptions by HTTP


async def test_http_calls_change_the_subscriptions_of_a_socket(
    app: Starlette, tracker: ProgressTracker
) -> None:
    upload_id, other = await announced(tracker), await announced(tracker)
    async with open_socket(app) as connection, client(app) as http:
        client_id = (await connection.receive_json())["client_id"]
        for each in (upload_id, other):
            answer = await http.post(f"/uploads/{each}/subscribe", json={"client_id": client_id})
            assert (answer.status_code, answer.content) == (204, b"")
            assert await connection.receive_json() == {"type": "subscribed", "upload_id": each}
            assert (await connection.receive_json())["upload"]["upload_id"] == each
        path = f"/uploads/{client_id}/unsubscribe"
        assert (await http.delete(f"{path}?upload_id={other}")).status_code == 204
        assert await connection.receive_json() == {"type": "unsubscribed", "upload_id": other}
        assert (await http.delete(path)).status_code == 204
        assert await connection.receive_json() == {"type": "unsubscribed", "upload_id": upload_id}
        assert await connection.receive_json() == {"type": "unsubscribed", "all": True}
    async with client(app) as http:
        gone = await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": client_id})
        malformed = await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": 5})

    assert gone.status_code == 404
    assert (malformed.status_code, malformed.json()["where"]) == (422, "body.client_id")


async def test_socket_with_many_unsent_messages_refuses_changes(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue that other requests fill is bounded, too."""
    monkeypatch.setattr(connections, "MAX_UNSENT_FOR_REQUESTS", 2)
    upload_id = await announced(tracker)
    async with open_socket(app) as connection, client(app) as http:
        client_id = (await connection.receive_json())["client_id"]
        statuses = [
            (
                await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": client_id})
            ).status_code
            for _ in range(6)
        ]
        path = f"/uploads/{client_id}/unsubscribe?upload_id={upload_id}"
        removed = [(await http.delete(path)).status_code for _ in range(2)]

    assert statuses[0] == 204
    assert statuses[-1] == 429
    assert removed == [429, 429]


async def test_socket_repeats_no_invalid_id(app: Starlette) -> None:
    """What is not an upload id is not sent back to a client that does not read."""
    async with open_socket(app) as connection, client(app) as http:
        client_id = (await connection.receive_json())["client_id"]
        for text in ("x" * 129, "x" * 60_000, "a b", "", "progress"):
            path = f"/uploads/{client_id}/unsubscribe"
            response = await http.delete(path, params={"upload_id": text})
            assert response.status_code == 404
        await connection.send_json(type="unsubscribe", group="g")

        assert (await connection.receive_json())["group"] == "g"


# Invalid messages


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type":NaN}',
        '{"a":' * 300,
        "[" * 2000,
        '{"type":"shout"}',
        '{"type":["subscribe"]}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","upload_id":"a","group":"b"}',
        '{"type":"subscribe","upload_id":5}',
        '{"type":"subscribe","upload_id":""}',
        '{"type":"subscribe","group":"%s"}' % ("g" * 129),
        '{"type":"subscribe","all":1}',
        '{"type":"cancel","all":true}',
        '{"type":"subscribe","upload_id":"\\ud800"}',
    ],
)
async def test_invalid_message_gets_an_error_and_the_socket_stays_open(
    app: Starlette, text: str
) -> None:
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        await connection.send(type="websocket.receive", text=text)
        answer = await connection.receive_json()
        await connection.send_json(type="subscribe", all=True)
        await connection.receive_until("subscribed")

    assert answer["type"] == "error"
    assert answer["problem"]["status"] == 422
    assert answer["problem"]["where"].startswith("message")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"bytes": b"\x00"}, 1003),
        ({"bytes": b"\x00", "text": None}, 1003),
        ({"text": " " * 2049}, 1009),
        ({"text": "é" * 1025}, 1009),
    ],
)
async def test_binary_or_large_message_closes_the_socket(
    app: Starlette, message: dict[str, Any], code: int
) -> None:
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        await connection.send(type="websocket.receive", **message)
        await connection.send_json(type="subscribe", all=True)
        assert await connection.receive_close() == code


async def test_many_invalid_messages_close_the_socket(app: Starlette) -> None:
    """4422."""
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        for _ in range(20):
            await connection.send(type="websocket.receive", text="?")
        assert await connection.receive_close() == 4422


async def test_messages_are_read_at_a_limited_rate(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops reading, so the sender has to wait."""
    monkeypatch.setattr(websocket, "BURST_MESSAGES", 1)
    monkeypatch.setattr(websocket, "MESSAGES_PER_SECOND", 50)
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        began = anyio.current_time()
        for _ in range(6):
            await connection.send_json(type="unsubscribe", group="g")
            await connection.receive_until("unsubscribed")
        took = anyio.current_time() - began

    assert took >= 0.08


async def test_messages_that_show_many_uploads_are_read_at_a_lower_rate(
    tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One counts as a message for each ten uploads; others of the server are not held up."""
    monkeypatch.setattr(websocket, "BURST_MESSAGES", 20)
    app = build_app(tracker)
    for _ in range(100):
        await announced(tracker)
    async with open_socket(app) as connection:
        began = anyio.current_time()
        for _ in range(6):
            await connection.send_json(type="subscribe", all=True)
        for _ in range(6):
            await connection.receive_until("subscribed")
        took = anyio.current_time() - began

    assert took >= (5 * 10 - 20) / websocket.MESSAGES_PER_SECOND


async def test_other_tasks_run_while_many_snapshots_are_sent(
    tracker: ProgressTracker, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a server whose ``send`` never waits."""
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    monkeypatch.setattr(websocket, "checkpoint", pause)
    for _ in range(100):
        await announced(tracker)
    async with open_socket(app) as connection:
        await connection.send_json(type="subscribe", all=True)
        for _ in range(100):
            await connection.receive_until("progress")

    assert pauses == 100 // 16


async def test_flood_of_lists_reads_few_of_them(app: Starlette, tracker: ProgressTracker) -> None:
    """However many requests ask at once: one list of an owner is read at a time."""
    await announced(tracker)
    async with client(app) as http, client(app, "bob") as other:
        reads = 0
        read = MemoryStore.list

        async def count(store: MemoryStore, owner: str, **arguments: Any) -> RecordPage:  # noqa: ANN401  # passed on
            nonlocal reads
            reads += owner == "alice"
            return await read(store, owner, **arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryStore, "list", count)
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(http.get, "/uploads/progress")
                assert (await other.get("/uploads/progress")).status_code == 200

    assert 1 <= reads <= 10


async def test_reading_stops_while_the_client_does_not_read(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of replies is bounded."""
    monkeypatch.setattr(websocket, "MAX_UNSENT", 2)
    async with open_socket(app) as connection:
        for _ in range(50):
            await connection.send_json(type="unsubscribe", group="g")
        await connection.receive_until("welcome")
        for _ in range(50):
            await connection.receive_until("unsubscribed")

    assert tracker.statistics().subscriptions == 0


@given(st.text())
def test_any_other_text_is_invalid(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_client_message(text)


@given(
    st.dictionaries(
        st.sampled_from(["type", "upload_id", "group", "all", "x"]),
        st.none() | st.booleans() | st.integers() | st.sampled_from(["subscribe", "cancel", "u"]),
    )
)
@settings(max_examples=300)
def test_client_message_has_exactly_one_target(members: dict[str, object]) -> None:
    try:
        message = parse_client_message(json.dumps(members))
    except InvalidValue:
        return
    decoded = json.loads(encode_json(message))
    assert members["type"] == decoded.pop("type")
    [(name, value)] = decoded.items()
    assert members[name] == value


# Ends


async def test_idle_socket_gets_heartbeats(app: Starlette, tracker: ProgressTracker) -> None:
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        internals_of(tracker).hub.wake_for_heartbeats(tracker.config.clock.monotonic() + 16, 10)
        assert await connection.receive_json() == {"type": "heartbeat"}


async def test_drain_closes_sockets_with_1012(app: Starlette, tracker: ProgressTracker) -> None:
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        tracker.drain()
        assert await connection.receive_close() == 1012


async def test_disconnected_client_leaves_no_subscription(
    app: Starlette, tracker: ProgressTracker
) -> None:
    async with open_socket(app) as connection:
        await connection.receive_until("welcome")
        await connection.send(type="websocket.disconnect", code=1006)
        with anyio.fail_after(20):
            await connection.ended.wait()

    assert tracker.statistics().subscriptions == 0


@pytest.mark.parametrize("error", [OSError, RuntimeError])
@pytest.mark.parametrize("after", [0, 1])
async def test_failing_send_ends_the_session(
    app: Starlette, tracker: ProgressTracker, error: type[Exception], after: int
) -> None:
    """Some servers raise RuntimeError for a message after the close."""
    sent: list[Message] = []
    if error is RuntimeError and after == 0:
        after = 2

    async def receive() -> Message:
        if not sent:
            return {"type": "websocket.connect"}
        return await never()

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) > after:
            raise error
        tracker.drain()

    with anyio.fail_after(20):
        await app(websocket_scope("/uploads/progress", headers=as_user("alice")), receive, send)

    assert tracker.statistics().subscriptions == 0


async def test_session_ends_if_the_client_does_not_read_the_close(
    tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go in the end."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_SECONDS", 0.01)
    signed_in = [True]
    app = build_app(
        tracker,
        authenticate=lambda _: Identity("alice") if signed_in.pop() else None,
        revalidate_seconds=0.01,
    )
    signed_in[:] = [False, True]

    async def receive() -> Message:
        await anyio.lowlevel.checkpoint()
        if signed_in == [False, True]:
            return {"type": "websocket.connect"}
        return await never()

    async def send(message: Message) -> None:
        if message["type"] != "websocket.accept":
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        await app(websocket_scope("/uploads/progress"), receive, send)


async def test_socket_is_closed_with_4401_when_the_user_signs_out(tracker: ProgressTracker) -> None:
    """The next check finds that the user has signed out."""
    users = ["alice"]
    app = build_app(
        tracker,
        authenticate=lambda _: Identity(users[0]) if users else None,
        revalidate_seconds=0.02,
    )
    async with open_connection(app, websocket_scope("/uploads/progress")) as connection:
        await connection.receive()
        await connection.receive_until("welcome")
        users.clear()
        assert await connection.receive_close() == 4401


async def test_socket_is_closed_with_1013_when_authenticate_fails(tracker: ProgressTracker) -> None:
    answers: list[Identity] = [Identity("alice")]
    app = build_app(tracker, authenticate=lambda _: answers.pop(), revalidate_seconds=0.02)
    async with open_connection(app, websocket_scope("/uploads/progress")) as connection:
        assert await connection.receive_close() == 1013


# Tickets


async def ticket_of(app: Starlette, headers: dict[str, str]) -> str:
    async with client(app, user=None, headers=headers) as http:
        answer = await http.post("/uploads/tickets")
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    return str(answer.json()["ticket"])


async def receive_status(connection: AsgiConnection) -> int:
    message = await connection.receive()
    return int(message["status"]) if "status" in message else 101


async def test_ticket_opens_one_socket_or_one_stream(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """A used or unknown ticket gets a 401."""
    upload_id = await announced(tracker)
    for scope in (
        websocket_scope("/uploads/progress"),
        websocket_scope(f"/uploads/{upload_id}/progress"),
        http_scope("/uploads/progress", headers={"accept": "text/event-stream"}),
    ):
        query = f"ticket={await ticket_of(app, as_user('alice'))}".encode()
        opened = []
        for _ in range(2):
            async with open_connection(app, {**scope, "query_string": query}) as connection:
                opened.append(await receive_status(connection))
        assert opened in ([101, 401], [200, 401])
    async with open_connection(
        app, websocket_scope("/uploads/progress", query="ticket=x")
    ) as connection:
        assert await receive_status(connection) == 401


async def test_ticket_with_credentials_of_another_user_is_refused(app: Starlette) -> None:
    """Credentials of the same user do not contradict a ticket."""
    for user, status in (("bob", 401), ("alice", 101)):
        query = f"ticket={await ticket_of(app, as_user('alice'))}"
        scope = websocket_scope("/uploads/progress", query=query, headers=as_user(user))
        async with open_connection(app, scope) as connection:
            assert await receive_status(connection) == status


async def test_ticket_is_not_accepted_by_other_calls(app: Starlette) -> None:
    ticket = await ticket_of(app, as_user("alice"))
    async with client(app, user=None) as http:
        assert (await http.get(f"/uploads/progress?ticket={ticket}")).status_code == 401


async def test_socket_opened_by_ticket_ends_with_the_token_behind_it(
    tracker: ProgressTracker,
) -> None:
    """The handshake has no token, so the token with which the ticket was bought is checked."""
    tokens = {"t": "alice"}
    app = build_app(tracker, authenticate=bearer(tokens.get), revalidate_seconds=0.02)
    ticket = await ticket_of(app, {"authorization": "Bearer t"})
    async with open_connection(
        app, websocket_scope("/uploads/progress", query=f"ticket={ticket}")
    ) as connection:
        await connection.receive()
        await connection.receive_until("welcome")
        tokens.clear()
        assert await connection.receive_close() == 4401


@pytest.mark.parametrize(
    "members",
    [
        {"type": "subscribe", "upload_id": "a"},
        {"type": "unsubscribe", "group": "g"},
        {"type": "subscribe", "all": True},
        {"type": "cancel", "upload_id": "a"},
    ],
)
def test_client_message_is_decoded_without_unknown_fields(members: dict[str, object]) -> None:
    message = parse_client_message(json.dumps({**members, "unknown": 1, "filename": None}))

    assert json.loads(encode_json(message)) == members


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ('{"type":"shout"}', "message.type", "must be one of subscribe, unsubscribe, cancel"),
        ('{"type":"cancel"}', "message.upload_id", "is required"),
        ('{"type":"subscribe","upload_id":5}', "message.upload_id", "Expected `str"),
        ('{"type":"subscribe","all":false}', "message.all", "Invalid enum value"),
        (
            '{"type":"subscribe"}',
            "message",
            "must contain exactly one of upload_id, group, all",
        ),
    ],
)
def test_error_of_a_client_message_names_field_and_problem(
    text: str, where: str, problem: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_client_message(text)

    assert caught.value.where == where
    assert caught.value.problem.startswith(problem)
