"""What the guide says about scripts that post each chunk of a file as a form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from tests._support.paths import ROOT
from tests._support.protocol_apps import FileApp, ResponseHead, send_request
from tests._support.scripted_server import ALICE, Receive, Scope
from upload_progress import ProgressTracker, UploadProgress, UploadState
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol

pytestmark = pytest.mark.anyio

GUIDE = (ROOT / "docs/guides/protocols.md").read_text(encoding="utf-8")
EXAMPLE = GUIDE.partition("## Resumable.js")[2].partition("```python\n")[2].partition("```")[0]
SIZE, CHUNK = 250_000, 100_000
ENVELOPE = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'


@pytest.fixture
async def tracker() -> AsyncIterator[ProgressTracker]:
    """Return a running tracker."""
    tracker = ProgressTracker()
    async with tracker.lifespan():
        yield tracker


def resumable_js() -> TransferProtocol:
    """Return an instance of the protocol in the guide."""
    namespace: dict[str, type[TransferProtocol]] = {}
    exec(EXAMPLE, namespace)  # noqa: S102  # our own documentation
    return namespace["ResumableJs"]()


def address(number: int, total: int = SIZE, *, identifier: str = "250000-abin") -> str:
    """Return the address to which Resumable.js 1.1.0 posts a chunk."""
    fields = {
        "resumableChunkNumber": number,
        "resumableChunkSize": CHUNK,
        "resumableCurrentChunkSize": min(CHUNK, total - (number - 1) * CHUNK),
        "resumableTotalSize": total,
        "resumableIdentifier": identifier,
        "resumableFilename": "a.bin",
        "resumableTotalChunks": 3,
    }
    return f"/upload?{urlencode(fields)}"


async def post(
    tracker: ProgressTracker,
    path: str,
    size: int,
    headers: dict[str, str] | None = None,
    *,
    app: FileApp | None = None,
) -> None:
    """Post a form with a chunk."""
    form = {"content-type": "multipart/form-data; boundary=x", **(headers or {})}
    protocols = [resumable_js(), *DEFAULT_PROTOCOLS]
    await send_request(
        app or FileApp(), tracker, "POST", path, headers=form,
        content=ENVELOPE + bytes(size), protocols=protocols,
    )  # fmt: skip


async def shown(tracker: ProgressTracker) -> list[UploadProgress]:
    """Return all uploads."""
    return list((await tracker.list(owner=ALICE, states=set(UploadState))).uploads)


async def test_chunks_of_resumable_js_are_one_upload(tracker: ProgressTracker) -> None:
    await post(tracker, address(2), CHUNK)
    await post(tracker, address(1), CHUNK)
    [halfway] = await shown(tracker)
    await post(tracker, address(3), 50_000)
    [whole] = await shown(tracker)

    assert (halfway.bytes_transferred, halfway.total_bytes) == (200_000, SIZE)
    assert halfway.finished_at is None
    assert (whole.state, whole.bytes_transferred) == (UploadState.COMPLETED, SIZE)
    assert whole.filename == "a.bin"


async def test_refused_chunk_of_resumable_js_is_not_counted(tracker: ProgressTracker) -> None:
    class Refuses(FileApp):
        async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
            await super().respond(scope, receive)
            return 503, {}

    await post(tracker, address(1), CHUNK)
    await post(tracker, address(2), CHUNK, app=Refuses())
    [paused] = await shown(tracker)

    assert (paused.bytes_transferred, paused.finished_at) == (CHUNK, None)


@pytest.mark.parametrize("path", ["/upload", address(0), address(4)])
async def test_other_form_is_an_upload_of_its_own(tracker: ProgressTracker, path: str) -> None:
    await post(tracker, path, CHUNK)
    [whole] = await shown(tracker)

    assert whole.state is UploadState.COMPLETED
    assert not whole.upload_id.startswith("resumablejs-")


async def test_chunks_without_a_description_are_uploads_of_their_own(
    tracker: ProgressTracker,
) -> None:
    for size in (CHUNK, CHUNK):
        await post(tracker, "/upload", size)

    assert [each.state for each in await shown(tracker)] == [UploadState.COMPLETED] * 2


async def test_chunks_with_the_same_id_only_are_attempts(tracker: ProgressTracker) -> None:
    for size in (CHUNK, CHUNK, 50_000):
        await post(tracker, "/upload", size, {"upload-id": "of-the-file"})
    [last] = await shown(tracker)

    assert (last.attempt, last.state) == (3, UploadState.COMPLETED)
    assert last.bytes_transferred == len(ENVELOPE) + 50_000


async def test_chunks_with_content_range_are_one_upload(tracker: ProgressTracker) -> None:
    for first in range(0, SIZE, CHUNK):
        stop = min(first + CHUNK, SIZE)
        headers = {"content-range": f"bytes {first}-{stop - 1}/{SIZE}", "upload-id": "of-the-file"}
        await post(tracker, "/upload", stop - first, headers)
    [whole] = await shown(tracker)

    assert (whole.state, whole.attempt, whole.bytes_transferred) == (UploadState.COMPLETED, 1, SIZE)
    assert (whole.upload_id, whole.filename) == ("of-the-file", "a.bin")
