"""The demo keeps files whose uploads last longer than an outage of the store, and than a lease."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from tests._support.cluster_clients import curl_status, curl_upload, progress_client
from tests._support.demo_process import DemoProcess, running_demo
from tests._support.server_processes import ServerProcess
from tests.conftest import RequireProgram
from upload_progress import UploadState
from upload_progress.backends.postgres import migrate

pytestmark = pytest.mark.anyio

DEMOS = 3
UPLOADS = 3
"""At each demo."""
SIZE = 3_000_000
OUTAGE_SECONDS = 20.0
WARNINGS = r"(the session store|the event publisher|PostgresPublisher).*"


@pytest.fixture
def anyio_backend() -> str:
    """The servers are tested; the client needs one event loop only."""
    return "asyncio"


@pytest.fixture
async def demos(postgres_server: ServerProcess, tmp_path: Path) -> AsyncIterator[list[DemoProcess]]:
    """Run demos that receive slowly."""
    await migrate(postgres_server.url)
    options = ("--slow", "100k", "--store", postgres_server.url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_demo(
                    *options, "--data", str(tmp_path / str(number)), expected_errors=WARNINGS
                )
            )
            for number in range(DEMOS)
        ]


async def test_files_are_kept_when_the_store_was_away(
    demos: list[DemoProcess],
    postgres_server: ServerProcess,
    tmp_path: Path,
    require_program: RequireProgram,
) -> None:
    """No upload is ended by others, and none is answered as cancelled."""
    curl = require_program("curl", install="get it with: apt-get install curl")
    large_file = tmp_path / "large_file.bin"
    large_file.write_bytes(os.urandom(SIZE))
    names = [f"kept-{demo}-{number}" for demo in range(DEMOS) for number in range(UPLOADS)]
    with ExitStack() as stack:
        uploads = [
            stack.enter_context(curl_upload(curl, demos[number % DEMOS].url, large_file, upload_id))
            for number, upload_id in enumerate(names)
        ]
        async with progress_client(demos[0].url) as client:
            for upload_id in names:
                await client.wait_for(upload_id)
            postgres_server.pause()
            await anyio.sleep(OUTAGE_SECONDS)
            postgres_server.resume()
            statuses = [await to_thread.run_sync(curl_status, upload) for upload in uploads]
            for upload_id in names:
                await client.wait_for(upload_id, UploadState.COMPLETED)

    assert statuses == ["201"] * len(names)
    assert kept_files(tmp_path) == set(names)


def kept_files(folder: Path) -> set[str]:
    """Return the names of the files that the demos have stored."""
    return {path.stem for path in folder.glob("*/alice/files/*")}
