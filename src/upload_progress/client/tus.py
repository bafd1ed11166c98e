"""Sending a file by tus 1.0.0, which lets a server keep what it has received of it.

A ``POST`` creates the upload at an address of its own. ``PATCH`` appends to it, and after a failure
``HEAD`` tells how many bytes the server has.

Source: https://tus.io/protocols/resumable-upload (core and creation).
"""

from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx2
from attrs import frozen

from upload_progress.client.api import translated_errors
from upload_progress.client.files import FileSource, StreamSource
from upload_progress.client.responses import FailedResponse, upload_error
from upload_progress.exceptions import ServerBusy, ServerUnreachable, UnexpectedResponse

__all__ = ["RETRY_STATUSES", "TusResource"]

RETRY_STATUSES: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.LOCKED, 460})
"""The server has another offset, still holds the earlier request, or received a wrong checksum."""
_VERSION: Final = {"tus-resumable": "1.0.0"}


@frozen(eq=False, repr=False)
class TusResource:
    """An upload that a server of tus has created.

    Attributes:
        http: The HTTP client.
        url: The address of the upload.
    """

    http: httpx2.AsyncClient
    url: httpx2.URL

    @classmethod
    async def create(
        cls,
        http: httpx2.AsyncClient,
        target: httpx2.URL,
        source: FileSource | StreamSource,
        headers: Mapping[str, str],
    ) -> "TusResource | FailedResponse":
        """Create an upload for *source* at *target*; return it, or the response that refuses it.

        Raises:
            UnexpectedResponse: The response contains no address, or one at another origin.
            ServerUnreachable: The connection failed.
        """
        described = {"filename": source.name, "filetype": source.content_type}
        pairs = (f"{key} {b64encode(text.encode()).decode()}" for key, text in described.items())
        sent = {
            **_VERSION,
            **headers,
            "content-length": "0",
            "upload-length": str(source.size_bytes),
            "upload-metadata": ",".join(pairs),
        }
        with translated_errors(str(target)):
            response = await http.post(target, headers=sent)
        if not response.is_success:
            return FailedResponse.from_response(response, response.content)
        location = response.headers.get("location")
        if location is None:
            problem = f"answered {response.status_code} without Location: no uploads by tus there"
            raise UnexpectedResponse(str(target), problem)
        url = target.join(location)
        if (url.scheme, url.netloc) != (target.scheme, target.netloc):
            # The credentials are for the target only.
            problem = f"created the upload at another origin: {url.scheme}://{url.host}"
            raise UnexpectedResponse(str(target), problem)
        return cls(http, url)

    def headers(self, offset: int) -> dict[str, str]:
        """Return the headers of a request that appends at *offset*."""
        content_type = "application/offset+octet-stream"
        return {**_VERSION, "content-type": content_type, "upload-offset": str(offset)}

    async def offset(self) -> int | None:
        """Return how many bytes the server has; None if it does not have the upload any more.

        Raises:
            ServerBusy: The server, or a proxy before it, cannot tell now.
            ServerUnreachable: Likewise.
        """
        response = await self.http.head(self.url, headers=_VERSION)
        if not response.is_success:
            failure = FailedResponse.from_response(response, b"")
            error = upload_error(failure, str(self.url))
            if isinstance(error, (ServerBusy, ServerUnreachable)):
                raise error
        offset = response.headers.get("upload-offset", "")
        return int(offset) if response.is_success and offset.isdecimal() else None
