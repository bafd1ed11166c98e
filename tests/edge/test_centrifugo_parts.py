"""What needs no Centrifugo: settings, tokens, names of channels, answers of its HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import jwt
import pytest
from attrs import define, field

from tests._support.asgi_client import (
    Message,
    as_user,
    build_app,
    client,
    http_scope,
    open_connection,
    websocket_scope,
)
from tests._support.asgi_servers import run_app
from tests._support.updates import update
from tests.edge.conftest import GRIP_KEY
from upload_progress import Identity, InvalidValue, ProgressTracker, UnexpectedResponse
from upload_progress._model.cloudevents import event_of
from upload_progress._model.codec import encode_json
from upload_progress.connection import Connection
from upload_progress.edge import Centrifugo
from upload_progress.interfaces import IssuesTokens
from upload_progress.starlette import capability, progress_routes
from upload_progress.testing import FakeClock

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:1"


def centrifugo(url: str = URL, **options: Any) -> Centrifugo:  # noqa: ANN401  # of Centrifugo
    return Centrifugo(url, **{"api_key": "key", "token_key": GRIP_KEY, **options})


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "127.0.0.1:8010"}, "edge.url: must begin with http://"),
        ({"public_url": "push.example"}, "edge.public_url: must begin with http://"),
        ({"api_key": ""}, "edge.api_key: must be printable ASCII text"),
        ({"api_key": "a\nb"}, "edge.api_key: must be printable ASCII text"),
        ({"token_key": "changeme"}, "edge.token_key: must have at least 32 bytes"),
    ],
)
def test_settings_are_checked(options: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        centrifugo(**options)
    assert problem in str(raised.value)


def test_it_is_an_edge_to_which_watchers_connect() -> None:
    edge = centrifugo()
    assert isinstance(edge, IssuesTokens)
    with pytest.raises(InvalidValue, match="revalidate_seconds: must be at least 3"):
        progress_routes(
            ProgressTracker(edge=edge), authenticate=capability(), revalidate_seconds=2.9
        )


@pytest.mark.parametrize(
    ("public_url", "address"),
    [
        ("", "/connection/uni_http_stream"),
        ("/push/", "/push/connection/uni_http_stream"),
        ("https://push.example/", "https://push.example/connection/uni_http_stream"),
    ],
)
def test_tokens_end_before_the_time_is_over(public_url: str, address: str) -> None:
    edge = centrifugo(public_url=public_url)
    access = edge.access("ann", ["one", "two"], seconds=60)
    assert access is not None
    claims = jwt.decode(access.token, GRIP_KEY, ["HS256"])

    assert access.url == address
    assert access.expires_in == 58
    assert claims["channels"] == ["one", "two"] == list(access.subscriptions)
    assert claims["exp"] <= time.time() + 58
    for channel, token in access.subscriptions.items():
        assert jwt.decode(token, GRIP_KEY, ["HS256"]) == {
            "sub": claims["sub"],
            "exp": claims["exp"],
            "channel": channel,
        }
    assert edge.access("ann", ["one"], seconds=2.9) is None


def test_names_of_channels_depend_on_the_key_and_on_each_part() -> None:
    edge = centrifugo()
    names = [
        edge.channel("one", "ann"),
        centrifugo(token_key="f" * 32).channel("one", "ann"),
        edge.channel("two", "ann"),
        edge.channel("one", "bob"),
        edge.channel("one", "ann", upload_id="x"),
        edge.channel("one", "ann", group="x"),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("uploads:") for name in names)
    assert not any("ann" in name for name in names)


# --- answers of the routes ------------------------------------------------------------------------


CLOCK = FakeClock()


def user_of(connection: Connection) -> Identity | None:
    """Return the user whose name is in the header; the right of ``late`` ends within a second."""
    name = connection.header("x-user") or ""
    expires_at = {"late": CLOCK.time() + 1, "soon": CLOCK.time() + 10}.get(name)
    return Identity(name, expires_at=expires_at, is_operator=name == "root") if name else None


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    tracker = ProgressTracker(edge=centrifugo(), clock=CLOCK)
    async with client(build_app(tracker, authenticate=user_of), user=None) as http:
        yield http


async def ticket(http: httpx2.AsyncClient, user: str, path: str = "", **body: object) -> Any:  # noqa: ANN401  # JSON
    headers = {"x-user": user}
    answer = await http.post(f"/uploads/tickets{path}", headers=headers, json=body)
    return answer.json()


async def test_ticket_has_tokens_for_what_is_named(http: httpx2.AsyncClient) -> None:
    edge = centrifugo()

    async def channels(*targets: object) -> list[str]:
        found = (await ticket(http, "ann", targets=targets))["edge"]
        return list(found["subscriptions"])

    namespace = "upload-progress"
    assert await channels() == [edge.channel(namespace, "ann")]
    assert await channels({"group": "g"}, {"upload_id": "x"}) == [
        edge.channel(namespace, "ann", group="g"),
        edge.channel(namespace, "ann", upload_id="x"),
    ]
    soon = await ticket(http, "soon")
    assert soon["edge"]["expires_in"] == 8


@pytest.mark.parametrize(("user", "path"), [("root", "?owner=ann"), ("late", "")])
async def test_ticket_without_tokens(http: httpx2.AsyncClient, user: str, path: str) -> None:
    assert sorted(await ticket(http, user, path)) == ["expires_in", "ticket"]


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        ([{"upload_id": "x", "group": "g"}], "must each contain exactly one of"),
        ([{}], "must each contain exactly one of"),
        ([{"upload_id": "x"}] * 101, "length <= 100"),
    ],
)
async def test_targets_are_checked(
    http: httpx2.AsyncClient, targets: list[dict[str, str]], problem: str
) -> None:
    answer = await ticket(http, "ann", targets=targets)
    assert (answer["status"], answer["where"]) == (422, "body.targets")
    assert problem in answer["detail"]


async def test_capabilities_follow_uploads_but_no_lists() -> None:
    tracker = ProgressTracker(edge=centrifugo())
    upload_id = "abcdefghijklmnopqrstuvwxyz"
    async with client(build_app(tracker, authenticate=capability()), user=None) as http:
        assert "edge" not in await ticket(http, "")
        assert "edge" not in await ticket(http, "", targets=[{"group": "g"}])
        assert (await ticket(http, "", targets=[{"upload_id": "guessable"}]))["status"] == 404
        found = (await ticket(http, "", targets=[{"upload_id": upload_id}]))["edge"]
    owner = f"capability:{upload_id}"
    assert list(found["subscriptions"]) == [
        centrifugo().channel("upload-progress", owner, upload_id=upload_id)
    ]


async def test_streams_and_sockets_name_the_push_server() -> None:
    app = build_app(ProgressTracker(edge=centrifugo()))
    headers = {**as_user("alice"), "accept": "text/event-stream"}
    async with open_connection(app, http_scope("/uploads/progress", headers=headers)) as stream:
        start = await stream.receive()
    assert (b"upload-edge", b"?1") in start["headers"]

    scope = websocket_scope("/uploads/progress", headers=as_user("alice"))
    async with open_connection(app, scope) as socket:
        await socket.receive()
        assert (await socket.receive_json())["edge"] is True


# --- publishing -----------------------------------------------------------------------------------


@define
class HttpApi:
    """The HTTP API of Centrifugo, which records the bodies of its requests."""

    answer: bytes
    bodies: list[bytes] = field(factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        """Answer one request."""
        assert scope["path"] == "/api/batch"
        assert (b"x-api-key", b"key") in scope["headers"]
        message = await receive()
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


REFUSED = {"code": 102, "message": "unknown channel"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"replies": [{"error": REFUSED}]}, "refuses an event: unknown channel (102)"),
        (
            {"replies": [{"broadcast": {"responses": [{"result": {}}, {"error": REFUSED}]}}]},
            "refuses an event: unknown channel (102)",
        ),
        ({"result": {}}, "did not answer as Centrifugo does"),
    ],
)
async def test_error_in_an_answer_is_raised(answer: object, problem: str) -> None:
    api = HttpApi(encode_json(answer))
    with run_app(api, lifespan="off") as url:
        async with centrifugo(url) as edge:
            made = update(1)
            with pytest.raises(UnexpectedResponse) as raised:
                await edge.publish([event_of(made.owner, made.progress, "/tests")])
    assert problem in str(raised.value)


async def test_event_is_published_once_for_all_channels() -> None:
    api = HttpApi(b'{"replies":[{"broadcast":{"responses":[{"result":{}},{"result":{}}]}}]}')
    with run_app(api, lifespan="off") as url:
        async with centrifugo(url) as edge:
            made = update(1, group="g")
            await edge.publish([event_of(made.owner, made.progress, "/tests")])

    (broadcast,) = (each["broadcast"] for each in json.loads(api.bodies[0])["commands"])
    named = [{"upload_id": "up"}, {}, {"group": "g"}]
    channels = [edge.channel("upload-progress", "ann", **each) for each in named]
    assert broadcast["channels"] == channels
    assert broadcast["data"] == json.loads(made.json)
