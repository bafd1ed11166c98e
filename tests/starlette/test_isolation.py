"""Isolation of users: no operation reveals whether an id of another user exists."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx2
import pytest
from attrs import frozen
from starlette.applications import Starlette

from tests._support.asgi_client import (
    as_user,
    build_app,
    client,
    http_scope,
    open_connection,
    open_socket,
    websocket_scope,
)
from upload_progress import Limits, MemoryStore, ProgressTracker
from upload_progress.backends import MemoryPublisher
from upload_progress.starlette import capability

pytestmark = pytest.mark.anyio

UNKNOWN = "an-id-that-does-not-exist"
STREAM = {"accept": "text/event-stream"}


@frozen
class World:
    """Alice has an upload and an open socket."""

    app: Starlette
    tracker: ProgressTracker
    upload_id: str
    client_id: str


@pytest.fixture
async def world() -> AsyncIterator[World]:
    tracker = ProgressTracker()
    app = build_app(tracker)
    async with tracker.lifespan(), tracker.track(owner="alice", upload_id="hers") as upload:
        upload.advance(1)
        async with open_socket(app) as connection:
            welcome = await connection.receive_json()
            yield World(app, tracker, upload.upload_id, welcome["client_id"])


OPERATIONS = [
    ("GET", "/uploads/{}/progress", {}),
    ("HEAD", "/uploads/{}/progress", {}),
    ("GET", "/uploads/{}/progress?wait=5", {"if-none-match": "*"}),
    ("GET", "/uploads/{}/progress", {"if-none-match": '"1.1.receiving.1"'}),
    ("GET", "/uploads/{}/progress", STREAM),
    ("HEAD", "/uploads/{}/progress", STREAM),
    ("GET", "/uploads/{}/progress", {**STREAM, "last-event-id": "1"}),
    ("HEAD", "/uploads/{}", {}),
    ("DELETE", "/uploads/{}", {}),
]


async def answer_of(
    http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> object:
    """Return status, headers in their order, and body of a response."""
    with anyio.fail_after(10):
        answer = await http.request(method, path, headers=headers)
    return answer.status_code, answer.headers.raw, answer.content


@pytest.mark.parametrize(("method", "path", "headers"), OPERATIONS)
async def test_foreign_and_unknown_upload_get_identical_responses(
    world: World, method: str, path: str, headers: dict[str, str]
) -> None:
    """Byte for byte."""
    async with client(world.app, "bob") as bob:
        foreign = await answer_of(bob, method, path.format(world.upload_id), headers)
        unknown = await answer_of(bob, method, path.format(UNKNOWN), headers)
        malformed = await answer_of(bob, method, path.format("%20!"), headers)

    assert foreign == unknown == malformed
    assert isinstance(foreign, tuple)
    assert foreign[0] == 404
    assert (await world.tracker.get(world.upload_id, owner="alice")).state == "receiving"


async def test_foreign_upload_is_not_listed(world: World) -> None:
    async with client(world.app, "bob") as bob:
        page = (await bob.get("/uploads/progress?state=receiving,completed")).json()

    assert page["uploads"] == []
    assert page["total"]["uploads"] == 0


@pytest.mark.parametrize("denial", [True, False])
async def test_socket_of_foreign_and_unknown_upload_are_refused_identically(
    world: World, denial: bool
) -> None:
    """By a response, and by a close code."""

    async def refusal(upload_id: str) -> list[object]:
        scope = websocket_scope(
            f"/uploads/{upload_id}/progress", headers=as_user("bob"), denial=denial
        )
        async with open_connection(world.app, scope) as connection:
            return [await connection.receive(), await connection.receive()]

    foreign, unknown = await refusal(world.upload_id), await refusal(UNKNOWN)

    assert foreign == unknown
    assert ("4404" in repr(foreign)) is not denial


@pytest.mark.parametrize("kind", ["subscribe", "cancel"])
async def test_message_about_foreign_upload_gets_404(world: World, kind: str) -> None:
    async with open_socket(world.app, user="bob") as connection:
        await connection.receive_until("welcome")
        problems = []
        for upload_id in (world.upload_id, UNKNOWN, "not an id"):
            await connection.send_json(type=kind, upload_id=upload_id)
            problems += await connection.receive_until("error")

    assert problems[0] == problems[1] == problems[2]
    assert problems[0]["problem"]["status"] == 404


async def test_updates_are_not_delivered_to_another_owner(world: World) -> None:
    """Subscriptions of bob to the same id, and to all uploads, show nothing of alice."""
    async with (
        open_socket(world.app, user="bob") as connection,
        world.tracker.track(owner="bob", upload_id=world.upload_id) as echo_path,
    ):
        await connection.send_json(type="subscribe", all=True)
        await connection.send_json(type="subscribe", upload_id=world.upload_id)
        await connection.receive_until("subscribed")
        echo_path.advance(7)
        seen = {0}
        while 7 not in seen:
            for message in await connection.receive_until("progress"):
                if message["type"] == "progress":
                    seen.add(message["upload"]["bytes_transferred"])

    assert 1 not in seen


async def test_client_id_of_another_user_gets_404(world: World) -> None:
    """Bob knows the client_id of alice, but cannot use it."""
    async with client(world.app, "bob") as bob, world.tracker.track(owner="bob") as echo_path:
        answers = []
        for client_id in (world.client_id, "guessed"):
            answers += [
                await subscribe_answer(bob, f"/uploads/{echo_path.upload_id}/subscribe", client_id),
                await subscribe_answer(bob, f"/uploads/{world.upload_id}/subscribe", client_id),
                await answer_of(bob, "DELETE", f"/uploads/{client_id}/unsubscribe", {}),
            ]

    assert len(set(map(repr, answers))) == 1
    async with client(world.app) as alice:
        body = {"client_id": world.client_id}
        mine = await alice.post(f"/uploads/{world.upload_id}/subscribe", json=body)
        unknown = await alice.post(f"/uploads/{UNKNOWN}/subscribe", json=body)
    assert (mine.status_code, unknown.status_code) == (204, 404)


async def subscribe_answer(http: httpx2.AsyncClient, path: str, client_id: str) -> object:
    answer = await http.post(path, json={"client_id": client_id})
    return answer.status_code, answer.headers.raw, answer.content


# Capabilities


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


async def test_capability_gives_access_by_id_but_no_list(tracker: ProgressTracker) -> None:
    app = build_app(tracker, authenticate=capability())
    async with client(app, user=None) as http:
        made = await http.post("/uploads")
        path = made.headers["location"]
        assert (await http.get(path)).json()["state"] == "pending"
        lists = [await http.get("/uploads/progress", headers=headers) for headers in ({}, STREAM)]
        weak = await http.get("/uploads/12345/progress")
        assert (await http.delete(made.json()["links"]["cancel"])).status_code == 202

    assert {(each.status_code, each.content) for each in lists} == {
        (weak.status_code, weak.content)
    }
    assert weak.status_code == 404


async def test_capability_works_on_a_socket(tracker: ProgressTracker) -> None:
    app = build_app(tracker, authenticate=capability())
    async with client(app, user=None) as http:
        upload_id = (await http.post("/uploads")).json()["upload_id"]
        async with open_connection(app, websocket_scope("/uploads/progress")) as connection:
            await connection.receive()
            client_id = (await connection.receive_json())["client_id"]
            for target in ({"all": True}, {"group": "g"}, {"upload_id": "12345"}):
                await connection.send_json(type="subscribe", **target)
                assert (await connection.receive_json())["problem"]["status"] == 404
            await connection.send_json(type="subscribe", upload_id=upload_id)
            await connection.receive_until("progress")
            answer = await http.delete(f"/uploads/{client_id}/unsubscribe?upload_id={upload_id}")
            assert answer.status_code == 204
            await connection.receive_until("unsubscribed")


async def test_anonymous_connections_are_limited_by_client() -> None:
    """Neither the number of uploads nor several kinds of connections help a client."""
    limits = Limits(sockets_per_client=3, sockets_total=5)
    tracker = ProgressTracker(limits=limits)
    app = build_app(tracker, authenticate=capability())

    async def refused_by(address: str) -> str | None:
        scope = websocket_scope("/uploads/progress")
        async with open_connection(app, {**scope, "client": [address, 1]}) as connection:
            message = await connection.receive()
            if message["type"] == "websocket.accept":
                return None
            return str(json.loads((await connection.receive())["body"])["detail"])

    async with tracker.lifespan(), client(app, user=None) as http:
        paths = [(await http.post("/uploads")).headers["location"] for _ in range(4)]
        async with AsyncExitStack() as stack:

            async def open_at(address: str, scope: dict[str, Any]) -> None:
                scope = {**scope, "client": [address, 1]}
                connection = await stack.enter_async_context(open_connection(app, scope))
                await connection.receive()

            await open_at("10.0.0.1", websocket_scope("/uploads/progress"))
            await open_at("10.0.0.1", websocket_scope(paths[0]))
            await open_at("10.0.0.1", http_scope(paths[1], headers=STREAM))
            assert "sockets_per_client" in str(await refused_by("10.0.0.1"))
            assert await refused_by("10.0.0.2") is None
            await open_at("10.0.0.2", http_scope(paths[2], headers=STREAM))
            await open_at("10.0.0.3", http_scope(paths[3], headers=STREAM))
            assert "sockets_total" in str(await refused_by("10.0.0.4"))
            # A client whose address is unknown counts in total only.
            assert "sockets_total" in str(await refused_by(""))
        assert await refused_by("10.0.0.1") is None
        assert await refused_by("") is None


async def test_anonymous_announcements_are_limited_by_client() -> None:
    tracker = ProgressTracker(limits=Limits(announced_per_owner=3, announced_total=5))
    app = build_app(tracker, authenticate=capability(client=lambda each: each.query["from"]))

    async def announce(http: httpx2.AsyncClient, address: str) -> int:
        return (await http.post(f"/uploads?from={address}")).status_code

    async with tracker.lifespan(), client(app, user=None) as http:
        statuses = [await announce(http, "a") for _ in range(5)]
        statuses += [await announce(http, "b") for _ in range(5)]

    assert statuses == [201, 201, 201, 429, 429, 201, 201, 429, 429, 429]


async def test_ticket_of_another_worker_counts_for_the_client_that_uses_it() -> None:
    store, broker = MemoryStore(), MemoryPublisher()
    one, other = (
        ProgressTracker(store=store, publisher=broker, limits=Limits(sockets_per_client=1))
        for _ in range(2)
    )
    apps = [build_app(each, authenticate=capability()) for each in (one, other)]
    async with one.lifespan(), other.lifespan(), client(apps[0], user=None) as http:
        tickets = [(await http.post("/uploads/tickets")).json()["ticket"] for _ in range(2)]
        scopes = [
            {**websocket_scope("/uploads/progress", query=f"ticket={ticket}"), "client": ["x", 1]}
            for ticket in tickets
        ]
        async with open_connection(apps[1], scopes[0]) as connection:
            assert (await connection.receive())["type"] == "websocket.accept"
            async with open_connection(apps[1], scopes[1]) as refused:
                assert (await refused.receive())["status"] == 429
