"""Operators look at the uploads of all owners; for everybody else ``?owner=`` changes nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import httpx2
import pytest
from attrs import evolve, frozen
from starlette.applications import Starlette

from tests._support.asgi_client import (
    App,
    AsgiConnection,
    as_user,
    build_app,
    client,
    http_scope,
    open_connection,
    websocket_scope,
)
from upload_progress import Identity, MemoryStore, ProgressTracker, UploadNotFound, UploadState
from upload_progress._cluster import follower as follower_module
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress.backends import MemoryPublisher
from upload_progress.connection import Connection
from upload_progress.interfaces import ALL_OWNERS, SessionStore
from upload_progress.starlette import basic
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream"}
OPERATOR = "root"


def check(name: str, password: str) -> Identity | None:
    """Return the user whose password is the name."""
    return Identity(name, is_operator=name == OPERATOR) if name == password else None


@frozen
class World:
    """Alice and Bob upload."""

    app: Starlette
    tracker: ProgressTracker


@pytest.fixture
async def world() -> AsyncIterator[World]:
    tracker = ProgressTracker()
    app = build_app(tracker, authenticate=basic(check))
    internals = internals_of(tracker)
    async with tracker.lifespan():
        for owner, upload_id, group in (("alice", "hers", "nightly"), ("bob", "his", None)):
            live = internals.admission.open(requested_id=upload_id, total_bytes=10, group=group)
            assert internals.admission.admit(live, Identity(owner))
            live.begin()
            live.meter.add(len(upload_id))
        await internals.flusher.flush(everything=True)
        yield World(app, tracker)


async def answer_of(
    http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> tuple[int, Any, bytes]:
    """Return status, headers in their order, and body of a response."""
    with anyio.fail_after(10):
        answer = await http.request(method, path, headers=headers)
    return answer.status_code, answer.headers.raw, answer.content


OF_AN_UPLOAD = [
    ("GET", "/uploads/{}/progress?owner={}", {}, 200),
    ("HEAD", "/uploads/{}/progress?owner={}", {}, 200),
    ("HEAD", "/uploads/{}/progress?owner={}", STREAM, 200),
    ("HEAD", "/uploads/{}?owner={}", {}, 200),
    ("DELETE", "/uploads/{}?owner={}", {}, 202),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), OF_AN_UPLOAD)
async def test_parameter_changes_nothing_for_other_users(
    world: World, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """An upload of another owner and an unknown one get the same 404."""
    async with client(world.app, "bob") as bob:
        foreign = await answer_of(bob, method, path.format("hers", "alice"), headers)
        unknown = await answer_of(bob, method, path.format("unknown", "alice"), headers)
        everyone = await answer_of(bob, method, path.format("hers", "*"), headers)
        own = await answer_of(bob, method, path.format("his", "alice"), headers)

    assert foreign == unknown == everyone
    assert (foreign[0], own[0]) == (404, status)
    assert b'"owner"' not in own[2]
    assert (await world.tracker.get("hers", owner="alice")).state is UploadState.RECEIVING


@pytest.mark.parametrize(("method", "path", "headers", "status"), OF_AN_UPLOAD)
async def test_operator_reads_and_cancels_the_uploads_of_an_owner(
    world: World, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with client(world.app, OPERATOR) as operator:
        theirs = await answer_of(operator, method, path.format("hers", "alice"), headers)
        other = await answer_of(operator, method, path.format("hers", "bob"), headers)
        everyone = await answer_of(operator, method, path.format("hers", "*"), headers)
        own = await answer_of(operator, method, path.format("hers", OPERATOR), headers)

    assert theirs[0] == status
    assert (other[0], everyone[0], own[0]) == (404, 404, 404)
    if method in {"GET", "DELETE"}:
        assert json.loads(theirs[2])["owner"] == "alice"


async def test_without_the_parameter_an_operator_is_a_user(world: World) -> None:
    async with client(world.app, OPERATOR) as operator:
        assert (await operator.get("/uploads/hers/progress")).status_code == 404
        assert (await operator.get("/uploads/progress")).json()["uploads"] == []
        made = await operator.post("/uploads?owner=alice", json={})
        mine = (await operator.get("/uploads/progress")).json()

    assert made.status_code == 201
    assert [each["upload_id"] for each in mine["uploads"]] == [made.json()["upload_id"]]
    assert "owner" not in made.json()


async def test_lists(world: World) -> None:
    async with client(world.app, OPERATOR) as operator:
        hers = (await operator.get("/uploads/progress?owner=alice")).json()
        page = (await operator.get("/uploads/progress?owner=*")).json()
        group = (await operator.get("/uploads/progress?owner=*&group=nightly")).json()
        paused = (await operator.get("/uploads/progress?owner=*&state=paused")).json()
        first = (await operator.get("/uploads/progress?owner=*&limit=1")).json()
        rest = (await operator.get(f"/uploads/progress?owner=*&cursor={first['next']}")).json()
    async with client(world.app, "bob") as bob:
        own = (await bob.get("/uploads/progress?owner=*")).json()

    def shown(page: dict[str, Any]) -> list[tuple[str, str]]:
        return [(each.get("owner", ""), each["upload_id"]) for each in page["uploads"]]

    assert shown(hers) == shown(group) == shown(first) == [("alice", "hers")]
    assert shown(page) == [("alice", "hers"), ("bob", "his")]
    assert (page["total"]["bytes_transferred"], page["total"]["approximate"]) == (7, False)
    assert shown(rest) == [("bob", "his")]
    assert rest["total"]["approximate"] is True
    assert paused["uploads"] == []
    assert shown(own) == [("", "his")]


@pytest.mark.parametrize("owner", ["", "x" * 1025, "a%00b"])
async def test_owner_that_no_upload_can_have_is_an_error(world: World, owner: str) -> None:
    async with client(world.app, OPERATOR) as operator:
        answer = await operator.get(f"/uploads/progress?owner={owner}")

    assert answer.status_code == 422
    assert answer.json()["where"] == "query.owner"


@asynccontextmanager
async def operator_socket(app: App, owner: str) -> AsyncIterator[AsgiConnection]:
    """Open a WebSocket for the uploads of *owner*."""
    scope = websocket_scope("/uploads/progress", query=f"owner={owner}", headers=as_user(OPERATOR))
    async with open_connection(app, scope) as connection:
        assert (await connection.receive())["type"] == "websocket.accept"
        yield connection


async def test_stream_of_all_owners(world: World) -> None:
    """It shows what is open; a group belongs to one owner."""
    scope = http_scope(
        "/uploads/progress", query="owner=*", headers={**as_user(OPERATOR), **STREAM}
    )
    text = b""
    async with open_connection(world.app, scope) as connection:
        while text.count(b"data:") < 2:
            text += (await connection.receive()).get("body", b"")
    async with client(world.app, OPERATOR) as operator:
        refused = await operator.get("/uploads/progress?owner=*&group=nightly", headers=STREAM)

    assert b'"owner":"alice"' in text
    assert b'"owner":"bob"' in text
    assert refused.status_code == 422


async def test_socket_of_all_owners(world: World) -> None:
    """It shows what is open, then what begins, and the ends; it names no upload and no group."""
    seen: dict[str, tuple[str, str]] = {}
    async with operator_socket(world.app, "*") as connection:
        await connection.send_json(type="subscribe", all=True)
        await connection.receive_until("subscribed")
        async with world.tracker.track(owner="carol", upload_id="new") as upload:
            upload.advance(5)
        while seen.get("new") != ("carol", "completed"):
            shown = (await connection.receive_json())["upload"]
            seen[shown["upload_id"]] = (shown["owner"], shown["state"])
        problems = []
        for message in (
            {"type": "subscribe", "group": "nightly"},
            {"type": "unsubscribe", "group": "nightly"},
            {"type": "subscribe", "upload_id": "hers"},
        ):
            await connection.send_json(**message)
            problems.append((await connection.receive_until("error"))[-1]["problem"]["status"])
        await connection.send_json(type="unsubscribe", all=True)
        await connection.receive_until("unsubscribed")

    assert (seen["hers"], seen["his"]) == (("alice", "receiving"), ("bob", "receiving"))
    assert problems == [422, 422, 404]


async def test_socket_of_one_owner(world: World) -> None:
    """Requests that name the socket need the same view of the same operator."""
    async with operator_socket(world.app, "alice") as connection:
        welcome = await connection.receive_json()
        await connection.send_json(type="subscribe", group="nightly")
        [*_, shown] = await connection.receive_until("progress")
        body = {"client_id": welcome["client_id"]}
        async with client(world.app, OPERATOR) as operator:
            own_view = await operator.post("/uploads/hers/subscribe?owner=alice", json=body)
            other_view = await operator.post("/uploads/his/subscribe?owner=bob", json=body)
            path = f"/uploads/{welcome['client_id']}/unsubscribe"
            removed = await operator.delete(f"{path}?owner=alice")
            without = await operator.delete(path)
        await connection.send_json(type="cancel", upload_id="hers")
        cancelled = {"state": ""}
        while cancelled["state"] != "cancelled":
            cancelled = (await connection.receive_until("progress"))[-1]["upload"]

    assert (shown["upload"]["owner"], cancelled["owner"]) == ("alice", "alice")
    assert (own_view.status_code, other_view.status_code) == (204, 404)
    assert (removed.status_code, without.status_code) == (204, 404)


async def test_each_use_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Names cannot forge a line of the log."""
    caplog.set_level(logging.INFO, "upload_progress.audit")
    async with client(world.app, OPERATOR) as operator, client(world.app, "bob") as bob:
        await operator.get("/uploads/progress")
        await bob.get("/uploads/progress?owner=alice")
        await operator.get("/uploads/progress?owner=*")
        await operator.delete("/uploads/hers?owner=a%0Ab")
    async with operator_socket(world.app, "alice"):
        pass

    assert [record.getMessage() for record in caplog.records] == [
        "operator 'root': GET '/uploads/progress' for the uploads of all owners",
        "operator 'root': DELETE '/uploads/hers' for the uploads of 'a\\nb'",
        "operator 'root': WEBSOCKET '/uploads/progress' for the uploads of 'alice'",
    ]


