"""The lines that mend a proxy, by what is wrong with it.

Sources: nginx ``ngx_http_proxy_module`` and its page on WebSocket proxying; Caddy
``reverse_proxy``; Traefik's buffering middleware and ``responseForwarding``; Apache ``mod_proxy``,
``mod_proxy_http`` and ``mod_proxy_wstunnel``.
"""

import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from enum import Enum, unique
from pathlib import PurePosixPath
from time import monotonic
from typing import Final

import anyio
import httpx2
from attrs import define, field
from httpx2.websockets import HTTPXWSException

from upload_progress._model.models import UploadProgress
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import DONE, FAILED
from upload_progress.cli.options import Reach
from upload_progress.client.api import Calls, reaching
from upload_progress.client.responses import Refusal, rejection_of
from upload_progress.client.retry import Patience
from upload_progress.client.urls import DEFAULT_MOUNT, read_url, target_of
from upload_progress.client.watch import Watching
from upload_progress.exceptions import UnexpectedAnswer

__all__ = [
    "PATIENCE_SECONDS",
    "PROBE_BYTES",
    "PROBE_NAME",
    "SKEW_SECONDS",
    "Fault",
    "examine",
    "mends_of",
    "told",
]


@unique
class Fault(Enum):
    """What a proxy can do to uploads and their progress."""

    UPLOAD_HELD_BACK = "It holds requests back until they are whole."
    STREAM_HELD_BACK = "It holds answers back, so that event streams do not pass."
    NO_SOCKET = "It does not let WebSockets through."


_MENDS: Final[Mapping[Fault, Mapping[str, str]]] = {
    Fault.UPLOAD_HELD_BACK: {
        "nginx": "proxy_request_buffering off; proxy_http_version 1.1;",
        "Caddy": "remove request_buffers from reverse_proxy: without it requests are streamed",
        "Traefik": "take the buffering middleware off this router",
        "Apache": "SetEnv proxy-sendchunked 1   (and no SetInputFilter BUFFER, no proxy-sendcl)",
    },
    Fault.STREAM_HELD_BACK: {
        "nginx": "proxy_buffering off; proxy_http_version 1.1; gzip off;",
        "Caddy": "reverse_proxy … { flush_interval -1 }",
        "Traefik": "take compress and buffering off this router, or set flushInterval to 1ms",
        "Apache": "ProxyPass /uploads http://…/uploads flushpackets=on",
    },
    Fault.NO_SOCKET: {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection upgrade;",
        "Caddy": "nothing: WebSockets pass; look further along the way",
        "Traefik": "nothing: WebSockets pass; look further along the way",
        "Apache": "ProxyPass /uploads http://…/uploads upgrade=websocket",
    },
}


def mends_of(fault: Fault) -> list[str]:
    """Return what mends *fault*, a line for each proxy."""
    return [f"  {proxy:<9}{hint}" for proxy, hint in _MENDS[fault].items()]


# FROM cli.doctor: ``doctor``: what lies between here and the server, found out by a probe.
#
# The probe is an upload of 1 MiB, sent slowly. When half of it is on its way the doctor stops, and
# asks the server whether any of it has come. If nothing has, something on the way holds requests
# back: nothing else makes a server wait for bytes that were sent seconds ago. So the finding does
# not hang on how fast anything is. That streams and sockets pass is shown by their first word,
# which the server says at once.
#

PROBE_NAME: Final = "upload-progress-probe"
PROBE_BYTES: Final = 1024 * 1024
PATIENCE_SECONDS: Final = 5.0
"""What has not come by then is held back."""
SKEW_SECONDS: Final = 2.0
_PIECES: Final = 16
_PIECE_SECONDS: Final = 0.05
_ASK_SECONDS: Final = 0.05


async def examine(url: str, reach: Reach) -> int:
    """Examine the way to *url*, print what was found, and return the exit code."""
    target = target_of(read_url(url, "URL").url, PurePosixPath(PROBE_NAME))
    async with open_client(url, reach, default_mount=DEFAULT_MOUNT) as client:
        examination = _Examination(client.calls, target)
        await examination.run()
    for fault in examination.faults:
        _say("", fault.value, "In the proxy on the way:", *mends_of(fault))
    return FAILED if examination.faults else DONE


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _report(what: str, finding: str) -> None:
    _say(f"{what:<13}{finding}")


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


