"""The client for asynchronous code, on asyncio and trio."""

import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from functools import partial
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Self
from urllib.request import getproxies

import httpx2
from attrs import define, field

from upload_progress._model.fold import sum_of
from upload_progress._model.models import (
    Metadata,
    UploadPage,
    UploadProgress,
    UploadState,
    new_upload_id,
)
from upload_progress.client.api import LazyTransport, ProgressApi
from upload_progress.client.files import FileSource, StreamSource, open_file
from upload_progress.client.retry import Retry, RetryPolicy, ignore
from upload_progress.client.upload import FileUpload, Resumption, UploadResult
from upload_progress.client.urls import ServerUrl, mount_url, parse_url, target_url
from upload_progress.client.watch import WatchLoop
from upload_progress.exceptions import InvalidValue, UploadEnded

__all__ = ["FIRST_DELAY_SECONDS", "RETRIES", "AsyncProgressClient", "Auth"]

Auth = tuple[str, str] | httpx2.Auth

RETRIES: Final = 5
FIRST_DELAY_SECONDS: Final = 0.5
_Source = FileSource | StreamSource
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_PAGE_SIZE: Final = "1000"


@define(eq=False, repr=False)
class AsyncProgressClient:
    """Sends uploads to one server, and watches, lists and cancels them.

    Enter it with ``async with``: leaving the block closes its connections.

    Example:
        ```python
        async with AsyncProgressClient("https://host/uploads", auth=("ann", password)) as client:
            result = await client.put("app.tar.gz", "https://host/files/")
            print(result.upload_id, result.status)
        ```

    Attributes:
        url: URL where the progress routes are mounted, such as ``https://host/uploads``; for a
            URL without a path ``/uploads`` is added. User name and password in the URL are used
            for HTTP Basic, and removed from this attribute.
        token: Bearer token (RFC 6750). Default None: none is sent.
        auth: User name and password for HTTP Basic (RFC 7617), or any ``httpx2.Auth``, such as
            ``httpx2.NetRCAuth()``. Default None: the credentials in the URL. Not used together
            with ``token``.
        verify: True (default) checks the server's certificate against the certificates of the
            system; False does not check it; an ``ssl.SSLContext`` checks it in its own way.
        retries: Number of consecutive network failures after which a call gives up. Default 5.
        first_delay_seconds: Delay in seconds after the first failure. It doubles with each
            further failure, up to 30 s, and is shortened by up to a half at random. Default 0.5.
        headers: Further headers of every request. Default: none.
        http: HTTP client to use instead of an own one. It is not closed, and ``token``, ``auth``,
            ``verify`` and ``headers`` do not apply to it. Default None.
        api: The endpoints that the client calls.

    Raises:
        InvalidValue: The URL is not a valid HTTP URL.
    """

    url: str
    token: str | None = field(default=None, kw_only=True)
    auth: Auth | None = field(default=None, kw_only=True)
    verify: ssl.SSLContext | bool = field(default=True, kw_only=True)
    retries: int = field(default=RETRIES, kw_only=True)
    first_delay_seconds: float = field(default=FIRST_DELAY_SECONDS, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict, kw_only=True, repr=False)
    http: httpx2.AsyncClient | None = field(default=None, kw_only=True)
    api: ProgressApi = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Parse the URL, and remove the credentials from it."""
        server = parse_url(self.url)
        self.url = str(server)
        self.api = ProgressApi(self.http or self._create_http(server), mount_url(server.url))

    def _create_http(self, server: ServerUrl) -> httpx2.AsyncClient:
        token = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        headers = {**self.headers, **token}
        # Basic credentials would replace the Authorization header with the token.
        auth = (self.auth or server.credentials) if self.token is None else None
        create = partial(httpx2.AsyncClient, headers=headers, auth=auth, timeout=_TIMEOUT)
        if self.verify is not True or getproxies():
            return create(verify=self.verify)
        # Requests to http:// need no certificates. All others check those of the server.
        plain = httpx2.AsyncHTTPTransport(verify=False)
        return create(transport=LazyTransport(), mounts={"http://": plain})

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        """Close the connections, unless they belong to the caller's HTTP client."""
        if self.http is None:
            await self.api.http.aclose()

    async def create(
        self,
        *,
        filename: str | None = None,
        total_bytes: int | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
    ) -> UploadProgress:
        """Announce an upload, and return its snapshot with the id to upload it under.

        Args:
            filename: Name of the file. Default None: unknown.
            total_bytes: Size of the file in bytes. Default None: unknown.
            content_type: Media type of the file. Default None: unknown.
            group: Group that the upload belongs to, such as a release. Default None.
            metadata: JSON object that is kept with the upload. Default None.

        Raises:
            InvalidValue: The server rejects one of the values.
            NotAllowed: The server denies access.
            ServerBusy: Too many uploads are announced.
            ServerUnreachable: The server cannot be reached.
            UnexpectedResponse: The response is not one of the progress API.
        """
        description = {
            "filename": filename,
            "total_bytes": total_bytes,
            "content_type": content_type,
            "group": group,
            "metadata": metadata,
        }
        return await self.api.create(description)

    async def put(
        self,
        path: str | PathLike[str] | BinaryIO,
        url: str,
        *,
        upload_id: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
        content_type: str | None = None,
        chunk_bytes: int | None = None,
        form: str | None = None,
        tus: bool = False,
        tus_url: str | None = None,
        on_progress: Callable[[UploadProgress], object] = ignore,
        on_sent: Callable[[int], object] = ignore,
        on_retry: Callable[[Retry], object] = ignore,
        on_resume: Callable[[Resumption], object] = ignore,
        on_created: Callable[[str, str], object] = ignore,
    ) -> UploadResult:
        """Upload a file with ``PUT``, and return when the server has accepted it.

        A lost connection is retried. Bytes that the server has kept are not sent again.

        Args:
            path: The file; or an open stream, which is read once up to its end, and cannot be
                sent again after a failure.
            url: URL to send it to; if it ends with ``/``, the file name is appended, unless
                *form*, *tus* or a stream is given. The credentials of the client are sent there
                as well.
            upload_id: Id of the upload, such as that of ``create()``. Default None: a new id.
            group: Group that the upload belongs to. Default None.
            metadata: JSON object that is kept with the upload. It is announced first, under an
                id that the server chooses. Default None.
            content_type: Media type of the file. Default None: guessed from the file name.
            chunk_bytes: Size of each request in bytes, for a server that assembles requests with
                ``Content-Range`` and confirms each (308 with ``Range``, or ``Upload-Offset``).
                Default None: one request.
            form: Send the file with ``POST`` as a form (RFC 7578), in the field of this name. It is
                sent again only if the server has reported that it has failed. Default None.
            tus: Send the file by tus 1.0.0: *url* creates uploads. After a failure, the bytes that
                the server has are not sent again. Default False.
            tus_url: Address of an upload that *on_created* has told an earlier call with the same
                file, which goes on where the server is. A server that no longer has it creates
                another one. Default None.
            on_progress: Called with each new snapshot of the upload at the server.
            on_sent: Called with the number of bytes that were handed to the network.
            on_retry: Called with each failure after which the client tries again, before it waits.
            on_resume: Called before bytes are sent again after a failure: from which offset.
            on_created: Called with the address of an upload that tus has created, and its id.

        Raises:
            UploadRejected: The server or its application rejected the upload.
            UploadCancelled: The owner cancelled the upload.
            NotAllowed: The server denies access.
            ServerUnreachable: The server was unreachable, and no retry is left.
            ServerBusy: The server was busy, and no retry is left.
            UnexpectedResponse: The server answered with a redirect, or does not confirm parts.
            InvalidValue: The file cannot be read, or an argument is not valid.
        """
        target = parse_url(url)
        source = await _open_source(path, content_type)
        _check_protocol(source, chunk_bytes, form, uses_tus=tus)
        return await FileUpload(
            self.api,
            source,
            _target(target.url, source, form, uses_tus=tus),
            await self._used_id(upload_id, source, group, metadata),
            RetryPolicy.create(self.retries, self.first_delay_seconds, on_retry),
            may_exist=(upload_id, metadata) != (None, None),
            headers={} if group is None else {"upload-group": group},
            auth=target.credentials,
            chunk_bytes=chunk_bytes,
            form=form,
            uses_tus=tus,
            tus_url=_created_before(tus_url, target.url, uses_tus=tus),
            on_progress=on_progress,
            on_sent=on_sent,
            on_resume=on_resume,
            on_created=on_created,
        ).run()

    async def _used_id(
        self, upload_id: str | None, source: _Source, group: str | None, metadata: Metadata | None
    ) -> str:
        """Return the given id, that of the announced upload, or a new one.

        Raises:
            InvalidValue: The id is not valid.
        """
        if metadata is not None:
            return await self._announce(source, group, metadata)
        used_id = new_upload_id() if upload_id is None else upload_id
        self.api.upload_url(used_id)  # raises InvalidValue
        return used_id

    async def _announce(self, source: _Source, group: str | None, metadata: Metadata) -> str:
        announced = await self.create(
            filename=source.name,
            total_bytes=source.size_bytes,
            content_type=source.content_type,
            group=group,
            metadata=metadata,
        )
        return announced.upload_id

    def watch(
        self, upload_id: str | None = None, *, group: str | None = None, wait: bool = False
    ) -> AsyncGenerator[UploadProgress]:
        """Yield snapshots of one upload until it ends, or of all the caller's uploads forever.

        The first snapshot is yielded at once. Use ``contextlib.aclosing`` to leave the loop
        early.

        Args:
            upload_id: Id of the upload. Default None: all of the caller's uploads.
            group: Without ``upload_id``: only uploads of this group. Default None: all.
            wait: With ``upload_id``: wait until the upload exists. Default False.

        Raises:
            UploadNotFound: The upload does not exist or belongs to another owner.
            NotAllowed: The server denies access.
            ServerUnreachable: The server was unreachable, and no retry is left.
            ServerBusy: The server was busy, and no retry is left.
            UnexpectedResponse: The response is not one of the progress API.
        """
        filters = {} if group is None else {"group": group}
        return WatchLoop(
            self.api, self._retry(), upload_id=upload_id, filters=filters, may_begin_later=wait
        ).snapshots()

    async def get(self, upload_id: str) -> UploadProgress:
        """Return the current snapshot of an upload.

        Raises:
            UploadNotFound: The upload does not exist or belongs to another owner.
            NotAllowed: The server denies access.
            ServerUnreachable: The server cannot be reached.
            UnexpectedResponse: The response is not one of the progress API.
        """
        return await self.api.get(upload_id)

    async def list(
        self,
        *,
        states: Collection[UploadState] = (),
        group: str | None = None,
        owner: str | None = None,
    ) -> UploadPage:
        """Return the caller's uploads, newest first, and their total.

        Args:
            states: Only uploads in these states. Default: the open ones, and those that have
                ended within the last minutes.
            group: Only uploads of this group. Default None: all.
            owner: For operators: whose uploads; ``*`` for the open uploads of all owners. Their
                ``owner`` is set then. Default None: the caller's.

        Raises:
            UploadNotFound: The server identifies uploads by their id only and has no list.
            NotAllowed: The server denies access.
            ServerUnreachable: The server cannot be reached.
            UnexpectedResponse: The response is not one of the progress API.
        """
        filters = {"limit": _PAGE_SIZE}
        if states:
            filters["state"] = ",".join(states)
        if group is not None:
            filters["group"] = group
        if owner is not None:
            filters["owner"] = owner
        page = await self.api.list_page(filters)
        uploads, total = page.uploads, page.total
        while page.next is not None:
            page = await self.api.list_page({**filters, "cursor": page.next})
            uploads += page.uploads
        return UploadPage(uploads, sum_of(uploads) if owner == "*" else total)

    async def cancel(self, upload_id: str) -> UploadProgress:
        """Cancel an upload, and return its snapshot; the server closes its running request.

        Raises:
            UploadNotFound: The upload does not exist or belongs to another owner.
            UploadEnded: The upload has completed or failed before.
            NotAllowed: The server denies access.
            ServerUnreachable: The server cannot be reached.
            UnexpectedResponse: The response is not one of the progress API.
        """
        try:
            return await self.api.cancel(upload_id)
        except UploadEnded:
            ended = await self.api.get(upload_id)
            raise UploadEnded(ended.state) from None

    def _retry(self) -> RetryPolicy:
        return RetryPolicy.create(self.retries, self.first_delay_seconds)


