"""The probe upload of ``doctor``: 1 MiB with a pause in the middle.

When half of it has been sent, the probe asks the server how many bytes it has received. The
snapshot tells where the bytes are: in state ``pending`` the request has not reached the middleware,
in state ``receiving`` without a byte the endpoint does not read. So the result does not depend on
the speed of the network or of the server, and a proxy is not blamed for an endpoint.
"""

from collections.abc import AsyncGenerator, Collection
from http import HTTPStatus
from time import monotonic
from typing import Final

import anyio
import httpx2
from attrs import define, field

from upload_progress._model.models import UploadProgress, UploadState
from upload_progress._model.state import is_final
from upload_progress._runtime.sizes import format_size
from upload_progress.cli.doctor.causes import Cause, proxies_in
from upload_progress.cli.doctor.report import Report, elapsed
from upload_progress.client.api import ProgressApi, translated_errors
from upload_progress.client.forms import FormFile
from upload_progress.client.responses import FailedResponse, upload_error
from upload_progress.exceptions import NotAllowed

__all__ = ["PROBE_BYTES", "PROBE_NAME", "UploadProbe"]

PROBE_NAME: Final = "upload-progress-probe"
PROBE_BYTES: Final = 1024 * 1024
_CONTENT_TYPE: Final = "application/octet-stream"
_CHUNKS: Final = 16
_POLL_SECONDS: Final = 0.05
_RESPONSE_SECONDS: Final = 60.0
_UNTRACKED: Final = {"no-identity": Cause.NO_IDENTITY, "limit": Cause.LIMIT}
_NO_ENDPOINT: Final = frozenset({404, 405})


@define(eq=False, repr=False)
class UploadProbe:
    """Sends the probe to an endpoint, and finds out why its progress is not reported.

    Attributes:
        api: The progress API of the server.
        report: Takes the findings.
        target: URL of the endpoint.
        upload_id: Id that was announced for the probe.
        timeout_seconds: What has not arrived after that time is considered buffered.
        form: Name of the field in which a form carries the probe; None for a ``PUT``.
        is_guess: Whether the URL is not known to be that of an endpoint: it may refuse the probe.
        is_incremental: Whether to ask proxies not to hold the request back (RFC 10036).
    """

    api: ProgressApi
    report: Report
    target: httpx2.URL
    upload_id: str
    timeout_seconds: float
    form: str | None = None
    is_guess: bool = False
    is_incremental: bool = field(default=True, kw_only=True)
    _passed_after: str | None = field(default=None, init=False)
    _half: UploadProgress | None = field(default=None, init=False)

    async def run(self) -> None:
        """Send the probe and report what was found.

        Raises:
            NotAllowed: The endpoint denies access.
            ServerUnreachable: The connection failed.
        """
        response = await self.send()
        if response.is_success:
            self._judge(response, await self.api.get(self.upload_id))
        else:
            self._judge_refusal(response)

    async def passes(self) -> bool:
        """Send the probe; return whether its bytes are reported while they are sent."""
        await self.send()
        return self._passed_after is not None

    async def send(self) -> httpx2.Response:
        """Send the probe, and return the response."""
        headers = {"upload-id": self.upload_id, "upload-diagnosis": "?1"}
        if self.is_incremental:
            headers["incremental"] = "?1"
        content = self._content()
        if self.form is None:
            headers |= {"content-length": str(PROBE_BYTES), "content-type": _CONTENT_TYPE}
        else:
            form = FormFile(self.form, PROBE_NAME, _CONTENT_TYPE)
            headers |= form.headers(PROBE_BYTES)
            content = form.wrap(content)
        with translated_errors(str(self.target)):
            return await self.api.http.request(
                "PUT" if self.form is None else "POST",
                self.target,
                headers=headers,
                content=content,
                timeout=_RESPONSE_SECONDS,
            )

    async def _content(self) -> AsyncGenerator[bytes]:
        chunk = bytes(PROBE_BYTES // _CHUNKS)
        for number in range(_CHUNKS):
            if number == _CHUNKS // 2:
                await self._check_first_half()
            yield chunk

    async def _check_first_half(self) -> None:
        """Wait until the server reports a byte, or the end of the upload."""
        began = monotonic()
        with anyio.move_on_after(self.timeout_seconds):
            while True:
                self._half = await self.api.get(self.upload_id)
                if self._half.bytes_transferred:
                    self._passed_after = elapsed(began)
                    return
                if is_final(self._half.state):
                    return
                await anyio.sleep(_POLL_SECONDS)

    def _judge(self, response: httpx2.Response, end: UploadProgress) -> None:
        """Report what became of a probe that the endpoint has accepted."""
        if self._is_untracked(response):
            return
        half = format_size(PROBE_BYTES // 2)
        ago = f"{half} were sent {self.timeout_seconds:.0f} s ago"
        if self._passed_after is not None:
            found = f"passes as it is sent; received by the server within {self._passed_after}"
            self.report.finding("upload", found)
        elif self._half is not None and self._half.state is UploadState.RECEIVING:
            found = f"READ LATE: {ago}; the request has arrived, and the endpoint has read none"
            self.report.problem(Cause.READS_LATE, "upload", found)
        elif end.state is UploadState.PENDING:
            found = "LOST: the endpoint accepted it, and its progress is not found"
            self.report.problem(Cause.OTHER_TRACKER, "upload", found)
        else:
            found = f"BUFFERED: {ago}, and the server has received none of them"
            found = f"{found}; no proxy obeys Incremental: ?1 (RFC 10036)"
            self.report.problem(Cause.REQUEST_BUFFERING, "upload", found)

    def _is_untracked(self, response: httpx2.Response) -> bool:
        """Report why the response is that of an upload that is not tracked, if it is."""
        if "upload-id" in response.headers:
            return False
        reason = response.headers.get("upload-diagnosis", "")
        cause = _UNTRACKED.get(reason, Cause.MIDDLEWARE_MISSING)
        found = f"NOT TRACKED: the endpoint answered {response.status_code}, without an Upload-Id"
        self.report.problem(cause, "upload", found)
        return True

    def _judge_refusal(self, response: httpx2.Response) -> None:
        """Report what became of a probe that was refused.

        Raises:
            NotAllowed: The endpoint denies access.
        """
        failure = FailedResponse.from_response(response, response.content)
        error = upload_error(failure, str(self.target))
        if isinstance(error, NotAllowed):
            raise error
        proxies = proxies_in(response.headers) if "upload-id" not in response.headers else ()
        if not proxies and self._is_untracked(response) and self.is_guess:
            return
        if self.is_guess:
            self.report.finding("upload", "not checked: give the path of an endpoint to check it")
            return
        by = f" by {', '.join(sorted(proxies))}" if proxies else ""
        found = f"REFUSED{by}: {response.status_code} {failure.detail}{_advice(failure, proxies)}"
        self.report.problem(Cause.REFUSED, "upload", found)


def _advice(failure: FailedResponse, proxies: Collection[str]) -> str:
    if failure.status in _NO_ENDPOINT:
        return "; if it takes forms, use --form FIELD, else give the URL of an endpoint"
    if failure.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and "nginx" in proxies:
        return "; set client_max_body_size"
    return ""
