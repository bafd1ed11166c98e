"""The uploads that are shipped for tests of applications."""

from __future__ import annotations

import anyio
import pytest

from upload_progress import ErrorCode, InvalidValue, ProgressTracker, UploadState
from upload_progress.testing import PacedBody, upload_in_state

pytestmark = pytest.mark.anyio

HALF, WHOLE = 500, 1000
BYTES = {
    UploadState.PENDING: 0,
    UploadState.RECEIVING: HALF,
    UploadState.PAUSED: HALF,
    UploadState.PROCESSING: WHOLE,
    UploadState.COMPLETED: WHOLE,
    UploadState.CANCELLED: HALF,
}


@pytest.mark.parametrize("state", BYTES)
async def test_upload_has_the_state_while_the_block_runs(state: UploadState) -> None:
    tracker = ProgressTracker()
    async with (
        tracker.lifespan(),
        upload_in_state(tracker, state, owner="ann", filename="a.bin", total_bytes=WHOLE) as upload,
    ):
        found = await tracker.get(upload.upload_id, owner="ann")

    assert (upload.state, upload.bytes_transferred) == (state, BYTES[state])
    assert (found.state, found.total_bytes, found.filename) == (state, WHOLE, "a.bin")


async def test_failed_upload_has_an_error() -> None:
    tracker = ProgressTracker()
    async with (
        tracker.lifespan(),
        upload_in_state(tracker, UploadState.FAILED, owner="ann") as upload,
    ):
        assert upload.state is UploadState.FAILED
        assert upload.error
        assert upload.error.code is ErrorCode.REJECTED


async def test_error_in_the_block_is_raised_as_it_is() -> None:
    tracker = ProgressTracker()
    with pytest.raises(AssertionError, match="as in a test"):
        async with tracker.lifespan(), upload_in_state(tracker, UploadState.RECEIVING, owner="ann"):
            raise AssertionError("as in a test")


@pytest.mark.parametrize("state", [UploadState.RECEIVING, UploadState.PROCESSING])
async def test_upload_completes_after_the_block(state: UploadState) -> None:
    tracker = ProgressTracker()
    async with tracker.lifespan():
        async with upload_in_state(tracker, state, owner="ann") as upload:
            pass
        found = await tracker.get(upload.upload_id, owner="ann")

    assert found.state is UploadState.COMPLETED


async def test_size_must_have_two_halves() -> None:
    block = upload_in_state(ProgressTracker(), UploadState.RECEIVING, owner="ann", total_bytes=1)
    with pytest.raises(InvalidValue, match="at least 2"):
        await block.__aenter__()


async def test_paced_body_takes_its_time() -> None:
    body = PacedBody(2500, bytes_per_second=50_000, chunk_bytes=1000)
    started = anyio.current_time()

    sizes = [len(chunk) async for chunk in body]

    assert sizes == [1000, 1000, 500]
    assert body.headers == {"content-length": "2500"}
    # The last chunk is due after 2000 bytes.
    assert anyio.current_time() - started >= 0.04


@pytest.mark.parametrize(
    ("size_bytes", "bytes_per_second", "chunk_bytes", "problem"),
    [(-1, 1, 1, "size_bytes"), (1, 0, 1, "bytes_per_second"), (1, 1, 0, "chunk_bytes")],
)
async def test_paced_body_refuses_numbers_that_make_no_sense(
    size_bytes: int, bytes_per_second: float, chunk_bytes: int, problem: str
) -> None:
    with pytest.raises(InvalidValue, match=problem):
        PacedBody(size_bytes, bytes_per_second=bytes_per_second, chunk_bytes=chunk_bytes)
