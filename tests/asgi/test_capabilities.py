"""Uploads without users: an address that can be guessed gives access to no upload."""

from __future__ import annotations

import pytest

from tests._support.protocol_apps import FileApp, ResponseHead, request_headers, send_request
from tests._support.scripted_server import Receive, Scope
from upload_progress import ProgressTracker, UploadNotFound, UploadState
from upload_progress._internals import internals_of
from upload_progress.identity import CapabilityIdentity
from upload_progress.protocols import TransferHead, TransferKind, upload_id_for
from upload_progress.starlette import capability

pytestmark = pytest.mark.anyio

TUS = {"tus-resumable": "1.0.0"}
OWNER = {**TUS, "authorization": "secret"}
ANYBODY = CapabilityIdentity()
SECRET_ID = "Zm9vYmFyYmF6cXV4Zm9vYmE0"


class GuardedTus(FileApp):
    """Numbers its uploads; without credentials it responds with ``refusal``."""

    def __init__(self, refusal: int) -> None:
        super().__init__()
        self.refusal = refusal

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        await super().respond(scope, receive)
        if "authorization" not in request_headers(scope):
            return self.refusal, {}
        if scope["method"] == "POST":
            return 201, {"location": "/files/17"}
        return 204, {"upload-offset": "50"}


async def test_guessed_address_shows_and_cancels_nothing() -> None:
    app, tracker = GuardedTus(403), ProgressTracker()
    for method, path, headers, content in [
        ("POST", "/files/", {**OWNER, "upload-length": "100"}, b""),
        ("PATCH", "/files/17", {**OWNER, "upload-offset": "0"}, b"x" * 50),
    ]:
        await send_request(
            app,
            tracker,
            method,
            path,
            headers=headers,
            content=content,
            authenticate=capability(),
        )
    guess = upload_id_for(TransferHead("tus", TransferKind.BYTES), "/files/17")

    with pytest.raises(UploadNotFound):
        await tracker.get(guess, owner=ANYBODY)
    with pytest.raises(UploadNotFound):
        await tracker.cancel(guess, owner=ANYBODY)


@pytest.mark.parametrize("refusal", [400, 401, 403, 404, 409, 410, 413, 422, 500])
async def test_refused_request_of_a_stranger_changes_nothing(refusal: int) -> None:
    """The stranger knows the address of the resource, and not the id of the upload."""
    app, tracker = GuardedTus(refusal), ProgressTracker()
    named = {**OWNER, "upload-id": SECRET_ID}
    for method, path, headers, content in [
        ("POST", "/files/", {**named, "upload-length": "100"}, b""),
        ("PATCH", "/files/17", {**named, "upload-offset": "0"}, b"x" * 50),
        ("PATCH", "/files/17", {**TUS, "upload-offset": "50"}, b"x" * 50),
        ("DELETE", "/files/17", TUS, b""),
    ]:
        await send_request(
            app,
            tracker,
            method,
            path,
            headers=headers,
            content=content,
            authenticate=capability(),
        )
    await internals_of(tracker).flusher.flush(everything=True)

    shown = await tracker.get(SECRET_ID, owner=ANYBODY)
    assert shown.state in {UploadState.RECEIVING, UploadState.PAUSED}
    assert (shown.bytes_transferred, shown.total_bytes) == (50, 100)
