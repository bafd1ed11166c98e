"""Uploads by curl, and a client that follows them on several servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import httpx2
from attrs import define
from httpx2.websockets import AsyncWebSocketSession, WebSocketDisconnect

from tests._support.simulation import deadline
from upload_progress import UploadProgress, UploadState
from upload_progress._model.codec import decode_progress

__all__ = [
    "SECONDS",
    "ProgressClient",
    "curl_status",
    "curl_upload",
    "progress_client",
    "socket_snapshots",
]

SECONDS: Final = 60.0


@contextmanager
def curl_upload(
    curl: str, url: str, path: Path, upload_id: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Upload *path* with curl while the block runs."""
    headers = ["-H", f"Upload-Id: {upload_id}", "--max-time", "60"]
    command = [curl, "-sS", "-u", "alice:alice", "-T", str(path), *headers]
    command += ["-w", "\n%{http_code}", f"{url}/files/{upload_id}.bin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def curl_status(process: subprocess.Popen[bytes]) -> str:
    """Wait for curl, and return the HTTP status that it received."""
    output, _ = process.communicate(timeout=SECONDS)
    return output.decode().rpartition("\n")[2]


@define
class ProgressClient:
    """Follows uploads at one server, or at a proxy for several."""

    http: httpx2.AsyncClient

    async def poll(self, upload_id: str) -> UploadProgress | None:
        """Return the snapshot of an upload; None if the server has none."""
        answer = await self.http.get(f"/uploads/{upload_id}/progress")
        return decode_progress(answer.content) if answer.status_code == 200 else None

    async def wait_for(self, upload_id: str, state: UploadState = UploadState.RECEIVING) -> None:
        """Poll until the upload is in *state* and has bytes."""
        found: UploadProgress | None = None
        while found is None or found.state is not state or not found.bytes_transferred:
            await anyio.sleep(0.02)
            found = await self.poll(upload_id)

    async def stream(self, upload_id: str) -> AsyncIterator[UploadProgress]:
        """Yield the snapshots of an SSE stream, to the end."""
        accept = {"accept": "text/event-stream"}
        async with self.http.stream(
            "GET", f"/uploads/{upload_id}/progress", headers=accept
        ) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield decode_progress(line.removeprefix("data: "))

    async def socket(self, upload_id: str) -> AsyncIterator[UploadProgress]:
        """Yield the snapshots of a WebSocket for one upload, until the server closes it."""
        async with self.http.websocket(f"/uploads/{upload_id}/progress") as socket:
            with suppress(WebSocketDisconnect):
                async for snapshot in socket_snapshots(socket):
                    yield snapshot


async def socket_snapshots(
    socket: AsyncWebSocketSession, *, until: UploadState | None = None
) -> AsyncIterator[UploadProgress]:
    """Yield the snapshots of a WebSocket, to the first in the state *until*."""
    state: UploadState | None = None
    while state is None or state is not until:
        message = json.loads(await socket.receive_text())
        if message["type"] == "progress":
            snapshot = decode_progress(json.dumps(message["upload"]))
            state = snapshot.state
            yield snapshot


@asynccontextmanager
async def progress_client(url: str, user: str = "alice") -> AsyncIterator[ProgressClient]:
    timeout = httpx2.Timeout(SECONDS)
    async with httpx2.AsyncClient(base_url=url, auth=(user, user), timeout=timeout) as http:
        with deadline(SECONDS):
            yield ProgressClient(http)