@define(eq=False, repr=False)
class _Examination:
    calls: Calls
    target: httpx2.URL
    faults: list[Fault] = field(factory=list, init=False)
    _upload_id: str = field(default="", init=False)

    async def run(self) -> None:
        await self._announce()
        await self._ask()
        await self._look_at_streams()
        await self._look_at_sockets()
        await self._look_at_uploads()

    async def _announce(self) -> None:
        """Announce the probe; when it was created tells the server's clock."""
        before, began = datetime.now(UTC), monotonic()
        announcement = {"filename": PROBE_NAME, "total_bytes": PROBE_BYTES}
        progress = await self.calls.create(announcement)
        middle = before.timestamp() + (monotonic() - began) / 2
        ahead = progress.created_at.timestamp() - middle
        self._upload_id = progress.upload_id
        beside = "ahead of" if ahead > 0 else "behind"
        worry = ": set one of them right" if abs(ahead) > SKEW_SECONDS else ""
        _report("clock", f"the server's is {abs(ahead):.1f} s {beside} ours{worry}")

    async def _ask(self) -> None:
        began = monotonic()
        await self.calls.snapshot(self._upload_id)
        _report("latency", f"{_milliseconds(monotonic() - began)} from question to answer")

    async def _look_at_streams(self) -> None:
        began = monotonic()
        watching = Watching(
            self.calls,
            Patience(1, _ASK_SECONDS),
            upload_id=self._upload_id,
            first_word_seconds=PATIENCE_SECONDS,
            ask_seconds=_ASK_SECONDS,
        )
        async with aclosing(watching.snapshots()) as snapshots:
            await anext(snapshots)
        if watching.streams:
            _report("event stream", f"passes; its first word after {_since(began)}")
        else:
            self._find(Fault.STREAM_HELD_BACK, "event stream", "HELD BACK")

    async def _look_at_sockets(self) -> None:
        began = monotonic()
        reason = await self._socket_failure()
        if reason is None:
            _report("WebSocket", f"passes; its first word after {_since(began)}")
        else:
            self._find(Fault.NO_SOCKET, "WebSocket", f"DOES NOT PASS: {reason}")

    async def _socket_failure(self) -> str | None:
        url = self.calls.upload_url(self._upload_id, "progress")
        scheme = {"http": "ws", "https": "wss"}[url.scheme]
        reason = f"no word in {PATIENCE_SECONDS:.0f} s"
        with anyio.move_on_after(PATIENCE_SECONDS):
            try:
                async with self.calls.http.websocket(url.copy_with(scheme=scheme)) as socket:
                    await socket.receive_text()
                    return None
            except* (HTTPXWSException, httpx2.TransportError) as group:
                reason = "; ".join(told(error) for error in group.exceptions)
        return reason

    async def _look_at_uploads(self) -> None:
        address = str(self.target)
        headers = {
            "content-length": str(PROBE_BYTES),
            "content-type": "application/octet-stream",
            "upload-id": self._upload_id,
        }
        with reaching(address):
            response = await self.calls.http.put(
                self.target, headers=headers, content=self._probe(), timeout=60.0
            )
        if not response.is_success:
            raise rejection_of(Refusal.of(response, response.content), address)
        if "upload-id" not in response.headers:
            problem = "does not follow uploads: its application lacks UploadProgressMiddleware"
            raise UnexpectedAnswer(address, problem)

    async def _probe(self) -> AsyncGenerator[bytes]:
        transfer_head = bytes(PROBE_BYTES // _PIECES)
        for number in range(_PIECES):
            if number == _PIECES // 2:
                await self._look_at_half(number * len(transfer_head))
            yield transfer_head
            await anyio.sleep(_PIECE_SECONDS)

    async def _look_at_half(self, sent_bytes: int) -> None:
        began = monotonic()
        with anyio.move_on_after(PATIENCE_SECONDS):
            while not _has_come(await self.calls.snapshot(self._upload_id)):  # noqa: ASYNC110  # only the server knows
                await anyio.sleep(_ASK_SECONDS)
            _report("upload", f"passes as it is sent; seen by the server within {_since(began)}")
            return
        finding = f"HELD BACK: {format_size(sent_bytes)} were sent {PATIENCE_SECONDS:.0f} s ago"
        self._find(Fault.UPLOAD_HELD_BACK, "upload", f"{finding}, and none has arrived")

    def _find(self, fault: Fault, what: str, finding: str) -> None:
        self.faults.append(fault)
        _report(what, finding)


def _has_come(progress: UploadProgress) -> bool:
    return progress.bytes_transferred > 0


def _since(began: float) -> str:
    return _milliseconds(monotonic() - began)


def told(error: Exception) -> str:
    """Return what *error* says, or at least what it is."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        return f"the handshake was answered with {response.status_code}"
    return str(error) or type(error).__name__
