"""Who sends to, and asks, servers that share what they know."""

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

__all__ = ["SECONDS", "Looker", "ended", "looking", "sending", "told_on"]

SECONDS: Final = 60.0


@contextmanager
def sending(curl: str, url: str, path: Path, upload_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """Send *path* with curl, beside the block."""
    headers = ["-H", f"Upload-Id: {upload_id}", "--max-time", "60"]
    command = [curl, "-sS", "-u", "alice:alice", "-T", str(path), *headers]
    command += ["-w", "\n%{http_code}", f"{url}/files/{upload_id}.bin"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> str:
    """Return the status that curl got, in the end."""
    said, _ = process.communicate(timeout=SECONDS)
    return said.decode().rpartition("\n")[2]


@define
class Looker:
    """Somebody who asks one demo, or what stands before several."""

    http: httpx2.AsyncClient

    async def poll(self, upload_id: str) -> UploadProgress | None:
        """Ask once."""
        answer = await self.http.get(f"/uploads/{upload_id}/progress")
        return decode_progress(answer.content) if answer.status_code == 200 else None

    async def found(self, upload_id: str, state: UploadState = UploadState.RECEIVING) -> None:
        """Ask until it is there, and some bytes of it."""
        found: UploadProgress | None = None
        while found is None or found.state is not state or not found.bytes_transferred:
            await anyio.sleep(0.02)
            found = await self.poll(upload_id)

    async def stream(self, upload_id: str) -> AsyncIterator[UploadProgress]:
        """Follow by SSE to the end."""
        accept = {"accept": "text/event-stream"}
        async with self.http.stream(
            "GET", f"/uploads/{upload_id}/progress", headers=accept
        ) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield decode_progress(line.removeprefix("data: "))

    async def socket(self, upload_id: str) -> AsyncIterator[UploadProgress]:
        """Follow by a socket for this upload, until the server closes it."""
        async with self.http.websocket(f"/uploads/{upload_id}/progress") as socket:
            with suppress(WebSocketDisconnect):
                async for snapshot in told_on(socket):
                    yield snapshot


async def told_on(
    socket: AsyncWebSocketSession, *, until: UploadState | None = None
) -> AsyncIterator[UploadProgress]:
    """Return the snapshots that come on a socket, to the first of that state."""
    state: UploadState | None = None
    while state is None or state is not until:
        told = json.loads(await socket.receive_text())
        if told["type"] == "progress":
            snapshot = decode_progress(json.dumps(told["upload"]))
            state = snapshot.state
            yield snapshot


@asynccontextmanager
async def looking(url: str, user: str = "alice") -> AsyncIterator[Looker]:
    patience = httpx2.Timeout(SECONDS)
    async with httpx2.AsyncClient(base_url=url, auth=(user, user), timeout=patience) as http:
        with deadline(SECONDS):
            yield Looker(http)
