"""The checks of the command ``doctor``, in the order in which a client depends on them.

A probe is announced, asked for, followed and sent. A check whose answer depends on luck after an
earlier finding does not run. Event streams and WebSockets get through if their first message
arrives, which the server sends at once.
"""

from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic
from typing import Final

import anyio
import httpx2
from attrs import define, field
from httpx2.websockets import HTTPXWSException

from upload_progress.cli.doctor.causes import Cause, proxies_in
from upload_progress.cli.doctor.report import Report, elapsed
from upload_progress.cli.doctor.upload_probe import PROBE_BYTES, PROBE_NAME, UploadProbe
from upload_progress.client.api import ProgressApi, translated_errors

__all__ = ["SKEW_SECONDS", "TIMEOUT_SECONDS", "WORKER_REQUESTS", "Diagnosis", "error_reason"]

TIMEOUT_SECONDS: Final = 5.0
"""What has not arrived by then is considered buffered."""
SKEW_SECONDS: Final = 2.0
WORKER_REQUESTS: Final = 16
"""How often an upload is asked for, each time over a connection of its own."""
_DESCRIPTION: Final = {"filename": PROBE_NAME, "total_bytes": PROBE_BYTES}


@define(eq=False, repr=False)
class Diagnosis:
    """Checks one server.

    Attributes:
        api: The progress API of the server.
        target: URL of the endpoint that the probe is sent to.
        report: Takes the findings.
        timeout_seconds: What has not arrived after that time is considered buffered.
        form: Name of the field in which a form carries the probe; None for a ``PUT``.
        is_guess: Whether the target is not known to be an endpoint.
    """

    api: ProgressApi
    target: httpx2.URL
    report: Report
    timeout_seconds: float = TIMEOUT_SECONDS
    form: str | None = None
    is_guess: bool = False
    _upload_id: str = field(default="", init=False)

    async def run(self) -> None:
        """Run the checks.

        Raises:
            UploadProgressError: The server cannot be reached, denies access, or has no progress
                routes.
        """
        hooks = self.api.http.event_hooks
        self.api.http.event_hooks = {**hooks, "response": [*hooks["response"], self._on_response]}
        await self._check_clock()
        if not await self._check_workers():
            return
        await self._check_event_stream()
        await self._check_websocket()
        await self._check_upload()

    async def _on_response(self, response: httpx2.Response) -> None:
        self.report.note_proxies(response.headers)

    async def _check_clock(self) -> None:
        """Announce the probe, and compare its time of creation with the local clock."""
        before, began = datetime.now(UTC), monotonic()
        progress = await self.api.create(_DESCRIPTION)
        middle = before.timestamp() + (monotonic() - began) / 2
        ahead = progress.created_at.timestamp() - middle
        self._upload_id = progress.upload_id
        direction = "ahead of" if ahead > 0 else "behind"
        found = f"the server is {abs(ahead):.1f} s {direction} this machine"
        if abs(ahead) > SKEW_SECONDS:
            self.report.problem(Cause.CLOCK, "clock", f"DIFFERENT: {found}")
        else:
            self.report.finding("clock", found)
        names = ", ".join(sorted(self.report.proxies))
        self.report.finding("proxy", names or "no response names one")

    async def _check_workers(self) -> bool:
        """Ask for the probe over many connections; return whether each of them knows it."""
        url, durations = self.api.upload_url(self._upload_id, "progress"), list[float]()
        found = 0
        for _ in range(WORKER_REQUESTS):
            began = monotonic()
            with translated_errors(self.api.address):
                response = await self.api.http.get(url, headers={"connection": "close"})
            durations.append(monotonic() - began)
            found += response.status_code != HTTPStatus.NOT_FOUND
        if found < WORKER_REQUESTS:
            text = f"SEPARATE: {found} of {WORKER_REQUESTS} requests have found the upload"
            self.report.problem(Cause.WORKERS, "workers", text)
            return False
        milliseconds = 1000 * sorted(durations)[WORKER_REQUESTS // 2]
        self.report.finding("workers", f"all {WORKER_REQUESTS} requests have found the upload")
        self.report.finding("latency", f"{milliseconds:.0f} ms from request to response")
        return True

    async def _check_event_stream(self) -> None:
        after = await self._first_event_after("gzip, br")
        if after is not None:
            self.report.finding("event stream", f"passes; first event after {after}")
        elif await self._first_event_after("identity") is not None:
            text = "COMPRESSED: passes only if the client accepts no compression"
            self.report.problem(Cause.COMPRESSION, "event stream", text)
        else:
            self.report.problem(Cause.RESPONSE_BUFFERING, "event stream", "BUFFERED")

    async def _first_event_after(self, encoding: str) -> str | None:
        """Return after which time the first event arrived; None if it did not arrive."""
        url, began = self.api.upload_url(self._upload_id, "progress"), monotonic()
        headers = {"accept": "text/event-stream", "accept-encoding": encoding}
        after: str | None = None
        with anyio.move_on_after(self.timeout_seconds):
            async with self.api.stream(url, params={}, headers=headers) as response:
                async for _ in response.aiter_raw(1):
                    after = elapsed(began)
                    break
        return after

    async def _check_websocket(self) -> None:
        began = monotonic()
        response, reason = await self._websocket_failure()
        if reason is None:
            self.report.finding("WebSocket", f"passes; first message after {elapsed(began)}")
            return
        if response is not None and _is_unsupported(response):
            text = "UNSUPPORTED: the server has passed the handshake on as an ordinary request"
            self.report.problem(Cause.NO_WEBSOCKET_LIBRARY, "WebSocket", text)
            return
        names = [] if response is None else sorted(proxies_in(response.headers))
        by = f" by {', '.join(names)}" if names else ""
        if response is not None and response.is_success:
            reason = f"{reason}: the header Upgrade was removed on the way"
        self.report.problem(Cause.WEBSOCKET_BLOCKED, "WebSocket", f"BLOCKED{by}: {reason}")

    async def _websocket_failure(self) -> tuple[httpx2.Response | None, str | None]:
        url = self.api.upload_url(self._upload_id, "progress")
        scheme = {"http": "ws", "https": "wss"}[url.scheme]
        response, reason = None, f"no message within {TIMEOUT_SECONDS:.0f} s"
        with anyio.move_on_after(TIMEOUT_SECONDS):
            try:
                async with self.api.http.websocket(url.copy_with(scheme=scheme)) as socket:
                    await socket.receive_text()
                    return None, None
            except* (HTTPXWSException, httpx2.TransportError) as group:
                response = getattr(group.exceptions[0], "response", None)
                reason = "; ".join(error_reason(error) for error in group.exceptions)
        return response, reason

    async def _check_upload(self) -> None:
        causes = len(self.report.causes)
        await self._probe(self._upload_id).run()
        if self.report.proxies and len(self.report.causes) == causes:
            await self._check_incremental()

    async def _check_incremental(self) -> None:
        """Find out whether a proxy holds requests back that do not ask it not to (RFC 10036)."""
        announced = await self.api.create(_DESCRIPTION)
        probe = self._probe(announced.upload_id)
        probe.is_incremental = False
        if await probe.passes():
            self.report.finding("Incremental", "not needed: requests pass without it, too")
        else:
            names = ", ".join(sorted(self.report.proxies))
            self.report.finding("Incremental", f"obeyed: without it {names} buffers requests")

    def _probe(self, upload_id: str) -> UploadProbe:
        return UploadProbe(
            self.api,
            self.report,
            self.target,
            upload_id,
            self.timeout_seconds,
            self.form,
            self.is_guess,
        )


def _is_unsupported(response: httpx2.Response) -> bool:
    """Return whether the progress routes have received the handshake as an ordinary request."""
    is_problem = response.headers.get("content-type", "").startswith("application/problem+json")
    return is_problem and response.status_code == HTTPStatus.NOT_IMPLEMENTED


def error_reason(error: Exception) -> str:
    """Return why a WebSocket handshake failed: the status, the message or the type."""
    response = getattr(error, "response", None)
    if isinstance(response, httpx2.Response):
        return f"the handshake was answered with {response.status_code}"
    return str(error) or type(error).__name__
