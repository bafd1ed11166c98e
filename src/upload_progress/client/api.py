"""The endpoints of the progress API, as functions that return decoded snapshots or raise."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final

import httpx2
from attrs import frozen
from msgspec import DecodeError, json

from upload_progress._model.api_types import EdgeAccess, Ticket
from upload_progress._model.codec import decode_page, decode_progress, encode_json
from upload_progress._model.models import UploadPage, UploadProgress, is_upload_id
from upload_progress.client.responses import FailedResponse, api_error, network_error
from upload_progress.client.urls import DEFAULT_MOUNT
from upload_progress.exceptions import InvalidValue, ServerUnreachable, UnexpectedResponse

__all__ = [
    "MAX_CONTENT_BYTES",
    "STREAM_READ_SECONDS",
    "LazyTransport",
    "ProgressApi",
    "read_content",
    "translated_errors",
]

MAX_CONTENT_BYTES: Final = 16_384
STREAM_READ_SECONDS: Final = 40.0
"""Read timeout of an event stream; the server sends a heartbeat every 15 s."""
_STREAM_TIMEOUT: Final = httpx2.Timeout(10.0, read=STREAM_READ_SECONDS)
_ACCEPT_JSON: Final = {"accept": "application/json"}


class LazyTransport(httpx2.AsyncBaseTransport):
    """The transport of httpx2, created by its first request.

    It loads all certificates of the system, which takes an eighth of the start of a command.
    """

    def __init__(self) -> None:
        self._created: httpx2.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        if self._created is None:
            self._created = httpx2.AsyncHTTPTransport()
        return await self._created.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._created is not None:
            await self._created.aclose()


@frozen(eq=False, repr=False)
class ProgressApi:
    """The progress API under one mount point.

    Attributes:
        http: The HTTP client that sends the requests.
        mount: URL of the mount point.
    """

    http: httpx2.AsyncClient
    mount: httpx2.URL

    @property
    def address(self) -> str:
        """The mount point as text, for error messages."""
        return str(self.mount)

    def url(self, *segments: str) -> httpx2.URL:
        """Return the URL of a path below the mount point."""
        path = "/".join([self.mount.path.rstrip("/"), *segments])
        return self.mount.copy_with(path=path or DEFAULT_MOUNT)

    def upload_url(self, upload_id: str, *segments: str) -> httpx2.URL:
        """Return the URL of an upload.

        Raises:
            InvalidValue: The upload id is not valid.
        """
        if not is_upload_id(upload_id):
            raise InvalidValue("upload_id", "must be 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        return self.url(upload_id, *segments)

    async def create(self, description: Mapping[str, object]) -> UploadProgress:
        """Announce an upload; fields without a value are left out, but for a size of 0."""
        given = {name: value for name, value in description.items() if value or value == 0}
        content = encode_json(given)
        headers = {"content-type": "application/json"}
        return self._snapshot(
            await self._request("POST", self.mount, headers=headers, content=content)
        )

    async def get(self, upload_id: str) -> UploadProgress:
        """Return the current snapshot of an upload."""
        url = self.upload_url(upload_id, "progress")
        return self._snapshot(await self._request("GET", url, headers=_ACCEPT_JSON))

    async def cancel(self, upload_id: str) -> UploadProgress:
        """Cancel an upload and return its snapshot."""
        return self._snapshot(await self._request("DELETE", self.upload_url(upload_id)))

    async def list_page(self, filters: Mapping[str, str]) -> UploadPage:
        """Return one page of the caller's uploads."""
        url = self.url("progress")
        response = await self._request("GET", url, params=filters, headers=_ACCEPT_JSON)
        try:
            return decode_page(response.content)
        except InvalidValue as error:
            problem = f"did not return a list of uploads: {error.problem}"
            raise UnexpectedResponse(self.address, problem) from None

    def _snapshot(self, response: httpx2.Response) -> UploadProgress:
        try:
            return decode_progress(response.content)
        except InvalidValue as error:
            problem = f"did not return a snapshot: {error.problem}"
            raise UnexpectedResponse(self.address, problem) from None

    async def _request(
        self,
        method: str,
        url: httpx2.URL,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        with translated_errors(self.address):
            response = await self.http.request(
                method, url, headers=headers, params=params, content=content
            )
        if not response.is_success:
            error = FailedResponse.from_response(response, response.content)
            raise api_error(error, self.address)
        return response

    async def edge_access(self, target: Mapping[str, str]) -> EdgeAccess | None:
        """Return how to connect to the push server; None if what is followed is not there.

        Args:
            target: ``upload_id`` or ``group`` with its value; empty for all uploads.
        """
        headers = {"content-type": "application/json", **_ACCEPT_JSON}
        content = encode_json({"targets": [target] if target else []})
        response = await self._request(
            "POST", self.url("tickets"), headers=headers, content=content
        )
        try:
            return json.decode(response.content, type=Ticket).edge or None
        except DecodeError as error:
            problem = f"did not return a ticket: {error}"
            raise UnexpectedResponse(self.address, problem) from None

    @asynccontextmanager
    async def push_stream(self, access: EdgeAccess) -> AsyncGenerator[httpx2.Response]:
        """Connect to the push server and yield the response before its body is read."""
        url = self.mount.join(access.url)
        # Not built by the client: its credentials are for another server.
        request = httpx2.Request(
            "POST",
            url,
            content=encode_json({"token": access.token}),
            extensions={"timeout": _STREAM_TIMEOUT.as_dict()},
        )
        address = str(url.copy_with(path="/"))
        with translated_errors(address):
            response = await self.http.send(request, stream=True, auth=None, follow_redirects=False)
            async with aclosing(response):
                if not response.is_success:
                    raise ServerUnreachable(address, f"status {response.status_code}")
                yield response

    @asynccontextmanager
    async def stream(
        self,
        url: httpx2.URL,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> AsyncGenerator[httpx2.Response]:
        """Send a GET request and yield the response before its body is read."""
        with translated_errors(self.address):
            async with self.http.stream(
                "GET", url, params=params, headers=headers, timeout=_STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    error = FailedResponse.from_response(response, await read_content(response))
                    raise api_error(error, self.address)
                yield response


async def read_content(response: httpx2.Response) -> bytes:
    """Return the beginning of a response body: ``MAX_CONTENT_BYTES`` or one chunk more."""
    content = b""
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) >= MAX_CONTENT_BYTES:
                break
    return content


@contextmanager
def translated_errors(address: str) -> Iterator[None]:
    """Translate the errors of httpx2 into errors of this package.

    Args:
        address: The URL of the server, for the error message.

    Raises:
        ServerUnreachable: The connection failed or timed out.
        InvalidValue: A header or URL cannot be sent.
    """
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise InvalidValue("request", str(error)) from None
    except httpx2.TransportError as error:
        raise network_error(error, address) from None
