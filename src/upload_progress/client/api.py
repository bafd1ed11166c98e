"""The calls of the progress API, each a function from arguments to what it answers, or an error."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final

import httpx2
from attrs import frozen

from upload_progress._model.codec import decode_page, decode_progress, encode_json
from upload_progress._model.models import UploadPage, UploadProgress, is_upload_id
from upload_progress.client.responses import Refusal, failure_of, network_failure
from upload_progress.client.urls import DEFAULT_MOUNT
from upload_progress.exceptions import InvalidValue, UnexpectedAnswer

__all__ = [
    "HEARTBEAT_SECONDS",
    "MOST_ERROR_BYTES",
    "Calls",
    "reaching",
    "start_of",
]

MOST_ERROR_BYTES: Final = 16_384
HEARTBEAT_SECONDS: Final = 40.0
"""A stream that is silent for longer is dead: heartbeats come every 15 s."""
_STREAM_TIMEOUT: Final = httpx2.Timeout(10.0, read=HEARTBEAT_SECONDS)
_JSON: Final = {"accept": "application/json"}


@frozen(eq=False, repr=False)
class Calls:
    """What can be asked at a mount."""

    http: httpx2.AsyncClient
    mount: httpx2.URL

    @property
    def address(self) -> str:
        """Where the routes are, for people."""
        return str(self.mount)

    def url(self, *segments: str) -> httpx2.URL:
        """Return the URL of what is below the mount."""
        path = "/".join([self.mount.path.rstrip("/"), *segments])
        return self.mount.copy_with(path=path or DEFAULT_MOUNT)

    def upload_url(self, upload_id: str, *segments: str) -> httpx2.URL:
        """Return the URL of an upload.

        Raises:
            InvalidValue: It is no upload id.
        """
        if not is_upload_id(upload_id):
            raise InvalidValue("upload_id", "must be 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        return self.url(upload_id, *segments)

    async def create(self, announcement: Mapping[str, object]) -> UploadProgress:
        """Announce an upload."""
        content = encode_json({name: value for name, value in announcement.items() if value})
        headers = {"content-type": "application/json"}
        response = await self._ask("POST", self.mount, headers=headers, content=content)
        return self._snapshot(response)

    async def snapshot(self, upload_id: str) -> UploadProgress:
        """Return where an upload stands."""
        url = self.upload_url(upload_id, "progress")
        return self._snapshot(await self._ask("GET", url, headers=_JSON))

    async def cancel(self, upload_id: str) -> UploadProgress:
        """Cancel an upload."""
        return self._snapshot(await self._ask("DELETE", self.upload_url(upload_id)))

    async def page(self, filters: Mapping[str, str]) -> UploadPage:
        """Return one page of a list."""
        response = await self._ask("GET", self.url("progress"), params=filters, headers=_JSON)
        try:
            return decode_page(response.content)
        except InvalidValue as error:
            raise UnexpectedAnswer(self.address, f"answers no list: {error.problem}") from None

    def _snapshot(self, response: httpx2.Response) -> UploadProgress:
        try:
            return decode_progress(response.content)
        except InvalidValue as error:
            raise UnexpectedAnswer(self.address, f"answers no snapshot: {error.problem}") from None

    async def _ask(
        self,
        method: str,
        url: httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        with reaching(self.address):
            response = await self.http.request(
                method, url, headers=headers, params=params, content=content
            )
        if not response.is_success:
            raise failure_of(Refusal.of(response, response.content), self.address)
        return response

    @asynccontextmanager
    async def stream(
        self,
        url: httpx2.URL,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AsyncGenerator[httpx2.Response]:
        """Lend the answer of a GET before its body has come."""
        with reaching(self.address):
            async with self.http.stream(
                "GET", url, params=params, headers=headers, timeout=_STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    raise failure_of(Refusal.of(response, await start_of(response)), self.address)
                yield response


async def start_of(response: httpx2.Response) -> bytes:
    """Return the beginning of a body: enough for what an error says."""
    start = b""
    async with aclosing(response.aiter_bytes()) as pieces:
        async for transfer_head in pieces:
            start += transfer_head
            if len(start) >= MOST_ERROR_BYTES:
                break
    return start


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Say it in our words when *address* cannot be reached.

    Raises:
        ServerUnreachable: It cannot.
        InvalidValue: A header or an address cannot be sent.
    """
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise InvalidValue("request", str(error)) from None
    except httpx2.TransportError as error:
        raise network_failure(error, address) from None
