"""Streams that a real Pushpin holds: who may open them, what they show, and when they end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from uuid import uuid4

import anyio
import httpx2
import pytest
import websockets.exceptions
import websockets.sync.client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests._support.asgi_client import wait_until
from tests._support.asgi_servers import run_server
from tests._support.server_factories import pushpin
from tests._support.server_processes import free_port
from tests.conftest import RequireProgram
from tests.edge.conftest import (
    GRIP_KEY,
    HOLD_SECONDS,
    PushpinSite,
    RunLoad,
    announce,
    client,
    make_site,
    put,
)
from upload_progress import ProgressTracker
from upload_progress._internals import internals_of
from upload_progress.client import AsyncProgressClient
from upload_progress.edge import GripProxy

STREAM = {"accept": "text/event-stream"}
UNKNOWN = "an-id-that-does-not-exist"


def snapshots(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def holds_nothing(site: PushpinSite) -> bool:
    """Return whether this process holds no stream."""
    return site.tracker.statistics().subscriptions == 0


def answer(site: PushpinSite, user: str, method: str, path: str, **headers: str) -> object:
    """Return status, headers and body of an answer through Pushpin."""
    with client(site.url, user) as http:
        response = http.request(method, path, headers=headers)
    shown = [pair for pair in response.headers.raw if pair[0].lower() != b"date"]
    return response.status_code, shown, response.content


OPERATIONS = [
    ("GET", "/uploads/{}/progress", {}),
    ("HEAD", "/uploads/{}/progress", STREAM),
    ("GET", "/uploads/{}/progress", STREAM),
    ("GET", "/uploads/{}/progress", {**STREAM, "last-event-id": "1"}),
    ("GET", "/uploads/{}/progress?owner=alice", STREAM),
    ("HEAD", "/uploads/{}", {}),
    ("DELETE", "/uploads/{}", {}),
]


def test_other_users_get_the_answer_of_an_unknown_upload(pushpin_site: PushpinSite) -> None:
    hers = announce(pushpin_site.url, "alice")

    for method, path, headers in OPERATIONS:
        foreign = answer(pushpin_site, "bob", method, path.format(hers), **headers)
        assert foreign == answer(pushpin_site, "bob", method, path.format(UNKNOWN), **headers)
        with client(pushpin_site.url) as http:
            assert http.request(method, path.format(hers), headers=headers).status_code == 401


def test_each_user_sees_only_own_uploads(pushpin_site: PushpinSite) -> None:
    url = pushpin_site.url
    with (
        client(url, "alice") as alice,
        client(url, "bob") as bob,
        alice.stream("GET", "/uploads/progress", headers=STREAM) as of_alice,
        bob.stream("GET", "/uploads/progress", headers=STREAM) as of_bob,
        bob.stream("GET", "/uploads/progress?group=g", headers=STREAM) as of_group,
    ):
        assert holds_nothing(pushpin_site)
        hers = announce(url, "alice", group="g")
        put(url, "alice", hers)
        his = announce(url, "bob", group="g")
        others = announce(url, "bob")
        put(url, "bob", others)
        put(url, "bob", his)

        assert ids_until_end(of_alice, hers) == {hers}
        assert ids_until_end(of_bob, his) == {his, others}
        assert ids_until_end(of_group, his) == {his}
    assert holds_nothing(pushpin_site)


def ids_until_end(response: httpx2.Response, upload_id: str) -> set[str]:
    """Return the ids that a stream shows until that upload has ended."""
    found = set[str]()

    def is_end(snapshot: dict[str, Any]) -> bool:
        found.add(snapshot["upload_id"])
        return (snapshot["upload_id"], snapshot["state"]) == (upload_id, "completed")

    next(filter(is_end, snapshots(response.iter_lines())))
    return found


def test_stream_begins_with_the_snapshot_and_ends_with_the_upload(
    pushpin_site: PushpinSite,
) -> None:
    url = pushpin_site.url
    upload_id = announce(url, "alice")
    with client(url, "alice") as http:
        path = f"/uploads/{upload_id}/progress"
        with http.stream("GET", path, headers=STREAM) as response:
            assert response.headers["cache-control"] == "no-store, no-transform"
            assert not any(name.startswith("grip") for name in response.headers)
            lines = response.iter_lines()
            assert next(lines).startswith("retry: ")
            found = snapshots(lines)
            assert next(found)["state"] == "pending"
            assert holds_nothing(pushpin_site)
            put(url, "alice", upload_id)
            # The proxy closes the stream after the end.
            *_, end = found
        assert (end["state"], end["bytes_transferred"]) == ("completed", 4)

        ended = http.get(path, headers=STREAM)
        assert [each["state"] for each in snapshots(iter(ended.text.splitlines()))] == ["completed"]
        known = http.get(path, headers={**STREAM, "last-event-id": str(end["sequence"])})
        assert known.status_code == 204


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_python_client_goes_on_when_a_stream_is_closed(short_holds: PushpinSite) -> None:
    url, states = short_holds.url, []
    upload_id = await anyio.to_thread.run_sync(announce, url, "alice")
    async with AsyncProgressClient(f"{url}/uploads", auth=("alice", "alice")) as watching:
        with anyio.fail_after(30):
            async for progress in watching.watch(upload_id):
                states.append(progress.state)
                if len(states) == 1:
                    await anyio.sleep(HOLD_SECONDS + 1)
                    await anyio.to_thread.run_sync(put, url, "alice", upload_id)
    assert states[0] == "pending"
    assert states[-1] == "completed"


@pytest.mark.parametrize("is_active", [False, True])
def test_stream_of_a_revoked_user_is_closed(short_holds: PushpinSite, *, is_active: bool) -> None:
    url = short_holds.url
    with uploading(short_holds) if is_active else nullcontext(), client(url, "alice") as http:
        with http.stream("GET", "/uploads/progress", headers=STREAM) as response:
            short_holds.users.allowed.remove("alice")
            # Else an active stream would stay open for ever.
            for _ in response.iter_lines():
                pass
        assert http.get("/uploads/progress", headers=STREAM).status_code == 401


@contextmanager
def uploading(site: PushpinSite) -> Iterator[None]:
    """Receive an upload of Alice while the block runs."""
    is_over = threading.Event()

    async def upload() -> None:
        async with site.tracker.track(owner="alice") as upload:
            while not is_over.is_set():
                upload.advance(1)
                await anyio.sleep(0.05)

    with ThreadPoolExecutor(1) as threads:
        uploaded = threads.submit(site.server.run, upload)
        try:
            yield
        finally:
            is_over.set()
            uploaded.result(30)


def test_every_worker_publishes_to_the_streams_of_all(
    pushpin_site: PushpinSite, redis_url: str
) -> None:
    """Both workers have the same store, and Pushpin passes requests on to one of them."""
    edge = internals_of(pushpin_site.tracker).backends.edge
    assert isinstance(edge, GripProxy)
    namespace = f"test-{uuid4().hex[:12]}"
    with ExitStack() as stack:
        trackers = [
            ProgressTracker.from_url(
                redis_url,
                namespace=namespace,
                edge=GripProxy(edge.control_url, key=edge.key),
            )
            for _ in range(2)
        ]
        one, two = (stack.enter_context(run_server(make_site(each))) for each in trackers)
        app_port = int(one.url.rpartition(":")[2])
        routes = pushpin_site.pushpin.folder / "routes"
        routes.write_text(f"* 127.0.0.1:{app_port}\n", encoding="utf-8")
        pushpin_site.pushpin.kill()
        pushpin_site.pushpin.ensure_running()

        upload_id = announce(two.url, "alice")
        http = stack.enter_context(client(pushpin_site.url, "alice"))
        path = f"/uploads/{upload_id}/progress"
        with http.stream("GET", path, headers=STREAM) as response:
            found = snapshots(response.iter_lines())
            assert next(found)["state"] == "pending"
            put(two.url, "alice", upload_id)
            *_, end = found
        assert end["state"] == "completed"
        assert [each.statistics().subscriptions for each in trackers] == [0, 0]


def test_end_before_the_proxy_held_the_stream_is_seen(require_program: RequireProgram) -> None:
    """The snapshot of the stream was read before the end, and held after it."""
    control_port = free_port()
    proxy = GripProxy(f"http://127.0.0.1:{control_port}", key=GRIP_KEY)
    tracker = ProgressTracker(edge=proxy)

    async def stale(_request: Request) -> Response:
        headers = proxy.hold(tracker.config.namespace, "alice", upload_id="late")
        return Response("", media_type="text/event-stream", headers=headers)

    async def upload() -> None:
        async with tracker.track(owner="alice", upload_id="late", total_bytes=1) as upload:
            upload.advance(1)

    app = Starlette(routes=[Route("/stale", stale)], lifespan=tracker.lifespan)
    with run_server(app) as server:
        app_port = int(server.url.rpartition(":")[2])
        ports = {"app_port": app_port, "control_port": control_port}
        process = pushpin(require_program, **ports, key=GRIP_KEY, probe="/stale")
        with client(process.start().url) as http:
            try:
                server.run(upload)
                server.run(wait_until_published, tracker)
                ended = http.get("/stale")
            finally:
                process.stop()
    assert [each["state"] for each in snapshots(iter(ended.text.splitlines()))] == ["completed"]


async def wait_until_published(tracker: ProgressTracker) -> None:
    outbox = tracker._internals.flusher.outbox.edge
    assert outbox is not None
    await wait_until(lambda: outbox.published > 0)


def test_websocket_through_the_proxy_is_refused(pushpin_site: PushpinSite) -> None:
    address = pushpin_site.url.replace("http", "ws") + "/uploads/progress"
    headers = {"authorization": "Basic YWxpY2U6YWxpY2U="}
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websockets.sync.client.connect(address, additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == 501
    assert b"websocket_unsupported" in refused.value.response.body


def test_streams_that_the_proxy_cannot_hold_are_held_here(pushpin_site: PushpinSite) -> None:
    direct = pushpin_site.server.url
    for url, user, path in [
        (direct, "alice", "/uploads/progress"),
        (pushpin_site.url, "alice", "/uploads/progress?state=receiving"),
        (pushpin_site.url, "root", "/uploads/progress?owner=*"),
    ]:
        with client(url, user) as http, http.stream("GET", path, headers=STREAM) as response:
            assert response.status_code == 200
            assert not holds_nothing(pushpin_site)


def test_uploads_go_on_without_pushpin(pushpin_site: PushpinSite) -> None:
    direct = pushpin_site.server.url
    first, second = announce(direct, "alice"), announce(direct, "alice")
    pushpin_site.pushpin.kill()
    put(direct, "alice", first)
    pushpin_site.server.run(wait_for_failure, pushpin_site.tracker)

    pushpin_site.pushpin.ensure_running()
    with client(pushpin_site.url, "alice") as http:
        path = f"/uploads/{second}/progress"
        with http.stream("GET", path, headers=STREAM) as response:
            put(direct, "alice", second)
            *_, end = snapshots(response.iter_lines())
    assert end["state"] == "completed"


async def wait_for_failure(tracker: ProgressTracker) -> None:
    await wait_until(lambda: tracker.statistics().backend_failures["edge"] > 0)


def test_load_through_pushpin(pushpin_site: PushpinSite, run_load: RunLoad) -> None:
    report = run_load(
        f"-server={pushpin_site.server.url}",
        f"-watch={pushpin_site.url}",
        *("-uploads=10", "-watchers=400", "-size=60000", "-rate=120000", "-timeout=20s"),
    )

    assert report["ends_seen"] == 400
    assert holds_nothing(pushpin_site)