async def test_stream_ends_when_the_user_is_no_operator_any_more() -> None:
    operators = {OPERATOR}

    def authenticate(connection: Connection) -> Identity:
        return Identity(OPERATOR, is_operator=OPERATOR in operators)

    tracker = ProgressTracker()
    app = build_app(tracker, authenticate=authenticate, revalidate_seconds=0.05)
    async with tracker.lifespan(), operator_socket(app, "*") as connection:
        await connection.receive_until("welcome")
        operators.clear()
        assert await connection.receive_close() == 4401


async def test_ticket_of_an_operator_is_redeemed_at_another_worker() -> None:
    memory, broker = MemoryStore(), MemoryPublisher()
    trackers = [ProgressTracker(store=memory, publisher=broker) for _ in range(2)]
    apps = [build_app(tracker, authenticate=basic(check)) for tracker in trackers]
    async with trackers[0].lifespan(), trackers[1].lifespan():
        async with client(apps[0], OPERATOR) as operator:
            ticket = (await operator.post("/uploads/tickets")).json()["ticket"]
        scope = websocket_scope("/uploads/progress", query=f"owner=*&ticket={ticket}")
        async with open_connection(apps[1], scope) as connection:
            assert (await connection.receive())["type"] == "websocket.accept"
            await connection.send_json(type="subscribe", all=True)
            await connection.receive_until("subscribed")


