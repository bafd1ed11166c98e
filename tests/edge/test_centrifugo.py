"""Streams of a real Centrifugo: who may open them, what they show, and when they end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
import jwt
import pytest
import websockets.exceptions
import websockets.sync.client
from attrs import frozen

from tests._support.asgi_client import wait_until
from tests._support.asgi_servers import run_server
from tests.conftest import RequireProgram
from tests.edge.conftest import (
    GRIP_KEY,
    CentrifugoSite,
    RunLoad,
    announce,
    client,
    make_site,
    put,
    run_centrifugo_site,
)
from upload_progress import ProgressTracker
from upload_progress.client import AsyncProgressClient
from upload_progress.edge import Centrifugo

UNKNOWN = "an-id-that-does-not-exist"
REVALIDATE_SECONDS = 4
DEADLINE_SECONDS = 30
# The codes of Centrifugo, see centrifugal.dev/docs/server/codes.
EXPIRED, INVALID_TOKEN, BAD_REQUEST = 3005, 3500, 3501


@frozen
class Stream:
    """An open stream of Centrifugo.

    Attributes:
        lines: Its messages.
        known: The snapshots that it began with.
        expires_at: When its token ends, in seconds since the epoch.
    """

    lines: Iterator[dict[str, Any]]
    known: list[dict[str, Any]]
    expires_at: float

    def snapshots(self) -> Iterator[dict[str, Any]]:
        """Yield what is published, until the connection ends."""
        for message in self.lines:
            if "pub" in message:
                yield message["pub"]["data"]

    def until_end(self, upload_id: str) -> list[dict[str, Any]]:
        """Return what is published until that upload has ended."""
        found = list[dict[str, Any]]()

        def is_end(snapshot: dict[str, Any]) -> bool:
            found.append(snapshot)
            return (snapshot["upload_id"], snapshot["state"]) == (upload_id, "completed")

        next(filter(is_end, self.snapshots()))
        return found


def access(site: CentrifugoSite, user: str, *targets: dict[str, str]) -> dict[str, Any]:
    """Return what a user gets with a ticket."""
    with client(site.url, user) as http:
        response = http.post("/uploads/tickets", json={"targets": targets})
    edge: dict[str, Any] = response.raise_for_status().json()["edge"]
    return edge


@contextmanager
def stream(site: CentrifugoSite, token: str, **request: object) -> Iterator[Iterator[str]]:
    """Connect to Centrifugo."""
    address = f"{site.centrifugo.url}/connection/uni_http_stream"
    body = {"token": token, **request}
    with (
        httpx2.Client(timeout=DEADLINE_SECONDS, trust_env=False) as http,
        http.stream("POST", address, json=body) as response,
    ):
        yield response.iter_lines()


@contextmanager
def watching(site: CentrifugoSite, user: str, *targets: dict[str, str]) -> Iterator[Stream]:
    """Follow uploads of a user."""
    token = access(site, user, *targets)["token"]
    with stream(site, token) as lines:
        messages = map(json.loads, lines)
        subscriptions = next(messages)["connect"]["subs"].values()
        found = [each["data"] for sub in subscriptions for each in sub.get("publications", ())]
        yield Stream(messages, found, jwt.decode(token, GRIP_KEY, ["HS256"])["exp"])


def refusal(site: CentrifugoSite, token: str, **request: object) -> int:
    """Return the code with which Centrifugo refuses a connection."""
    with stream(site, token, **request) as lines:
        code: int = json.loads(next(lines))["disconnect"]["code"]
    return code


async def wait_until_published(tracker: ProgressTracker, count: int) -> None:
    outbox = tracker._internals.flusher.outbox.edge
    assert outbox is not None
    await wait_until(lambda: outbox.published >= count)


def test_each_user_sees_only_own_uploads(centrifugo_site: CentrifugoSite) -> None:
    site = centrifugo_site
    hers, his = announce(site.url, "alice", group="g"), announce(site.url, "bob", group="g")
    others = announce(site.url, "bob")
    site.server.run(wait_until_published, site.tracker, 3)
    with (
        watching(site, "alice") as of_alice,
        watching(site, "bob") as of_bob,
        watching(site, "bob", {"group": "g"}) as of_group,
        watching(site, "bob", {"upload_id": others}, {"upload_id": hers}) as of_uploads,
        watching(site, "bob", {"upload_id": UNKNOWN}) as of_unknown,
    ):
        assert site.tracker.statistics().subscriptions == 0
        assert [each["upload_id"] for each in of_alice.known] == [hers]
        assert [each["upload_id"] for each in of_uploads.known] == [others]
        assert of_unknown.known == []
        put(site.url, "alice", hers)
        put(site.url, "bob", others)
        put(site.url, "bob", his)

        assert {each["upload_id"] for each in of_alice.until_end(hers)} == {hers}
        assert {each["upload_id"] for each in of_bob.until_end(his)} == {his, others}
        assert {each["upload_id"] for each in of_group.until_end(his)} == {his}
        assert {each["upload_id"] for each in of_uploads.until_end(others)} == {others}


def test_late_watcher_gets_the_newest_snapshot_of_its_upload(
    centrifugo_site: CentrifugoSite,
) -> None:
    site = centrifugo_site
    upload_id = announce(site.url, "alice")
    put(site.url, "alice", upload_id)
    site.server.run(wait_until_published, site.tracker, 2)

    with watching(site, "alice", {"upload_id": upload_id}) as late:
        assert [each["state"] for each in late.known] == ["completed"]


def test_token_of_another_user_or_key_opens_nothing(centrifugo_site: CentrifugoSite) -> None:
    site = centrifugo_site
    hers = access(site, "alice")
    (channel,) = hers["subscriptions"]
    claims = jwt.decode(hers["token"], GRIP_KEY, ["HS256"])

    assert claims["channels"] == [channel]
    assert "alice" not in str(claims)
    assert refusal(site, jwt.encode(claims, "f" * 32)) == INVALID_TOKEN
    assert refusal(site, jwt.encode(claims, "", "none")) == INVALID_TOKEN
    assert refusal(site, "") == BAD_REQUEST
    expired = {**claims, "exp": int(time.time()) - 1}
    assert refusal(site, jwt.encode(expired, GRIP_KEY)) == EXPIRED
    # Naming the channel of another user subscribes to nothing.
    with stream(site, access(site, "bob")["token"], subs={channel: {}}) as lines:
        assert channel not in json.loads(next(lines))["connect"]["subs"]


def test_subscription_token_is_for_its_channel_and_user(centrifugo_site: CentrifugoSite) -> None:
    """With it, a client of a Centrifugo protocol in both directions subscribes."""
    site = centrifugo_site
    upload_id = announce(site.url, "alice")
    site.server.run(wait_until_published, site.tracker, 1)
    hers, his = access(site, "alice", {"upload_id": upload_id}), access(site, "bob")
    (channel,), (other,) = hers["subscriptions"], his["subscriptions"]
    user = jwt.decode(hers["token"], GRIP_KEY, ["HS256"])["sub"]
    token = jwt.encode({"sub": user}, GRIP_KEY, "HS256")

    answer = subscribe(site, token, channel, hers["subscriptions"][channel])
    (publication,) = answer["subscribe"]["publications"]
    assert publication["data"]["upload_id"] == upload_id
    # That of Bob's channel, the right one for another user, and none.
    for name, used, given in [
        (channel, token, his["subscriptions"][other]),
        (channel, his["token"], hers["subscriptions"][channel]),
        (other, token, ""),
    ]:
        assert "code" in subscribe(site, used, name, given)["error"]


def subscribe(site: CentrifugoSite, token: str, channel: str, given: str) -> dict[str, Any]:
    """Subscribe to a channel on a WebSocket, and return the answer."""
    address = site.centrifugo.url.replace("http", "ws") + "/connection/websocket"
    with websockets.sync.client.connect(address, proxy=None) as socket:
        socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
        socket.recv(DEADLINE_SECONDS)
        socket.send(json.dumps({"id": 2, "subscribe": {"channel": channel, "token": given}}))
        try:
            answer: dict[str, Any] = json.loads(socket.recv(DEADLINE_SECONDS))
        except websockets.exceptions.ConnectionClosed as closed:
            return {"error": {"code": str(closed)}}
    return answer


@pytest.mark.parametrize("is_active", [False, True])
def test_stream_of_a_revoked_user_is_closed(
    require_program: RequireProgram, *, is_active: bool
) -> None:
    with run_centrifugo_site(require_program, revalidate_seconds=REVALIDATE_SECONDS) as site:
        upload_id = announce(site.url, "alice")
        began = time.monotonic()
        with watching(site, "alice") as watched:
            # The clock of Centrifugo and this one are the same.
            assert watched.expires_at <= time.time() + REVALIDATE_SECONDS
            site.users.allowed.remove("alice")
            if is_active:
                site.server.run(upload_for_ever_as_alice, site.tracker, began)
            for _ in watched.snapshots():
                pass
        with client(site.url, "alice") as http:
            assert http.post("/uploads/tickets").status_code == 401
            assert http.get(f"/uploads/{upload_id}/progress").status_code == 401


async def upload_for_ever_as_alice(tracker: ProgressTracker, began: float) -> None:
    async with tracker.track(owner="alice") as upload:
        while time.monotonic() - began < REVALIDATE_SECONDS - 1:
            upload.advance(1)
            await anyio.sleep(0.05)


def restart(site: CentrifugoSite) -> None:
    site.centrifugo.kill()
    site.centrifugo.ensure_running()


def wait_for_expiry(site: CentrifugoSite) -> None:
    """Wait until the streams that are open now were closed."""
    with watching(site, "alice") as opened_later:
        assert list(opened_later.snapshots()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("interrupt", [restart, wait_for_expiry])
async def test_python_client_goes_on_when_its_stream_is_closed(
    require_program: RequireProgram, interrupt: Callable[[CentrifugoSite], None]
) -> None:
    """Its token expires, or Centrifugo is restarted without what it knew."""
    with run_centrifugo_site(require_program, revalidate_seconds=REVALIDATE_SECONDS) as site:
        upload_id = await anyio.to_thread.run_sync(announce, site.url, "alice")
        states = []
        async with AsyncProgressClient(f"{site.url}/uploads", auth=("alice", "alice")) as watcher:
            with anyio.fail_after(DEADLINE_SECONDS):
                async for progress in watcher.watch(upload_id):
                    states.append(progress.state)
                    if len(states) == 1:
                        await anyio.to_thread.run_sync(interrupt, site)
                        await anyio.to_thread.run_sync(put, site.url, "alice", upload_id)
                    assert site.tracker.statistics().subscriptions == 0
    assert [str(states[0]), str(states[-1])] == ["pending", "completed"]


def test_uploads_go_on_without_centrifugo(centrifugo_site: CentrifugoSite) -> None:
    site = centrifugo_site
    ids = [announce(site.url, "alice") for _ in range(3)]
    site.centrifugo.kill()
    for upload_id in ids:
        put(site.url, "alice", upload_id)
    site.server.run(wait_for_failure, site.tracker)

    site.centrifugo.ensure_running()
    with watching(site, "alice", *({"upload_id": each} for each in ids)) as watched:
        ended = {each["upload_id"] for each in watched.known if each["state"] == "completed"}
        snapshots = watched.snapshots()
        while len(ended) < len(ids):
            ended |= {one["upload_id"] for one in [next(snapshots)] if one["state"] == "completed"}


async def wait_for_failure(tracker: ProgressTracker) -> None:
    await wait_until(lambda: tracker.statistics().backend_failures["edge"] > 0)


def test_events_with_a_wrong_api_key_are_failures(centrifugo_site: CentrifugoSite) -> None:
    url = centrifugo_site.centrifugo.url
    tracker = ProgressTracker(edge=Centrifugo(url, api_key="wrong", token_key=GRIP_KEY))
    with run_server(make_site(tracker)) as server:
        put(server.url, "alice", announce(server.url, "alice"))
        server.run(wait_for_failure, tracker)


def test_load_through_centrifugo(centrifugo_site: CentrifugoSite, run_load: RunLoad) -> None:
    report = run_load(
        f"-server={centrifugo_site.url}",
        *("-edge", "-uploads=10", "-watchers=400", "-size=60000", "-rate=120000", "-timeout=20s"),
    )

    assert report["ends_seen"] == 400
    assert centrifugo_site.tracker.statistics().subscriptions == 0