async def _open_source(path: str | PathLike[str] | BinaryIO, content_type: str | None) -> _Source:
    if isinstance(path, (str, PathLike)):
        return await open_file(Path(path), content_type)
    return StreamSource(path, content_type or "application/octet-stream")


def _check_protocol(
    source: _Source, chunk_bytes: int | None, form: str | None, *, uses_tus: bool
) -> None:
    """Check that the ways to send a file do not contradict each other."""
    if chunk_bytes is not None and chunk_bytes <= 0:
        raise InvalidValue("chunk_bytes", "must be greater than zero")
    if form is not None and (uses_tus or chunk_bytes is not None):
        raise InvalidValue("form", "is sent in one request: neither tus nor chunk_bytes apply")
    if source.size_bytes is None and (uses_tus or chunk_bytes is not None):
        raise InvalidValue("path", "is a stream, which is sent in one request")


def _created_before(
    tus_url: str | None, target: httpx2.URL, *, uses_tus: bool
) -> httpx2.URL | None:
    if tus_url is None:
        return None
    url = parse_url(tus_url).url
    # The credentials are for the target only.
    if not uses_tus or (url.scheme, url.netloc) != (target.scheme, target.netloc):
        raise InvalidValue("tus_url", "is an address that tus has created at the origin of the URL")
    return url


def _target(url: httpx2.URL, source: _Source, form: str | None, *, uses_tus: bool) -> httpx2.URL:
    if uses_tus or form is not None or source.size_bytes is None:
        return url
    return target_url(url, PurePosixPath(source.name))
