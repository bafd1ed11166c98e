"""WebSockets, message by message: the handshake, the talk, and how it ends."""

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
    Line,
    Message,
    Outbox,
    as_user,
    build_app,
    call,
    client,
    http_scope,
    listening,
    never,
    until,
    websocket_scope,
)
from upload_progress import Identity, InvalidValue, Limits, ProgressTracker
from upload_progress._model.codec import encode_json
from upload_progress.connection import Connection
from upload_progress.starlette import bearer, connections, websocket
from upload_progress.starlette.messages import parse_client_message
from upload_progress.tracker import internals_of

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


async def test_the_welcome_comes_first(app: Starlette) -> None:
    async with listening(app) as line:
        welcome = await line.hear_json()

    assert welcome["type"] == "welcome"
    assert welcome["heartbeat_seconds"] == 15
    assert len(welcome["client_id"]) >= 22


async def test_a_token_in_the_subprotocols_is_not_repeated(tracker: ProgressTracker) -> None:
    """W10: the only name that is ever chosen is ours."""

    def by_protocol(connection: Connection) -> Identity | None:
        offered = connection.header("sec-websocket-protocol") or ""
        return Identity("alice") if "canary" in offered else None

    app = build_app(tracker, authenticate=by_protocol)
    for offer, chosen in [(["canary"], None), (["upload-progress", "canary"], "upload-progress")]:
        headers = {"sec-websocket-protocol": ", ".join(offer)}
        scope = websocket_scope("/uploads/progress", headers=headers, subprotocols=offer)
        async with call(app, scope) as line:
            accepted = await line.hear()
            assert accepted["subprotocol"] == chosen
            assert "canary" not in repr(accepted)


REFUSALS = [
    ({}, "/uploads/progress", 401, 4401),
    ({"authorization": "Basic !"}, "/uploads/progress", 401, 4401),
    (as_user("alice"), "/uploads/unknown/progress", 404, 4404),
    (as_user("alice"), "/uploads/not%20an%20id/progress", 404, 4404),
    (as_user("alice"), "/uploads/elsewhere", 404, 4404),
    ({**as_user("alice"), "origin": "https://evil.example"}, "/uploads/progress", 403, 4403),
    ({**as_user("alice"), "origin": "null"}, "/uploads/progress", 403, 4403),
    ({"cookie": "a=b"}, "/uploads/progress", 403, 4403),
]


@pytest.mark.parametrize(("headers", "path", "status", "code"), REFUSALS)
async def test_a_refusal_is_an_answer_or_a_close(
    app: Starlette, headers: dict[str, str], path: str, status: int, code: int
) -> None:
    """W01, W02: no data frame before, during or after."""
    async with call(app, websocket_scope(path, headers=headers)) as line:
        start, body = await line.hear(), await line.hear()
    async with call(app, websocket_scope(path, headers=headers, denial=False)) as line:
        accept, close = await line.hear(), await line.hear()

    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == json.loads(body["body"])["status"] == status
    assert (b"cache-control", b"no-store") in start["headers"]
    assert accept["type"] == "websocket.accept"
    assert (close["type"], close["code"]) == ("websocket.close", code)


@pytest.mark.parametrize("origin", ["http://server", "HTTPS://OK.example", "https://ok.example"])
async def test_an_allowed_origin_is_let_in(tracker: ProgressTracker, origin: str) -> None:
    """W02."""
    app = build_app(tracker, allowed_origins=["https://ok.example:443"])
    async with listening(app, headers={"origin": origin}) as line:
        await line.hear_until("welcome")


async def test_a_client_that_goes_before_the_handshake(app: Starlette) -> None:
    for path in ("/uploads/progress", "/uploads/elsewhere"):
        outbox = Outbox()

        async def receive() -> Message:
            return {"type": "websocket.disconnect", "code": 1006}

        await app(websocket_scope(path, headers=as_user("alice")), receive, outbox)
        assert outbox.sent == []


