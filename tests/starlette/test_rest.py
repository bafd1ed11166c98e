"""The HTTP endpoints."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from tests._support.asgi_client import (
    Message,
    RecordingSend,
    as_user,
    build_app,
    client,
    http_scope,
    never,
    open_connection,
    wait_until,
)
from upload_progress import Limits, MemoryStore, ProgressTracker
from upload_progress._model.codec import decode_progress
from upload_progress.starlette import messages as api_messages
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    tracker = ProgressTracker(
        limits=Limits(sockets_per_owner=2, announced_per_owner=3, message_bytes=8 * 1024)
    )
    async with tracker.lifespan():
        yield tracker


@pytest.fixture
def app(tracker: ProgressTracker) -> Starlette:
    return build_app(tracker)


@pytest.fixture
async def http(app: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(app) as alice:
        yield alice


def problem(answer: httpx2.Response) -> tuple[int, str, str | None]:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == "about:blank"
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return answer.status_code, document["code"], document.get("where")


# Announcing


async def test_announced_upload_is_pending_and_has_a_location(
    http: httpx2.AsyncClient,
) -> None:
    body = {
        "filename": "big.bin",
        "total_bytes": 5,
        "content_type": "text/plain",
        "group": "release 1",
        "metadata": {"a": [1, None]},
        "unknown": "ignored",
    }
    made = await http.post("/uploads", json=body)
    snapshot = made.json()

    assert made.status_code == 201
    assert made.headers["location"] == snapshot["links"]["progress"]
    assert made.headers["location"] == f"/uploads/{snapshot['upload_id']}/progress"
    assert {name: snapshot[name] for name in body if name != "unknown"} == {
        name: value for name, value in body.items() if name != "unknown"
    }
    assert (snapshot["state"], snapshot["bytes_transferred"]) == ("pending", 0)
    assert (await http.get(made.headers["location"])).content == made.content


async def test_empty_body_announces_an_upload(http: httpx2.AsyncClient) -> None:
    for content in (b"", b"{}"):
        assert (await http.post("/uploads/", content=content)).status_code == 201


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"[", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b"\xff", "body"),
        (b'{"a":"\xff"}', "body"),
        (b'{"a":' * 1000, "body"),
        (b'{"total_bytes":NaN}', "body"),
        (b'{"total_bytes":1e400}', "body"),
        (b'{"total_bytes":-1}', "body.total_bytes"),
        (b'{"total_bytes":1.5}', "body.total_bytes"),
        (b'{"total_bytes":true}', "body.total_bytes"),
        (b'{"total_bytes":"5"}', "body.total_bytes"),
        (b'{"total_bytes":99999999999999999999}', "body.total_bytes"),
        (b'{"filename":5}', "body.filename"),
        (b'{"filename":"%s"}' % (b"a" * 256), "body.filename"),
        (b'{"filename":"\\ud800"}', "body"),
        (b'{"content_type":"%s"}' % (b"a" * 256), "body.content_type"),
        (b'{"group":""}', "body.group"),
        (b'{"group":"a\\nb"}', "body.group"),
        (b'{"group":"%s"}' % (b"a" * 129), "body.group"),
        (b'{"metadata":[]}', "body.metadata"),
        (b'{"metadata":{"a":"%s"}}' % (b"a" * 4096), "body.metadata"),
        (b'{"metadata":{"a":1%s}}' % (b"0" * 30), "body.metadata.a"),
        (b'{"metadata":%s1%s}' % (b'{"a":' * 40, b"}" * 40), "body.metadata" + ".a" * 32),
    ],
)
async def test_invalid_body_gives_422_with_the_field(
    http: httpx2.AsyncClient, body: bytes, where: str
) -> None:
    assert problem(await http.post("/uploads", content=body)) == (422, "invalid_value", where)


async def test_announced_name_is_returned_as_escaped_json(http: httpx2.AsyncClient) -> None:
    """A name cannot inject markup, a header or a line."""
    name = "<script>\r\nSet-Cookie: a=1\n\ndata: \u2028\u202e.exe"
    made = await http.post("/uploads", json={"filename": name})

    assert made.json()["filename"] == name
    assert b"\n" not in made.content
    assert made.headers["x-content-type-options"] == "nosniff"
    assert made.headers["content-type"] == "application/json"


async def test_large_body_gives_413(app: Starlette) -> None:
    scope = http_scope("/uploads", method="POST", headers=as_user("alice"))
    async with open_connection(app, scope, body=b" " * (8 * 1024 + 1)) as connection:
        status, _, body = await connection.receive_response()

    assert (status, json.loads(body)["code"]) == (413, "large_body")


async def test_slow_body_gives_408(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_messages, "BODY_TIMEOUT_SECONDS", 0.01)
    scope = http_scope("/uploads", method="POST", headers=as_user("alice"))
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}]
    recorded = RecordingSend()

    async def receive() -> Message:
        return messages.pop() if messages else await never()

    with anyio.fail_after(20):
        await app(scope, receive, recorded)

    assert recorded.sent[0]["status"] == 408


async def test_incomplete_body_gives_400_and_announces_nothing(
    app: Starlette, tracker: ProgressTracker
) -> None:
    scope = http_scope("/uploads", method="POST", headers=as_user("alice"))
    messages: list[Message] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"{}", "more_body": True},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop()

    async def send(message: Message) -> None:
        sent.append(message)
        raise OSError

    await app(scope, receive, send)

    assert sent[0]["status"] == 400
    assert (await tracker.list(owner="alice")).uploads == ()


async def test_too_many_announcements_give_429(http: httpx2.AsyncClient) -> None:
    statuses = [(await http.post("/uploads")).status_code for _ in range(3)]
    refused = await http.post("/uploads")

    assert statuses == [201] * 3
    assert problem(refused) == (429, "quota_exceeded", None)
    assert int(refused.headers["retry-after"]) > 0


# Snapshots


async def test_known_entity_tag_gives_304(http: httpx2.AsyncClient) -> None:
    path = (await http.post("/uploads")).headers["location"]
    first = await http.get(path)
    again = await http.get(path, headers={"if-none-match": first.headers["etag"]})

    assert decode_progress(first.content).sequence == 1
    assert first.headers["retry-after"] == again.headers["retry-after"] == "1"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_get_shows_the_live_counter_without_throttling(
    http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice", total_bytes=1000) as upload:
        tags = set()
        for count in range(1, 5):
            upload.advance(1)
            answer = await http.get(f"/uploads/{upload.upload_id}/progress")
            assert answer.json()["bytes_transferred"] == count
            tags.add(answer.headers["etag"])
    ended = await http.get(f"/uploads/{upload.upload_id}/progress")

    assert len(tags) == 4
    assert ended.json()["state"] == "completed"
    assert "retry-after" not in ended.headers


async def test_head_returns_the_headers_of_get(http: httpx2.AsyncClient) -> None:
    path = (await http.post("/uploads")).headers["location"]
    headed, got = await http.head(path), await http.get(path)

    assert headed.headers == got.headers
    assert headed.content == b""


async def test_head_of_an_upload_returns_its_offset(
    http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice", total_bytes=10) as upload:
        upload.advance(4)
        during = await http.head(f"/uploads/{upload.upload_id}")
        upload.advance(6)
    after = await http.head(f"/uploads/{upload.upload_id}")
    async with tracker.track(owner="alice") as unknown:
        no_length = await http.head(f"/uploads/{unknown.upload_id}")

    def offset_headers(answer: httpx2.Response) -> list[str | None]:
        names = ("upload-offset", "upload-length", "upload-complete")
        return [answer.headers.get(name) for name in names]

    assert offset_headers(during) == ["0", "10", "?0"]
    assert offset_headers(after) == ["10", "10", "?1"]
    assert offset_headers(no_length) == ["0", None, "?0"]
    assert during.headers["cache-control"] == "no-store"


# Long polls


async def test_long_poll_returns_the_next_version(
    http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    answers: list[httpx2.Response] = []

    async def poll(path: str, tag: str) -> None:
        headers = {"if-none-match": tag, "prefer": "wait=30"}
        answers.append(await http.get(path, headers=headers))

    made = await http.post("/uploads")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll, made.headers["location"], made.headers["etag"])
            await wait_until(lambda: tracker.statistics().subscriptions)
            assert (await http.delete(made.json()["links"]["cancel"])).status_code == 202

    assert answers[0].status_code == 200
    assert answers[0].json()["state"] == "cancelled"
    assert answers[0].headers["preference-applied"] == "wait=30"
    assert tracker.statistics().subscriptions == 0


async def test_long_poll_ignores_byte_counts_and_times_out(
    http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    """If byte counts ended a long poll, clients would poll in a busy loop."""
    async with tracker.track(owner="alice", total_bytes=10**9) as upload:
        path = f"/uploads/{upload.upload_id}/progress"
        await wait_until(lambda: tracker.statistics().records_written)
        first = await http.get(path)
        upload.advance(1)
        with anyio.fail_after(10):
            answer = await http.get(f"{path}?wait=1", headers={"if-none-match": "*"})
        plain = await http.get(path, headers={"if-none-match": first.headers["etag"]})

    newer = answer.content and answer.json()["sequence"] > first.json()["sequence"]
    assert newer or answer.status_code == 304
    assert plain.status_code == 200


async def test_long_poll_without_change_gives_304(http: httpx2.AsyncClient) -> None:
    made = await http.post("/uploads")
    with anyio.fail_after(10):
        answer = await http.get(
            made.headers["location"] + "?wait=1", headers={"if-none-match": made.headers["etag"]}
        )

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["preference-applied"] == "wait=1"


@pytest.mark.parametrize("headers", [{}, {"if-none-match": '"old"'}])
async def test_long_poll_without_current_tag_returns_at_once(
    http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    path = (await http.post("/uploads")).headers["location"]
    with anyio.fail_after(10):
        answer = await http.get(f"{path}?wait=60", headers=headers)

    assert answer.status_code == 200


async def test_invalid_wait_gives_422(http: httpx2.AsyncClient) -> None:
    path = (await http.post("/uploads")).headers["location"]

    assert problem(await http.get(f"{path}?wait=x")) == (422, "invalid_value", "query.wait")


async def test_long_poll_ends_when_the_client_disconnects(
    app: Starlette, http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    made = await http.post("/uploads")
    headers = {**as_user("alice"), "if-none-match": made.headers["etag"], "prefer": "wait=60"}
    async with open_connection(
        app, http_scope(made.headers["location"], headers=headers)
    ) as connection:
        await wait_until(lambda: tracker.statistics().subscriptions)
        await connection.send(type="http.disconnect")
        with anyio.fail_after(20):
            await connection.ended.wait()

    assert tracker.statistics().subscriptions == 0


async def test_drain_ends_long_polls(http: httpx2.AsyncClient, tracker: ProgressTracker) -> None:
    made = await http.post("/uploads")
    headers = {"if-none-match": made.headers["etag"], "prefer": "wait=60"}
    statuses: list[int] = []

    async def poll() -> None:
        statuses.append((await http.get(made.headers["location"], headers=headers)).status_code)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll)
            await wait_until(lambda: tracker.statistics().subscriptions)
            tracker.drain()

    assert statuses == [304]


async def test_long_polls_count_towards_the_connection_limit(
    app: Starlette, http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    made = await http.post("/uploads")
    headers = {**as_user("alice"), "if-none-match": made.headers["etag"], "prefer": "wait=60"}
    scope = http_scope(made.headers["location"], headers=headers)
    async with open_connection(app, dict(scope)), open_connection(app, dict(scope)):
        await wait_until(lambda: tracker.statistics().subscriptions == 2)
        refused = await http.get(made.headers["location"], headers=headers)
        async with client(app, "bob") as bob:
            other = await bob.get("/uploads/progress", headers={"accept": "application/json"})

    assert problem(refused) == (429, "quota_exceeded", None)
    assert other.status_code == 200


# Lists


async def test_list_has_a_sum_and_pages(http: httpx2.AsyncClient) -> None:
    for size in (1, 2, 3):
        await http.post("/uploads", json={"total_bytes": size, "group": f"g{size % 2}"})
    whole = (await http.get("/uploads/progress")).json()
    first = (await http.get("/uploads/progress?limit=2")).json()
    second = (
        await http.get("/uploads/progress", params={"limit": 2, "cursor": first["next"]})
    ).json()

    assert [each["total_bytes"] for each in whole["uploads"]] == [3, 2, 1]
    assert whole["next"] is None
    assert whole["total"]["total_bytes"] == first["total"]["total_bytes"] == 6
    assert first["uploads"] + second["uploads"] == whole["uploads"]


async def test_list_is_filtered_by_state_and_group(http: httpx2.AsyncClient) -> None:
    made = [await http.post("/uploads", json={"group": group}) for group in ("a", "a", "b")]
    await http.delete(made[0].json()["links"]["cancel"])

    async def ids(query: str) -> list[str]:
        answer = await http.get(f"/uploads/progress?{query}")
        return [upload["upload_id"] for upload in answer.json()["uploads"]]

    first, second, third = (each.json()["upload_id"] for each in made)
    assert await ids("group=a") == [second, first]
    assert await ids("state=cancelled") == [first]
    assert await ids("state=pending&state=cancelled&group=b") == [third]
    assert await ids("group=nothing") == []


@pytest.mark.parametrize(
    ("query", "where"),
    [("state=x", "query.state"), ("limit=0", "query.limit"), ("cursor=x", "query.cursor")],
)
async def test_invalid_filter_gives_422_with_its_name(
    http: httpx2.AsyncClient, query: str, where: str
) -> None:
    answer = await http.get(f"/uploads/progress?{query}")

    assert problem(answer) == (422, "invalid_value", where)


# Cancelling


async def test_cancel_twice_gives_202_twice(http: httpx2.AsyncClient) -> None:
    made = await http.post("/uploads")
    path = made.json()["links"]["cancel"]
    first, second = await http.delete(path), await http.delete(path)

    assert first.status_code == second.status_code == 202
    assert first.json()["state"] == second.json()["state"] == "cancelled"
    assert first.json()["error"]["code"] == "cancelled_by_owner"


async def test_cancel_of_an_ended_upload_gives_409(
    http: httpx2.AsyncClient, tracker: ProgressTracker
) -> None:
    async with tracker.track(owner="alice") as upload:
        pass
    answer = await http.delete(f"/uploads/{upload.upload_id}")

    assert problem(answer) == (409, "upload_ended", None)


# Unavailable store


class AwayStore(FaultyStore):
    """A session store whose every call fails with a secret in its error."""

    async def _count_call(self) -> None:
        raise ConnectionError("canary-dsn")


async def test_unavailable_store_gives_503() -> None:
    """An unknown state is not guessed."""
    store = AwayStore(MemoryStore())
    async with client(build_app(ProgressTracker(store=store))) as http:
        for method, path in [
            ("GET", "/uploads/progress"),
            ("GET", "/uploads/x/progress"),
            ("POST", "/uploads"),
            ("DELETE", "/uploads/x"),
            ("HEAD", "/uploads/x"),
        ]:
            answer = await http.request(method, path)
            assert answer.status_code == 503
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            assert b"canary" not in answer.content


# Random requests


PATHS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "progress", "x/progress", "tickets", "x", "x/subscribe", "x/unsubscribe"]),
)
LATIN = st.text(st.characters(max_codepoint=255), max_size=60)


@given(
    path=PATHS,
    query=LATIN,
    method=st.sampled_from(["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "BREW"]),
    header=LATIN,
    body=st.binary(max_size=100),
)
@settings(max_examples=150)
def test_any_request_gets_a_status_below_500(
    path: str, query: str, method: str, header: str, body: bytes
) -> None:
    """Paths, queries, headers and bodies of random text."""
    names = ("accept", "if-none-match", "last-event-id", "origin", "cookie", "host", "content-type")
    scope = http_scope(
        f"/uploads/{path}",
        method=method,
        query=query.replace("wait", "w"),
        headers={**dict.fromkeys(names, header), **as_user("alice")},
    )
    statuses: list[int] = []

    async def run() -> None:
        async with open_connection(build_app(), scope, body=body) as connection:
            statuses.append((await connection.receive())["status"])

    anyio.run(run)

    assert 200 <= statuses[0] < 500


async def test_large_integers_in_metadata_are_preserved(http: httpx2.AsyncClient) -> None:
    made = await http.post("/uploads", json={"metadata": {"big": 2**63}})

    assert json.loads(made.content)["metadata"] == {"big": 2**63}
