"""The parts of the GRIP protocol that need no proxy: signatures, answers, and what is published."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import jwt
import pytest
from attrs import define, evolve, field

from tests._support.asgi_client import Message, as_user, build_app, client, wait_until
from tests._support.asgi_servers import run_app
from tests._support.records import record
from tests._support.updates import update
from tests.edge.conftest import GRIP_KEY
from upload_progress import InvalidValue, MemoryStore, NotEntered, ProgressTracker, UploadState
from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress._model.state import LOST
from upload_progress.connection import Connection
from upload_progress.edge import GripProxy
from upload_progress.edge import grip as grip_module
from upload_progress.edge.push_server import MAX_BODY_BYTES, portions
from upload_progress.interfaces import HoldsStreams
from upload_progress.starlette import capability, progress_routes
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio

CONTROL_URL = "http://127.0.0.1:1"


def signature(key: str = GRIP_KEY, *, seconds: float = 3600) -> str:
    """Return what Pushpin sends as Grip-Sig."""
    return jwt.encode({"iss": "pushpin", "exp": time.time() + seconds}, key, "HS256")


def grip_proxy(url: str = CONTROL_URL, *, hold_seconds: int = 60) -> GripProxy:
    return GripProxy(url, key=GRIP_KEY, hold_seconds=hold_seconds)


def event(sequence: int = 1, **options: Any) -> CloudEvent:  # noqa: ANN401  # those of update
    made = update(sequence, **options)
    return event_of(made.owner, made.progress, "/tests")


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidValue, match=r"edge\.control_url: must begin with http://"):
        GripProxy("127.0.0.1:5561", key=GRIP_KEY)
    assert grip_proxy("http://127.0.0.1:5561/").control_url == "http://127.0.0.1:5561"
    with pytest.raises(InvalidValue, match=r"edge\.key: must have at least 32 bytes"):
        GripProxy(CONTROL_URL, key="changeme")
    for seconds in (2, 5.5):
        with pytest.raises(InvalidValue, match=r"edge\.hold_seconds: must be a whole number"):
            grip_proxy(hold_seconds=seconds)  # type: ignore[arg-type]  # as a caller without types
    tracker = ProgressTracker(edge=grip_proxy())
    with pytest.raises(InvalidValue, match="at least the hold_seconds of the edge"):
        progress_routes(tracker, authenticate=capability(), revalidate_seconds=59)


def test_it_is_an_edge_that_holds_streams() -> None:
    assert isinstance(grip_proxy(), HoldsStreams)


# --- requests that came through the proxy ---------------------------------------------------------


@pytest.mark.parametrize(
    ("signatures", "is_proxied"),
    [
        pytest.param([signature()], True, id="valid"),
        pytest.param([], False, id="none"),
        pytest.param([signature(), signature()], False, id="two"),
        pytest.param([signature("f" * 32)], False, id="of another key"),
        pytest.param([signature(seconds=-1)], False, id="expired"),
        pytest.param([jwt.encode({"iss": "pushpin"}, GRIP_KEY)], False, id="valid for ever"),
        pytest.param(["no token"], False, id="malformed"),
    ],
)
def test_only_requests_with_a_valid_signature_are_proxied(
    signatures: list[str], *, is_proxied: bool
) -> None:
    headers = [(b"grip-sig", each.encode()) for each in signatures]
    assert grip_proxy().is_proxied(Connection({"type": "http", "headers": headers})) is is_proxied


def test_names_of_channels_depend_on_the_key_and_on_each_part() -> None:
    def channel(key: str, *names: str, **options: str) -> str:
        headers = GripProxy(CONTROL_URL, key=key).hold(*names, **options)
        return headers["grip-channel"].partition(",")[0]

    other_key = "f" * 32
    names = [
        channel(GRIP_KEY, "one", "ann"),
        channel(other_key, "one", "ann"),
        channel(GRIP_KEY, "two", "ann"),
        channel(GRIP_KEY, "one", "bob"),
        channel(GRIP_KEY, "one", "ann", upload_id="x"),
        channel(GRIP_KEY, "one", "ann", upload_id="y"),
        channel(GRIP_KEY, "one", "ann", group="x"),
    ]
    assert len(set(names)) == len(names)
    assert channel(GRIP_KEY, "one", "ann") == names[0]
    assert not any("ann" in name for name in names)


# --- answers --------------------------------------------------------------------------------------


@define
class Site:
    """An application whose streams a proxy holds."""

    store: FaultyStore
    tracker: ProgressTracker
    http: httpx2.AsyncClient

    async def stream(self, path: str, **headers: str) -> httpx2.Response:
        wanted = {"accept": "text/event-stream", "grip-sig": signature(), **headers}
        return await self.http.get(f"/uploads/{path}", headers={**as_user("alice"), **wanted})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    store = FaultyStore(MemoryStore())
    tracker = ProgressTracker(store=store, edge=grip_proxy())
    async with client(build_app(tracker)) as http:
        yield Site(store, tracker, http)


async def test_open_upload_is_held_and_an_ended_one_is_not(site: Site) -> None:
    async with site.tracker.track(owner="alice", upload_id="one", total_bytes=1) as upload:
        held = await site.stream("one/progress")
        upload.advance(1)
    ended = await site.stream("one/progress")

    assert held.headers["grip-hold"] == "stream"
    assert held.headers["grip-keep-alive"] == r": heartbeat\n\n; format=cstring; timeout=15"
    assert held.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert '"state":"receiving"' in held.text
    assert '"state":"completed"' in ended.text
    assert not any(name.startswith("grip") for name in ended.headers)


async def test_head_is_not_held(site: Site) -> None:
    async with site.tracker.track(owner="alice", upload_id="one"):
        headers = {"grip-sig": signature(), **as_user("alice"), "accept": "text/event-stream"}
        for path in ("one/progress", "progress"):
            answer = await site.http.head(f"/uploads/{path}", headers=headers)
            assert answer.status_code == 200
            assert "grip-hold" not in answer.headers


async def test_end_that_a_living_worker_may_overrule_is_held(site: Site) -> None:
    now = time.time()
    made = record(owner="alice", upload_id="one", created_at=now, updated_at=now)
    lost = evolve(made, state=UploadState.FAILED, error=LOST, finished_at=now, worker=None)
    await site.store.save([lost])

    answer = await site.stream("one/progress", **{"last-event-id": str(lost.sequence)})

    assert '"worker_lost"' in answer.text
    assert answer.headers["grip-hold"] == "stream"


@pytest.mark.parametrize("path", ["one/progress", "progress"])
async def test_stream_without_a_store_ends_at_once(site: Site, path: str) -> None:
    site.store.fault = "raise"
    answer = await site.stream(path)

    assert answer.status_code == 200
    assert 1 <= int(answer.headers["retry-after"]) <= 6
    assert "grip-hold" not in answer.headers
    assert answer.text.startswith("retry: ")


async def test_signature_of_another_key_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with site.tracker.track(owner="alice", upload_id="one", total_bytes=1) as upload:
        upload.advance(1)
    # A stream that ends by itself, as it is held by this process.
    answer = await site.stream("one/progress", **{"grip-sig": signature("f" * 32)})

    assert '"state":"completed"' in answer.text
    assert "is it the sig_key of the proxy?" in caplog.text


# --- publishing -----------------------------------------------------------------------------------


@define
class ControlPort:
    """The control port of a proxy, which records what is published.

    Attributes:
        failures: How many requests are refused at first.
    """

    failures: int = 0
    items: list[Mapping[str, Any]] = field(factory=list)
    sizes: list[int] = field(factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
        """Record one request."""
        assert scope["path"] == "/publish/"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        is_refused, self.failures = self.failures > 0, self.failures - 1
        if not is_refused:
            self.sizes.append(len(body))
            self.items += json.loads(body)["items"]
        status = 500 if is_refused else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"Published\n"})

    @property
    def actions(self) -> list[str]:
        """What was done: the state of each snapshot, and ``close``."""
        return [action_of(item["formats"]["http-stream"]) for item in self.items]


def action_of(stream: Mapping[str, str]) -> str:
    if "action" in stream:
        return stream["action"]
    data = stream["content"].partition("data: ")[2]
    state: str = json.loads(data)["state"]
    return state


async def test_nothing_is_published_without_lifespan() -> None:
    with pytest.raises(NotEntered, match="lifespan of the tracker"):
        await grip_proxy().publish([event()])


async def test_refused_events_are_an_error() -> None:
    port = ControlPort(failures=1)
    with run_app(port, lifespan="off") as url:
        async with grip_proxy(url) as proxy:
            with pytest.raises(httpx2.HTTPStatusError):
                await proxy.publish([event()])
            await proxy.publish([event(2, group="g")])

    channels = Counter(item["channel"] for item in port.items)
    assert port.actions == ["receiving"] * 3
    assert len(channels) == 3


async def test_end_is_published_twice_and_closes_the_streams_of_its_upload() -> None:
    port = ControlPort()
    with run_app(port, lifespan="off") as url:
        async with grip_proxy(url) as proxy:
            await proxy.publish([event(), event(2, state=UploadState.COMPLETED)])
            await wait_until(lambda: port.actions.count("completed") == 4)

    of_upload = proxy.hold("upload-progress", "ann", upload_id="up")["grip-channel"]
    channel = of_upload.partition(",")[0]
    assert [item["channel"] for item in port.items].count(channel) == 1 + 2 * 2
    assert port.actions[:5] == ["receiving", "receiving", "completed", "completed", "close"]


async def test_streams_of_earlier_seconds_are_closed_when_the_proxy_answers_again() -> None:
    """At the start those of all seconds, but for the last ones and the next ones."""
    port = ControlPort(failures=1)
    with run_app(port, lifespan="off") as url:
        async with grip_proxy(url) as proxy:
            opened = proxy.hold("upload-progress", "ann")["grip-channel"].partition(", ")[2]
            await wait_until(lambda: bool(port.items))

    closed = [item["channel"] for item in port.items]
    assert set(port.actions) == {"close"}
    assert len(set(closed)) == len(closed)
    assert len(closed) >= 60
    assert opened not in closed


def test_number_of_repeated_ends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grip_module, "MAX_REPEATED", 2)
    proxy = grip_proxy()
    for upload_id in ("one", "two", "three"):
        proxy._add("n", update(1, upload_id=upload_id, state=UploadState.COMPLETED))
    assert [upload_id for _, upload_id in proxy._repeated] == ["two", "three"]

    proxy._add("n", update(1, upload_id="two"))
    assert [upload_id for _, upload_id in proxy._repeated] == ["three"]


def test_large_batches_are_sent_in_portions() -> None:
    large = b"x" * (MAX_BODY_BYTES // 2 - 100)
    assert [len(portion) for portion in portions([large] * 5)] == [
        2 * len(large) + 1,
        2 * len(large) + 1,
        len(large),
    ]
    assert list(portions([])) == []
