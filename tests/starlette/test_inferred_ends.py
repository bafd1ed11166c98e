"""Streams and sockets of an upload whose worker seemed dead: it may overrule that."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import evolve
from starlette.applications import Starlette

from tests._support.asgi_client import (
    AsgiConnection,
    as_user,
    build_app,
    http_scope,
    open_connection,
    open_socket,
)
from tests._support.records import record
from upload_progress import MemoryStore, ProgressTracker, UploadState
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.models import TransferRecord
from upload_progress._model.state import LOST
from upload_progress.starlette import sse, websocket

pytestmark = pytest.mark.anyio

PATH = "/uploads/up/progress"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def tracker(store: MemoryStore) -> AsyncIterator[ProgressTracker]:
    tracker = ProgressTracker(store=store)
    async with tracker.lifespan():
        yield tracker


@pytest.fixture
def app(tracker: ProgressTracker) -> Starlette:
    return build_app(tracker)


@pytest.fixture
async def lost(store: MemoryStore) -> TransferRecord:
    """An upload whose worker has just been taken for dead."""
    now = time.time()
    made = record(owner="alice", sequence=1001, created_at=now - 9, updated_at=now)
    made = evolve(made, state=UploadState.FAILED, error=LOST, finished_at=now, worker=None)
    await store.save([made])
    return made


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sse, websocket):
        monkeypatch.setattr(module, "INFERRED_END_SECONDS", 0.05)


def deliver(tracker: ProgressTracker, made: TransferRecord, state: UploadState) -> None:
    """Deliver what the living worker reports: the next attempt."""
    finished_at = made.finished_at if state is UploadState.COMPLETED else None
    going_on = evolve(
        made,
        attempt=2,
        sequence=made.sequence + (2 if finished_at else 1),
        state=state,
        error=None,
        finished_at=finished_at,
    )
    internals = internals_of(tracker)
    internals.hub.deliver(Update("alice", internals.flusher.loader.fold([going_on])))


def event_stream(last_event_id: str = "") -> dict[str, object]:
    headers = {"accept": "text/event-stream", "last-event-id": last_event_id}
    return http_scope(PATH, headers={**headers, **as_user("alice")})


async def receive_states(connection: AsgiConnection, count: int) -> list[str]:
    """Receive that many events of a stream."""
    states = list[str]()
    while len(states) < count:
        body = (await connection.receive()).get("body", b"").decode()
        lines = [line for line in body.split("\n") if line.startswith("data: ")]
        states += [json.loads(line.removeprefix("data: "))["state"] for line in lines]
    return states


async def test_stream_shows_that_the_upload_goes_on(
    app: Starlette, tracker: ProgressTracker, lost: TransferRecord
) -> None:
    async with open_connection(app, event_stream()) as connection:
        states = await receive_states(connection, 1)
        for state in (UploadState.RECEIVING, UploadState.COMPLETED):
            deliver(tracker, lost, state)
            states += await receive_states(connection, 1)
        with anyio.fail_after(20):
            await connection.ended.wait()

    assert states == ["failed", "receiving", "completed"]


@pytest.mark.usefixtures("short_wait", "lost")
async def test_stream_ends_if_nothing_follows(app: Starlette) -> None:
    async with open_connection(app, event_stream()) as connection:
        assert await receive_states(connection, 1) == ["failed"]
        with anyio.fail_after(20):
            await connection.ended.wait()


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize(("age_seconds", "status"), [(5, 200), (70, 204)])
async def test_client_that_comes_back_is_told_to_stop_after_a_minute(
    app: Starlette, store: MemoryStore, lost: TransferRecord, age_seconds: float, status: int
) -> None:
    finished_at = time.time() - age_seconds
    await store.save([evolve(lost, upload_id="old", attempt=2, finished_at=finished_at)])
    scope = event_stream(str(lost.sequence)) | {"path": "/uploads/old/progress"}
    async with open_connection(app, scope) as connection:
        start = await connection.receive()

    assert start["status"] == status


async def test_socket_shows_that_the_upload_goes_on(
    app: Starlette, tracker: ProgressTracker, lost: TransferRecord
) -> None:
    async with open_socket(app, PATH) as connection:
        states = [await receive_state(connection)]
        for state in (UploadState.RECEIVING, UploadState.COMPLETED):
            deliver(tracker, lost, state)
            states.append(await receive_state(connection))
        assert await connection.receive_close() == 1000

    assert states == ["failed", "receiving", "completed"]


@pytest.mark.usefixtures("short_wait", "lost")
async def test_socket_is_closed_if_nothing_follows(app: Starlette) -> None:
    async with open_socket(app, PATH) as connection:
        assert await receive_state(connection) == "failed"
        assert await connection.receive_close() == 1000


async def receive_state(connection: AsgiConnection) -> str:
    """Receive the next snapshot on a socket."""
    message: dict[str, object] = {}
    while message.get("type") != "progress":
        message = await connection.receive_json()
    upload = message["upload"]
    assert isinstance(upload, dict)
    return str(upload["state"])