async def test_too_many_sockets(app: Starlette, tracker: ProgressTracker) -> None:
    async with listening(app) as one, listening(app) as two:
        await one.hear_until("welcome")
        await two.hear_until("welcome")
        async with call(
            app, websocket_scope("/uploads/progress", headers=as_user("alice"))
        ) as line:
            assert (await line.hear())["status"] == 429
        async with listening(app, user="bob") as other:
            await other.hear_until("welcome")
    async with listening(app) as again:
        await again.hear_until("welcome")
    assert tracker.statistics().subscriptions == 0


# One upload


async def test_a_socket_for_one_upload_ends_with_it(
    app: Starlette, tracker: ProgressTracker
) -> None:
    upload_id = await announced(tracker, total_bytes=10)
    async with listening(app, f"/uploads/{upload_id}/progress") as line:
        assert [(await line.hear_json())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        seen = [await line.hear_json()]
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            upload.advance(10)
        while seen[-1]["upload"]["state"] != "completed":
            seen.append(await line.hear_json())
        assert await line.hear_close() == 1000

    assert seen[0]["upload"]["state"] == "pending"
    assert {message["type"] for message in seen} == {"progress"}


async def test_who_comes_late_sees_the_end_and_1000(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """W06, W16."""
    async with tracker.track(owner="alice") as upload:
        pass
    async with listening(app, f"/uploads/{upload.upload_id}/progress") as line:
        assert (await line.hear_until("progress"))[-1]["upload"]["state"] == "completed"
        assert await line.hear_close() == 1000


async def test_a_socket_for_one_upload_may_cancel_it_and_no_other(
    app: Starlette, tracker: ProgressTracker
) -> None:
    upload_id, other = await announced(tracker), await announced(tracker)
    async with listening(app, f"/uploads/{upload_id}/progress") as line:
        await line.hear_until("progress")
        for wish in ({"upload_id": other}, {"group": "g"}, {"all": True}):
            await line.tell(type="subscribe", **wish)
            assert (await line.hear_json())["problem"]["status"] == 404
        await line.tell(type="cancel", upload_id=upload_id)
        assert (await line.hear_json())["upload"]["state"] == "cancelled"
        assert await line.hear_close() == 1000

    assert (await tracker.get(other, owner="alice")).state == "pending"


# Many uploads


async def test_subscribing_shows_where_it_stands(app: Starlette, tracker: ProgressTracker) -> None:
    upload_id = await announced(tracker)
    async with listening(app) as line:
        await line.hear_until("welcome")
        for _ in range(2):  # twice is once, and shows it again
            await line.tell(type="subscribe", upload_id=upload_id)
            assert await line.hear_json() == {"type": "subscribed", "upload_id": upload_id}
            assert (await line.hear_json())["upload"]["upload_id"] == upload_id
        await line.tell(type="unsubscribe", upload_id=upload_id)
        assert await line.hear_json() == {"type": "unsubscribed", "upload_id": upload_id}
        await line.tell(type="cancel", upload_id=upload_id)
        assert (await line.hear_json())["upload"]["state"] == "cancelled"
        await line.tell(type="cancel", upload_id=upload_id)
        await line.tell(type="unsubscribe", upload_id=upload_id)
        assert (await line.hear_json())["type"] == "unsubscribed"


async def test_a_group_and_everything(app: Starlette, tracker: ProgressTracker) -> None:
    inside, outside = await announced(tracker, group="g"), await announced(tracker)
    async with listening(app) as line:
        await line.hear_until("welcome")
        for _ in range(2):
            await line.tell(type="subscribe", group="g")
            assert await line.hear_json() == {"type": "subscribed", "group": "g"}
            assert (await line.hear_json())["upload"]["upload_id"] == inside
        later = await announced(tracker, group="g")
        assert (await line.hear_json())["upload"]["upload_id"] == later
        await line.tell(type="unsubscribe", group="g")
        assert await line.hear_json() == {"type": "unsubscribed", "group": "g"}
        await line.tell(type="subscribe", all=True)
        assert await line.hear_json() == {"type": "subscribed", "all": True}
        shown = {(await line.hear_json())["upload"]["upload_id"] for _ in range(3)}
        await line.tell(type="subscribe", upload_id=inside)
        await line.hear_until("progress")
        await line.tell(type="unsubscribe", all=True)
        assert [await line.hear_json() for _ in range(2)] == [
            {"type": "unsubscribed", "upload_id": inside},
            {"type": "unsubscribed", "all": True},
        ]

    assert shown == {inside, outside, later}


async def test_too_many_subscriptions(app: Starlette, tracker: ProgressTracker) -> None:
    """W15."""
    uploads = [await announced(tracker) for _ in range(4)]
    async with listening(app) as line:
        await line.hear_until("welcome")
        for upload_id in uploads[:3]:
            await line.tell(type="subscribe", upload_id=upload_id)
            await line.hear_until("progress")
        await line.tell(type="subscribe", upload_id=uploads[3])
        refused = await line.hear_json()
        await line.tell(type="subscribe", upload_id=uploads[0])
        await line.hear_until("progress")

    assert refused["type"] == "error"
    assert refused["problem"]["status"] == 429


async def test_what_has_ended_cannot_be_cancelled(app: Starlette, tracker: ProgressTracker) -> None:
    async with tracker.track(owner="alice") as upload:
        pass
    async with listening(app) as line:
        await line.hear_until("welcome")
        await line.tell(type="cancel", upload_id=upload.upload_id)
        assert (await line.hear_json())["problem"]["code"] == "upload_ended"


async def test_a_slow_watcher_gets_the_newest_and_always_the_last(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """W08: a thousand changes while it does not read are one snapshot, not a backlog."""
    upload_id = await announced(tracker, total_bytes=1000)
    async with listening(app) as line:
        await line.hear_until("welcome")
        await line.tell(type="subscribe", upload_id=upload_id)
        await line.hear_until("progress")
        delivered = tracker.statistics().updates_delivered
        async with tracker.track(owner="alice", upload_id=upload_id) as upload:
            for _ in range(4):
                upload.advance(250)
                before = tracker.statistics().updates_delivered
                await until(lambda: tracker.statistics().updates_delivered > before)  # noqa: B023  # awaited at once
        await until(lambda: tracker.statistics().live_uploads == 0)
        changes = tracker.statistics().updates_delivered - delivered
        seen = [await line.hear_json()]
        while seen[-1]["upload"]["state"] != "completed":
            seen.append(await line.hear_json())

    assert changes >= 4
    assert len(seen) <= 3


# Over REST


async def test_a_socket_is_addressed_by_its_name(app: Starlette, tracker: ProgressTracker) -> None:
    upload_id, other = await announced(tracker), await announced(tracker)
    async with listening(app) as line, client(app) as http:
        client_id = (await line.hear_json())["client_id"]
        for each in (upload_id, other):
            answer = await http.post(f"/uploads/{each}/subscribe", json={"client_id": client_id})
            assert (answer.status_code, answer.content) == (204, b"")
            assert await line.hear_json() == {"type": "subscribed", "upload_id": each}
            assert (await line.hear_json())["upload"]["upload_id"] == each
        path = f"/uploads/{client_id}/unsubscribe"
        assert (await http.delete(f"{path}?upload_id={other}")).status_code == 204
        assert await line.hear_json() == {"type": "unsubscribed", "upload_id": other}
        assert (await http.delete(path)).status_code == 204
        assert await line.hear_json() == {"type": "unsubscribed", "upload_id": upload_id}
        assert await line.hear_json() == {"type": "unsubscribed", "all": True}
    async with client(app) as http:
        gone = await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": client_id})
        malformed = await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": 5})

    assert gone.status_code == 404
    assert (malformed.status_code, malformed.json()["where"]) == (422, "body.client_id")


async def test_a_socket_that_does_not_read_takes_no_more(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: what other requests put on a socket is bounded, too."""
    monkeypatch.setattr(connections, "MAX_UNSENT_FOR_SUBSCRIBE", 2)
    upload_id = await announced(tracker)
    async with listening(app) as line, client(app) as http:
        client_id = (await line.hear_json())["client_id"]
        statuses = [
            (
                await http.post(f"/uploads/{upload_id}/subscribe", json={"client_id": client_id})
            ).status_code
            for _ in range(6)
        ]

    assert statuses[0] == 204
    assert statuses[-1] == 429


# Bad messages


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
async def test_a_malformed_message_is_named_and_the_socket_goes_on(
    app: Starlette, text: str
) -> None:
    """W03."""
    async with listening(app) as line:
        await line.hear_until("welcome")
        await line.say(type="websocket.receive", text=text)
        answer = await line.hear_json()
        await line.tell(type="subscribe", all=True)
        await line.hear_until("subscribed")

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
async def test_what_is_no_text_or_too_large_ends_the_socket(
    app: Starlette, message: dict[str, Any], code: int
) -> None:
    """W03."""
    async with listening(app) as line:
        await line.hear_until("welcome")
        await line.say(type="websocket.receive", **message)
        await line.tell(type="subscribe", all=True)
        assert await line.hear_close() == code


async def test_who_says_nothing_sensible_for_long_is_let_go(app: Starlette) -> None:
    """W03: 4422."""
    async with listening(app) as line:
        await line.hear_until("welcome")
        for _ in range(20):
            await line.say(type="websocket.receive", text="?")
        assert await line.hear_close() == 4422


async def test_who_talks_too_fast_is_heard_slowly(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W03: the server stops reading, so that the sender must wait."""
    monkeypatch.setattr(websocket, "BURST_MESSAGES", 1)
    monkeypatch.setattr(websocket, "MESSAGES_PER_SECOND", 50)
    async with listening(app) as line:
        await line.hear_until("welcome")
        began = anyio.current_time()
        for _ in range(6):
            await line.tell(type="unsubscribe", group="g")
            await line.hear_until("unsubscribed")
        took = anyio.current_time() - began

    assert took >= 0.08


async def test_who_does_not_read_is_not_read_either(
    app: Starlette, tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: answers do not pile up."""
    monkeypatch.setattr(websocket, "MAX_UNSENT", 2)
    async with listening(app) as line:
        for _ in range(50):
            await line.tell(type="unsubscribe", group="g")
        await line.hear_until("welcome")
        for _ in range(50):
            await line.hear_until("unsubscribed")

    assert tracker.statistics().subscriptions == 0


@given(st.text())
def test_any_text_is_a_command_or_refused(text: str) -> None:
    """I13."""
    with pytest.raises(InvalidValue):
        parse_client_message(text)


@given(
    st.dictionaries(
        st.sampled_from(["type", "upload_id", "group", "all", "x"]),
        st.none() | st.booleans() | st.integers() | st.sampled_from(["subscribe", "cancel", "u"]),
    )
)
@settings(max_examples=300)
def test_a_command_names_exactly_one_thing(members: dict[str, object]) -> None:
    try:
        message = parse_client_message(json.dumps(members))
    except InvalidValue:
        return
    decoded = json.loads(encode_json(message))
    assert members["type"] == decoded.pop("type")
    [(name, value)] = decoded.items()
    assert members[name] == value


# Ends


async def test_silence_is_filled_with_heartbeats(app: Starlette, tracker: ProgressTracker) -> None:
    async with listening(app) as line:
        await line.hear_until("welcome")
        internals_of(tracker).hub.wake_for_heartbeats(tracker.config.clock.monotonic() + 16, 10)
        assert await line.hear_json() == {"type": "heartbeat"}


async def test_a_drain_closes_with_1012(app: Starlette, tracker: ProgressTracker) -> None:
    """W11."""
    async with listening(app) as line:
        await line.hear_until("welcome")
        tracker.drain()
        assert await line.hear_close() == 1012


async def test_a_client_that_vanishes_leaves_nothing(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """W04."""
    async with listening(app) as line:
        await line.hear_until("welcome")
        await line.say(type="websocket.disconnect", code=1006)
        with anyio.fail_after(5):
            await line.ended.wait()

    assert tracker.statistics().subscriptions == 0


@pytest.mark.parametrize("error", [OSError, RuntimeError])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_send_that_fails_is_a_client_that_went_away(
    app: Starlette, tracker: ProgressTracker, error: type[Exception], after: int
) -> None:
    """W16: some servers raise RuntimeError for what is sent after they have closed."""
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

    with anyio.fail_after(5):
        await app(websocket_scope("/uploads/progress", headers=as_user("alice")), receive, send)

    assert tracker.statistics().subscriptions == 0


async def test_a_client_that_does_not_even_read_the_close(
    tracker: ProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W08: let go in the end."""
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

    with anyio.fail_after(5):
        await app(websocket_scope("/uploads/progress"), receive, send)


async def test_a_socket_ends_with_the_users_session(tracker: ProgressTracker) -> None:
    """A15: 4401, at the next check."""
    users = ["alice"]
    app = build_app(
        tracker,
        authenticate=lambda _: Identity(users[0]) if users else None,
        revalidate_seconds=0.02,
    )
    async with call(app, websocket_scope("/uploads/progress")) as line:
        await line.hear()
        await line.hear_until("welcome")
        users.clear()
        assert await line.hear_close() == 4401


async def test_a_socket_ends_when_its_user_cannot_be_checked(tracker: ProgressTracker) -> None:
    answers: list[Identity] = [Identity("alice")]
    app = build_app(tracker, authenticate=lambda _: answers.pop(), revalidate_seconds=0.02)
    async with call(app, websocket_scope("/uploads/progress")) as line:
        assert await line.hear_close() == 1013


# Tickets


async def ticket_of(app: Starlette, headers: dict[str, str]) -> str:
    async with client(app, user=None, headers=headers) as http:
        answer = await http.post("/uploads/tickets")
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    return str(answer.json()["ticket"])


async def hear_status(line: Line) -> int:
    message = await line.hear()
    return int(message["status"]) if "status" in message else 101


async def test_a_ticket_opens_one_socket_or_one_stream(
    app: Starlette, tracker: ProgressTracker
) -> None:
    """A16: reuse, and nonsense, are refused like nobody."""
    upload_id = await announced(tracker)
    for scope in (
        websocket_scope("/uploads/progress"),
        websocket_scope(f"/uploads/{upload_id}/progress"),
        http_scope("/uploads/progress", headers={"accept": "text/event-stream"}),
    ):
        query = f"ticket={await ticket_of(app, as_user('alice'))}".encode()
        opened = []
        for _ in range(2):
            async with call(app, {**scope, "query_string": query}) as line:
                opened.append(await hear_status(line))
        assert opened in ([101, 401], [200, 401])
    async with call(app, websocket_scope("/uploads/progress", query="ticket=x")) as line:
        assert await hear_status(line) == 401


async def test_a_ticket_is_its_users_alone(app: Starlette) -> None:
    """A16: bob's cookie and alice's ticket are a contradiction; both of alice's are not."""
    for user, status in (("bob", 401), ("alice", 101)):
        query = f"ticket={await ticket_of(app, as_user('alice'))}"
        scope = websocket_scope("/uploads/progress", query=query, headers=as_user(user))
        async with call(app, scope) as line:
            assert await hear_status(line) == status


async def test_a_ticket_is_no_key_to_the_rest(app: Starlette) -> None:
    ticket = await ticket_of(app, as_user("alice"))
    async with client(app, user=None) as http:
        assert (await http.get(f"/uploads/progress?ticket={ticket}")).status_code == 401


async def test_what_a_ticket_opened_ends_with_the_token_it_was_bought_with(
    tracker: ProgressTracker,
) -> None:
    """A15: the socket shows no token itself, so the one of the ticket is asked about again."""
    tokens = {"t": "alice"}
    app = build_app(tracker, authenticate=bearer(tokens.get), revalidate_seconds=0.02)
    ticket = await ticket_of(app, {"authorization": "Bearer t"})
    async with call(app, websocket_scope("/uploads/progress", query=f"ticket={ticket}")) as line:
        await line.hear()
        await line.hear_until("welcome")
        tokens.clear()
        assert await line.hear_close() == 4401


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
