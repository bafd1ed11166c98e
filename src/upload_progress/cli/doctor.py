"""The command ``doctor``: finds out with a probe whether a proxy hides the progress of uploads.

The probe is an upload of 1 MiB that is sent slowly. When half of it has been sent, the command
stops sending and asks the server how many bytes it has received. If there are none after some
seconds, a proxy buffers requests: nothing else makes a server wait for bytes that were sent
seconds ago. So the result does not depend on the speed of the network or the server. Event
streams and WebSockets get through if their first message arrives, which the server sends at once.

Sources of the hints: nginx ``ngx_http_proxy_module`` and its page on WebSocket proxying; Caddy
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

from upload_progress._runtime.sizes import format_size
from upload_progress.cli.connection import open_client
from upload_progress.cli.exit_codes import FAILED, SUCCESS
from upload_progress.cli.options import ConnectionOptions
from upload_progress.client.api import ProgressApi, translated_errors
from upload_progress.client.responses import FailedResponse, upload_error
from upload_progress.client.retry import RetryPolicy
from upload_progress.client.urls import DEFAULT_MOUNT, parse_url, target_url
from upload_progress.client.watch import WatchLoop
from upload_progress.exceptions import UnexpectedResponse

__all__ = [
    "PROBE_BYTES",
    "PROBE_NAME",
    "SKEW_SECONDS",
    "TIMEOUT_SECONDS",
    "ProxyProblem",
    "diagnose",
    "error_reason",
    "hints",
]

PROBE_NAME: Final = "upload-progress-probe"
PROBE_BYTES: Final = 1024 * 1024
TIMEOUT_SECONDS: Final = 5.0
"""What has not arrived by then is considered buffered."""
SKEW_SECONDS: Final = 2.0
_CHUNKS: Final = 16
_CHUNK_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.05


@unique
class ProxyProblem(Enum):
    """What a proxy can do to uploads and their progress."""

    REQUEST_BUFFERING = "A proxy buffers requests until they are complete."
    RESPONSE_BUFFERING = "A proxy buffers responses, so event streams do not get through."
    NO_WEBSOCKET = "A proxy does not forward WebSockets."


_HINTS: Final[Mapping[ProxyProblem, Mapping[str, str]]] = {
    ProxyProblem.REQUEST_BUFFERING: {
        "nginx": "proxy_request_buffering off; proxy_http_version 1.1;",
        "Caddy": "remove request_buffers from reverse_proxy: without it requests are streamed",
        "Traefik": "remove the buffering middleware from this router",
        "Apache": "SetEnv proxy-sendchunked 1   (without SetInputFilter BUFFER and proxy-sendcl)",
    },
    ProxyProblem.RESPONSE_BUFFERING: {
        "nginx": "proxy_buffering off; proxy_http_version 1.1; gzip off;",
        "Caddy": "reverse_proxy … { flush_interval -1 }",
        "Traefik": "remove compress and buffering from this router, or set flushInterval to 1ms",
        "Apache": "ProxyPass /uploads http://…/uploads flushpackets=on",
    },
    ProxyProblem.NO_WEBSOCKET: {
        "nginx": "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
        "proxy_set_header Connection upgrade;",
        "Caddy": "nothing: Caddy forwards WebSockets; check the other proxies",
        "Traefik": "nothing: Traefik forwards WebSockets; check the other proxies",
        "Apache": "ProxyPass /uploads http://…/uploads upgrade=websocket",
    },
}


def hints(problem: ProxyProblem) -> list[str]:
    """Return the configuration that fixes a problem, one line for each proxy server."""
    return [f"  {proxy:<9}{hint}" for proxy, hint in _HINTS[problem].items()]


async def diagnose(url: str, connection: ConnectionOptions) -> int:
    """Send the probe below *url*, print what was found, and return the exit code."""
    target = target_url(parse_url(url, "URL").url, PurePosixPath(PROBE_NAME))
    async with open_client(url, connection, default_mount=DEFAULT_MOUNT) as client:
        diagnosis = _Diagnosis(client.api, target)
        await diagnosis.run()
    for problem in diagnosis.problems:
        _print("", problem.value, "Fix it in the configuration of the proxy:", *hints(problem))
    return FAILED if diagnosis.problems else SUCCESS


def _print(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _print_finding(subject: str, finding: str) -> None:
    _print(f"{subject:<13}{finding}")


@define(eq=False, repr=False)
class _Diagnosis:
    api: ProgressApi
    target: httpx2.URL
    problems: list[ProxyProblem] = field(factory=list, init=False)
    _upload_id: str = field(default="", init=False)

    async def run(self) -> None:
        await self._check_clock()
        await self._check_latency()
        await self._check_event_stream()
        await self._check_websocket()
        await self._check_upload()

    def _add(self, problem: ProxyProblem, subject: str, finding: str) -> None:
        self.problems.append(problem)
        _print_finding(subject, finding)

    async def _check_clock(self) -> None:
        """Announce the probe, and compare its time of creation with the local clock."""
        before, began = datetime.now(UTC), monotonic()
        description = {"filename": PROBE_NAME, "total_bytes": PROBE_BYTES}
        progress = await self.api.create(description)
        middle = before.timestamp() + (monotonic() - began) / 2
        ahead = progress.created_at.timestamp() - middle
        self._upload_id = progress.upload_id
        direction = "ahead of" if ahead > 0 else "behind"
        advice = ": synchronize the clocks" if abs(ahead) > SKEW_SECONDS else ""
        finding = f"the server is {abs(ahead):.1f} s {direction} this machine{advice}"
        _print_finding("clock", finding)

    async def _check_latency(self) -> None:
        began = monotonic()
        await self.api.get(self._upload_id)
        _print_finding("latency", f"{_elapsed(began)} from request to response")

    async def _check_event_stream(self) -> None:
        began = monotonic()
        watch = WatchLoop(
            self.api,
            RetryPolicy.create(1, _POLL_SECONDS),
            upload_id=self._upload_id,
            first_event_seconds=TIMEOUT_SECONDS,
            poll_seconds=_POLL_SECONDS,
        )
        async with aclosing(watch.snapshots()) as snapshots:
            await anext(snapshots)
        if watch.use_stream:
            _print_finding("event stream", f"passes; first event after {_elapsed(began)}")
        else:
            self._add(ProxyProblem.RESPONSE_BUFFERING, "event stream", "BUFFERED")

    async def _check_websocket(self) -> None:
        began = monotonic()
        reason = await self._websocket_failure()
        if reason is None:
            _print_finding("WebSocket", f"passes; first message after {_elapsed(began)}")
        else:
            self._add(ProxyProblem.NO_WEBSOCKET, "WebSocket", f"BLOCKED: {reason}")

    async def _websocket_failure(self) -> str | None:
        url = self.api.upload_url(self._upload_id, "progress")
        scheme = {"http": "ws", "https": "wss"}[url.scheme]
        reason = f"no message within {TIMEOUT_SECONDS:.0f} s"
        with anyio.move_on_after(TIMEOUT_SECONDS):
            try:
                async with self.api.http.websocket(url.copy_with(scheme=scheme)) as socket:
                    await socket.receive_text()
                    return None
            except* (HTTPXWSException, httpx2.TransportError) as group:
                reason = "; ".join(error_reason(error) for error in group.exceptions)
        return reason

    async def _check_upload(self) -> None:
        address = str(self.target)
        headers = {
            "content-length": str(PROBE_BYTES),
            "content-type": "application/octet-stream",
            "upload-id": self._upload_id,
        }
        with translated_errors(address):
            response = await self.api.http.put(
                self.target, headers=headers, content=self._probe(), timeout=60.0
            )
        if not response.is_success:
            raise upload_error(FailedResponse.from_response(response, response.content), address)
        if "upload-id" not in response.headers:
            problem = "does not track uploads: its application lacks UploadProgressMiddleware"
            raise UnexpectedResponse(address, problem)

    async def _probe(self) -> AsyncGenerator[bytes]:
        chunk = bytes(PROBE_BYTES // _CHUNKS)
        for number in range(_CHUNKS):
            if number == _CHUNKS // 2:
                await self._check_first_half(number * len(chunk))
            yield chunk
            await anyio.sleep(_CHUNK_SECONDS)

    async def _check_first_half(self, sent_bytes: int) -> None:
        began = monotonic()
        with anyio.move_on_after(TIMEOUT_SECONDS):
            while (await self.api.get(self._upload_id)).bytes_transferred == 0:  # noqa: ASYNC110  # at the server
                await anyio.sleep(_POLL_SECONDS)
            finding = f"passes as it is sent; received by the server within {_elapsed(began)}"
            _print_finding("upload", finding)
            return
        finding = (
            f"BUFFERED: {format_size(sent_bytes)} were sent {TIMEOUT_SECONDS:.0f} s ago, "
            "and the server has received none of them"
        )
        self._add(ProxyProblem.REQUEST_BUFFERING, "upload", finding)


def _elapsed(began: float) -> str:
    return f"{1000 * (monotonic() - began):.0f} ms"


def error_reason(error: Exception) -> str:
    """Return why a WebSocket handshake failed: the status, the message or the type."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        return f"the handshake was answered with {response.status_code}"
    return str(error) or type(error).__name__
