"""Uploads in several requests whose owner is known after the last request has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, field

from tests._support.protocol_apps import (
    ContentRangeApp,
    FileApp,
    OciApp,
    S3App,
    TusApp,
    send_request,
)
from tests._support.scripted_server import ALICE, Receive, Scope, Send, wait_until
from tests.asgi.test_refused_transfers import Respond
from upload_progress import Identity, ProgressTracker, UploadProgress, UploadState
from upload_progress.asgi import current_upload
from upload_progress.connection import Connection

pytestmark = pytest.mark.anyio

TUS = {"tus-resumable": "1.0.0"}
OCTETS = {**TUS, "content-type": "application/offset+octet-stream"}
XML = {"content-type": "application/xml"}
BLOB = "/v2/image/blobs/uploads"


class Request(NamedTuple):
    """One request of an upload."""

    method: str
    path: str
    headers: dict[str, str] | None = None
    content: bytes = b""


TUS_UPLOAD = [
    Request("POST", "/files", {**TUS, "upload-length": "20"}),
    Request("PATCH", "/files/0", {**OCTETS, "upload-offset": "0"}, b"x" * 10),
    Request("PATCH", "/files/0", {**OCTETS, "upload-offset": "10"}, b"x" * 10),
]
RANGES = [
    Request("PUT", "/a", {"content-range": "bytes 0-9/20"}, b"x" * 10),
    Request("PUT", "/a", {"content-range": "bytes 10-19/20"}, b"x" * 10),
]
OCI_UPLOAD = [
    Request("POST", f"{BLOB}/"),
    Request("PATCH", f"{BLOB}/0", None, b"x" * 20),
    Request("PUT", f"{BLOB}/0?digest=good"),
]
PARTS = [
    Request("PUT", "/b/key?partNumber=1&uploadId=u", None, b"x" * 10),
    Request("PUT", "/b/key?partNumber=2&uploadId=u", None, b"x" * 10),
]
S3_UPLOAD = [*PARTS, Request("POST", "/b/key?uploadId=u", XML, b"<x/>")]


@define(eq=False)
class LateIdentity:
    """Returns the owner of all requests when they have ended, in the order of the requests."""

    requests_ended: anyio.Event = field(factory=anyio.Event)
    last: anyio.Event | None = None

    async def __call__(self, _connection: Connection) -> Identity:
        """Return the owner."""
        before, own = self.last or self.requests_ended, anyio.Event()
        self.last = own
        await before.wait()
        for _ in range(20):
            await checkpoint()  # the request before is tracked meanwhile
        own.set()
        return ALICE


async def only_upload(
    app: FileApp | Describing, tracker: ProgressTracker, requests: Sequence[Request]
) -> UploadProgress:
    """Send *requests*; return the only upload, once its owner is known."""
    authenticate = LateIdentity()
    for method, path, headers, content in requests:
        server = await send_request(
            app,
            tracker,
            method,
            path,
            headers=headers,
            content=content,
            authenticate=authenticate,
        )
        assert server.status is not None
        assert server.status < 400
    assert not (await tracker.list(owner=ALICE, states=set(UploadState))).uploads
    authenticate.requests_ended.set()
    assert authenticate.last is not None
    await authenticate.last.wait()
    await wait_until(lambda: tracker.statistics().live_uploads == 0)
    [shown] = (await tracker.list(owner=ALICE, states=set(UploadState))).uploads
    return shown


@define(eq=False)
class Describing:
    """An S3 application that describes or fails the upload in the second part."""

    app: S3App = field(factory=S3App)
    failure: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if b"partNumber=2" in scope["query_string"]:
            upload = current_upload(scope)
            upload.set(filename="report.pdf", metadata={"scan": "clean"})
            if self.failure is not None:
                upload.fail(self.failure)
        await self.app(scope, receive, send)


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    """Return a running tracker."""
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


@pytest.mark.parametrize(
    ("app", "requests"),
    [(TusApp, TUS_UPLOAD), (ContentRangeApp, RANGES), (OciApp, OCI_UPLOAD), (S3App, S3_UPLOAD)],
    ids=["tus", "content-range", "oci", "s3"],
)
async def test_upload_has_completed(
    tracker: ProgressTracker, app: type[FileApp], requests: list[Request]
) -> None:
    shown = await only_upload(app(), tracker, requests)
    assert (shown.state, shown.bytes_transferred, shown.attempt) == (UploadState.COMPLETED, 20, 1)


async def test_upload_was_abandoned(tracker: ProgressTracker) -> None:
    requests = [*OCI_UPLOAD[:2], Request("DELETE", f"{BLOB}/0")]
    shown = await only_upload(OciApp(), tracker, requests)
    assert shown.state is UploadState.CANCELLED


async def test_upload_was_failed_by_the_application(tracker: ProgressTracker) -> None:
    shown = await only_upload(Describing(failure="virus found"), tracker, PARTS)
    assert shown.error is not None
    assert (shown.state, shown.error.message) == (UploadState.FAILED, "virus found")


async def test_upload_was_described_by_the_application(tracker: ProgressTracker) -> None:
    shown = await only_upload(Describing(), tracker, S3_UPLOAD)
    assert shown.state is UploadState.COMPLETED
    assert (shown.filename, shown.metadata) == ("report.pdf", {"scan": "clean"})


async def test_upload_without_an_owner_is_not_tracked(tracker: ProgressTracker) -> None:
    async def authenticate(_connection: Connection) -> None:
        await checkpoint()

    method, path, headers, content = RANGES[0]
    await send_request(
        ContentRangeApp(),
        tracker,
        method,
        path,
        headers=headers,
        content=content,
        authenticate=authenticate,
    )
    for _ in range(20):
        await checkpoint()  # the result is used meanwhile
    assert tracker.statistics().live_uploads == 0
    assert not (await tracker.list(owner=ALICE, states=set(UploadState))).uploads


async def prompt_identity(_connection: Connection) -> Identity:
    """Return the owner at once, but in a task of its own."""
    return ALICE


@pytest.mark.parametrize("status", [404, 409, 204])
async def test_request_right_after_the_abort_changes_nothing(
    tracker: ProgressTracker, status: int
) -> None:
    """The abort is not decided yet: the store has not been read."""
    for app, request in [
        (Respond(200), PARTS[0]),
        (Respond(204), Request("DELETE", "/b/key?uploadId=u", XML)),
        (Respond(status), PARTS[1]),
    ]:
        method, path, headers, content = request
        await send_request(
            app,
            tracker,
            method,
            path,
            headers=headers,
            content=content,
            authenticate=prompt_identity,
        )
    await wait_until(lambda: tracker.statistics().live_uploads == 0)

    [shown] = (await tracker.list(owner=ALICE, states=set(UploadState))).uploads
    assert (shown.state, shown.attempt) == (UploadState.CANCELLED, 1)
    assert shown.error is not None
    assert shown.error.http_status is None
