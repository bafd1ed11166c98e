"""A01, A17, I4: the second user. Every operation, and nothing tells whether an id exists."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx2
import pytest
from attrs import frozen
from starlette.applications import Starlette

from tests._support.asgi_client import (
    as_user,
    build_app,
    call,
    client,
    listening,
    until,
    websocket_scope,
)
from upload_progress import ProgressTracker
from upload_progress.starlette import capability

pytestmark = pytest.mark.anyio

UNKNOWN = "an-id-that-nobody-ever-had"
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
        async with listening(app) as line:
            welcome = await line.hear_json()
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


async def told(http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]) -> object:
    """Return everything that an answer says: status, headers in their order, body."""
    with anyio.fail_after(10):
        answer = await http.request(method, path, headers=headers)
    return answer.status_code, answer.headers.raw, answer.content


@pytest.mark.parametrize(("method", "path", "headers"), OPERATIONS)
async def test_not_yours_and_not_there_are_the_same(
    world: World, method: str, path: str, headers: dict[str, str]
) -> None:
    """A01, byte for byte."""
    async with client(world.app, "bob") as bob:
        hers = await told(bob, method, path.format(world.upload_id), headers)
        nobodys = await told(bob, method, path.format(UNKNOWN), headers)
        malformed = await told(bob, method, path.format("%20!"), headers)

    assert hers == nobodys == malformed
    assert isinstance(hers, tuple)
    assert hers[0] == 404
    assert (await world.tracker.get(world.upload_id, owner="alice")).state == "receiving"


async def test_a_foreign_upload_is_in_no_list(world: World) -> None:
    async with client(world.app, "bob") as bob:
        page = (await bob.get("/uploads/progress?state=receiving,completed")).json()

    assert page["uploads"] == []
    assert page["total"]["uploads"] == 0


@pytest.mark.parametrize("denial", [True, False])
async def test_a_foreign_upload_has_no_socket(world: World, denial: bool) -> None:
    """A01, both ways in which a handshake is refused."""

    async def refusal(upload_id: str) -> list[object]:
        scope = websocket_scope(
            f"/uploads/{upload_id}/progress", headers=as_user("bob"), denial=denial
        )
        async with call(world.app, scope) as line:
            return [await line.hear(), await line.hear()]

    hers, nobodys = await refusal(world.upload_id), await refusal(UNKNOWN)

    assert hers == nobodys
    assert ("4404" in repr(hers)) is not denial


@pytest.mark.parametrize("kind", ["subscribe", "cancel"])
async def test_a_foreign_upload_cannot_be_named_on_a_socket(world: World, kind: str) -> None:
    async with listening(world.app, user="bob") as line:
        await line.hear_until("welcome")
        problems = []
        for upload_id in (world.upload_id, UNKNOWN, "not an id"):
            await line.tell(type=kind, upload_id=upload_id)
            problems += await line.hear_until("error")

    assert problems[0] == problems[1] == problems[2]
    assert problems[0]["problem"]["status"] == 404


async def test_nothing_is_delivered_across_owners(world: World) -> None:
    """The same id, group and everything of bob's: not a byte of alice's."""
    async with (
        listening(world.app, user="bob") as line,
        world.tracker.track(owner="bob", upload_id=world.upload_id) as own,
    ):
        await line.tell(type="subscribe", all=True)
        await line.tell(type="subscribe", upload_id=world.upload_id)
        await line.hear_until("subscribed")
        own.advance(7)
        seen = {0}
        while 7 not in seen:
            for message in await line.hear_until("progress"):
                if message["type"] == "progress":
                    seen.add(message["upload"]["bytes_transferred"])

    assert 1 not in seen


async def test_a_foreign_socket_cannot_be_addressed(world: World) -> None:
    """A17: bob knows alice's client_id, and it does him no good, nor her any harm."""
    async with client(world.app, "bob") as bob, world.tracker.track(owner="bob") as own:
        answers = []
        for client_id in (world.client_id, "guessed"):
            answers += [
                await told_json(bob, f"/uploads/{own.upload_id}/subscribe", client_id),
                await told_json(bob, f"/uploads/{world.upload_id}/subscribe", client_id),
                await told(bob, "DELETE", f"/uploads/{client_id}/unsubscribe", {}),
            ]

    assert len(set(map(repr, answers))) == 1
    async with client(world.app) as alice:
        body = {"client_id": world.client_id}
        mine = await alice.post(f"/uploads/{world.upload_id}/subscribe", json=body)
        unknown = await alice.post(f"/uploads/{UNKNOWN}/subscribe", json=body)
    assert (mine.status_code, unknown.status_code) == (204, 404)


async def told_json(http: httpx2.AsyncClient, path: str, client_id: str) -> object:
    answer = await http.post(path, json={"client_id": client_id})
    return answer.status_code, answer.headers.raw, answer.content


# Capabilities: to know the id is to hold the upload


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


async def test_who_holds_the_id_may_watch_and_nobody_has_a_list(tracker: ProgressTracker) -> None:
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


async def test_a_capability_on_a_socket(tracker: ProgressTracker) -> None:
    app = build_app(tracker, authenticate=capability())
    async with client(app, user=None) as http:
        upload_id = (await http.post("/uploads")).json()["upload_id"]
        async with call(app, websocket_scope("/uploads/progress")) as line:
            await line.hear()
            client_id = (await line.hear_json())["client_id"]
            for wish in ({"all": True}, {"group": "g"}, {"upload_id": "12345"}):
                await line.tell(type="subscribe", **wish)
                assert (await line.hear_json())["problem"]["status"] == 404
            await line.tell(type="subscribe", upload_id=upload_id)
            await line.hear_until("progress")
            answer = await http.delete(f"/uploads/{client_id}/unsubscribe?upload_id={upload_id}")
            assert answer.status_code == 204
            await line.hear_until("unsubscribed")


async def test_capabilities_are_counted_by_upload_or_by_address(tracker: ProgressTracker) -> None:
    """Nobody in particular has no limit in common: or twenty strangers would lock out all."""
    app = build_app(tracker, authenticate=capability())
    async with client(app, user=None) as http:
        paths = [(await http.post("/uploads")).headers["location"] for _ in range(2)]
    async with anyio.create_task_group() as tasks:

        async def watch(path: str) -> None:
            async with call(app, websocket_scope(path)) as line:
                assert await line.hear_close() == 1012

        for _ in range(20):
            tasks.start_soon(watch, paths[0])
        await until(lambda: tracker.statistics().subscriptions == 20)
        async with call(app, websocket_scope(paths[0], denial=False)) as refused:
            assert await refused.hear_close() == 4429
        for other in (paths[1], "/uploads/progress"):
            async with call(app, websocket_scope(other)) as line:
                assert (await line.hear())["type"] == "websocket.accept"
        tracker.drain()