@pytest.mark.parametrize("has_broker", [True, False])
async def test_uploads_of_another_worker_are_shown_to_their_end(
    has_broker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By events, and without a broker by the store."""
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(follower_module, "QUIET_SECONDS", 0.1)
    store = FaultyStore(MemoryStore())  # unlike a MemoryStore, it may be shared
    broker = MemoryPublisher() if has_broker else None
    one, other = (ProgressTracker(store=store, publisher=broker) for _ in range(2))
    app, seen = build_app(other, authenticate=basic(check)), dict[str, str]()
    with anyio.fail_after(20):
        async with one.lifespan(), other.lifespan(), operator_socket(app, "*") as connection:
            await connection.send_json(type="subscribe", all=True)
            await connection.receive_until("subscribed")
            async with one.track(owner="carol", upload_id="new") as upload:
                upload.advance(5)
                while seen.get("new") != "receiving":
                    [*_, message] = await connection.receive_until("progress")
                    seen[message["upload"]["upload_id"]] = message["upload"]["state"]
            while seen["new"] != "completed":
                [*_, message] = await connection.receive_until("progress")
                seen[message["upload"]["upload_id"]] = message["upload"]["state"]


class OtherStore:
    """A store of an application that cannot list the uploads of all owners, and nothing else."""


async def test_store_that_cannot_list_open_uploads() -> None:
    tracker = ProgressTracker(store=cast("SessionStore", OtherStore()))
    with pytest.raises(UploadNotFound):
        await tracker.list(owner=ALL_OWNERS)


async def test_entries_of_the_outbox_are_no_uploads(world: World) -> None:
    store = internals_of(world.tracker).reader.loader.parts.store
    [record] = await store.load(UploadKey("bob", "his"))
    await store.save([evolve(record, owner="capability:/ends/bob", upload_id="his/1")])

    page = await world.tracker.list(owner=ALL_OWNERS)

    assert [(each.owner, each.upload_id) for each in page.uploads] == [
        ("alice", "hers"),
        ("bob", "his"),
    ]
