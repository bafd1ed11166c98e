"""The client for code that awaits, on asyncio and trio."""

import ssl
from collections.abc import AsyncGenerator, Callable, Collection
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Final, Self

import httpx2
from attrs import define, field

from upload_progress._model.models import (
    Metadata,
    UploadPage,
    UploadProgress,
    UploadState,
    new_upload_id,
)
from upload_progress.client.api import Calls
from upload_progress.client.files import Source, open_source
from upload_progress.client.retry import Patience
from upload_progress.client.upload import Sending, Sent
from upload_progress.client.urls import Address, mount_of, read_url, target_of
from upload_progress.client.watch import Watching
from upload_progress.exceptions import InvalidValue, UploadEnded

__all__ = [
    "FIRST_PAUSE_SECONDS",
    "RETRIES",
    "AsyncProgressClient",
    "ignore",
]

RETRIES: Final = 5
FIRST_PAUSE_SECONDS: Final = 0.5
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_PAGE: Final = "1000"


def ignore(_value: object) -> None:
    """Do nothing with what one is told."""


@define(eq=False, repr=False)
class AsyncProgressClient:
    """Sends uploads to one server, and follows them.

    Enter it with ``async with``: leaving closes its connections.

    Attributes:
        url: Where the progress routes are mounted, such as ``https://host/uploads``; for a bare
            ``https://host`` that is ``/uploads``. User and password in it are used, and not shown.
        token: A bearer token.
        basic: User and password, for HTTP Basic.
        verify: How the server's certificate is checked: a context of ``ssl``, or not at all.
        retries: How many failures of the network in a row are borne.
        first_pause_seconds: About how long to wait after the first; it doubles with each.
        http: A client of your own, which is used instead of one made from these, and not closed.
        calls: What it asks the server with.
    """

    url: str
    token: str | None = field(default=None, kw_only=True)
    basic: tuple[str, str] | None = field(default=None, kw_only=True)
    verify: ssl.SSLContext | bool = field(default=True, kw_only=True)
    retries: int = field(default=RETRIES, kw_only=True)
    first_pause_seconds: float = field(default=FIRST_PAUSE_SECONDS, kw_only=True)
    http: httpx2.AsyncClient | None = field(default=None, kw_only=True)
    calls: Calls = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Read the URL, and take what is secret out of it.

        Raises:
            InvalidValue: It is none.
        """
        address = read_url(self.url)
        self.url = address.text
        http = self.http or self._made(address)
        self.calls = Calls(http, mount_of(address.url))

    def _made(self, address: Address) -> httpx2.AsyncClient:
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        basic = self.basic or address.basic
        # An Authorization header would be overwritten by it.
        auth = basic if self.token is None else None
        return httpx2.AsyncClient(headers=headers, auth=auth, verify=self.verify, timeout=_TIMEOUT)

    async def __aenter__(self) -> Self:
        """Use it, and close its connections when the block ends."""
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        """Close what is its own."""
        if self.http is None:
            await self.calls.http.aclose()

    async def create(
        self,
        *,
        filename: str | None = None,
        total_bytes: int | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
    ) -> UploadProgress:
        """Announce an upload; send it under the id of the snapshot that comes back.

        Raises:
            InvalidValue: The server does not accept a value.
            NotAllowed: The server does not let us.
            ServerBusy: There are too many.
            ServerUnreachable: No answer came.
            UnexpectedAnswer: Something else answers there.
        """
        announcement = {
            "filename": filename,
            "total_bytes": total_bytes,
            "content_type": content_type,
            "group": group,
            "metadata": metadata,
        }
        return await self.calls.create(announcement)

    async def put(
        self,
        path: str | PathLike[str],
        url: str,
        *,
        upload_id: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
        content_type: str | None = None,
        chunk_bytes: int | None = None,
        on_progress: Callable[[UploadProgress], object] = ignore,
        on_sent: Callable[[int], object] = ignore,
    ) -> Sent:
        """Send a file, and return when the server has taken it.

        A lost connection is made again. What the server says that it keeps is not sent again.

        Args:
            path: The file.
            url: Where to put it; with ``/`` at its end the file's name is added. Our credentials
                go there as well.
            upload_id: Under which id, such as that of ``create()``; a fresh one without.
            group: What it belongs to.
            metadata: What is to be kept with it; it is announced first, under an id of the
                server's.
            content_type: What it is; guessed from its name without.
            chunk_bytes: Send requests of that many bytes, with ``Content-Range``, to a server that
                puts them together.
            on_progress: Called with each new snapshot, the server's word.
            on_sent: Called with how many bytes were handed to the network.

        Raises:
            UploadRejected: The server, or its application, does not take it.
            UploadCancelled: Its owner has cancelled it.
            NotAllowed: The server does not let us.
            ServerUnreachable: There was no server, or no more, for longer than we are patient.
            ServerBusy: It had no time, for longer than we are patient.
            UnexpectedAnswer: It points elsewhere.
            InvalidValue: The file cannot be read, or an argument makes no sense.
        """
        if chunk_bytes is not None and chunk_bytes <= 0:
            raise InvalidValue("chunk_bytes", "must be above zero")
        address = read_url(url)
        source = await open_source(Path(path), content_type)
        if metadata is not None:
            upload_id = await self._announced(source, group, metadata)
        name = new_upload_id() if upload_id is None else upload_id
        # It also says whether that is an id at all.
        self.calls.upload_url(name)
        return await Sending(
            self.calls,
            source,
            target_of(address.url, PurePosixPath(source.name)),
            name,
            self._patience(),
            may_exist=upload_id is not None,
            headers={} if group is None else {"upload-group": group},
            auth=address.basic,
            chunk_bytes=chunk_bytes,
            on_progress=on_progress,
            on_sent=on_sent,
        ).run()

    async def _announced(self, source: Source, group: str | None, metadata: Metadata) -> str:
        announced = await self.create(
            filename=source.name,
            total_bytes=source.size_bytes,
            content_type=source.content_type,
            group=group,
            metadata=metadata,
        )
        return announced.upload_id

    def watch(
        self, upload_id: str | None = None, *, group: str | None = None
    ) -> AsyncGenerator[UploadProgress]:
        """Follow one upload to its end, or all of the caller's without end.

        Each snapshot tells all; the first comes at once. Leave a loop early with ``aclosing``.

        Args:
            upload_id: Which one; all without.
            group: Where it is all: only those of this group.

        Raises:
            UploadNotFound: There is no such upload, or it is somebody else's.
            NotAllowed: The server does not let us.
            ServerUnreachable: There was no server, or no more, for longer than we are patient.
            ServerBusy: It had no time, for longer than we are patient.
            UnexpectedAnswer: Something else answers there.
        """
        filters = {} if group is None else {"group": group}
        watching = Watching(self.calls, self._patience(), upload_id=upload_id, filters=filters)
        return watching.snapshots()

    async def get(self, upload_id: str) -> UploadProgress:
        """Return where an upload stands now.

        Raises:
            UploadNotFound: There is no such upload, or it is somebody else's.
            NotAllowed: The server does not let us.
            ServerUnreachable: No answer came.
            UnexpectedAnswer: Something else answers there.
        """
        return await self.calls.snapshot(upload_id)

    async def list(
        self, *, states: Collection[UploadState] = (), group: str | None = None
    ) -> UploadPage:
        """Return the caller's uploads, newest first, and their sum.

        Args:
            states: Only those; without, the open ones and those that ended in the last minutes.
            group: Only those of this group.

        Raises:
            UploadNotFound: Whose uploads are known by their id alone have no list.
            NotAllowed: The server does not let us.
            ServerUnreachable: No answer came.
            UnexpectedAnswer: Something else answers there.
        """
        filters = {"limit": _PAGE}
        if states:
            filters["state"] = ",".join(states)
        if group is not None:
            filters["group"] = group
        page = await self.calls.page(filters)
        uploads = page.uploads
        while page.next is not None:
            page = await self.calls.page({**filters, "cursor": page.next})
            uploads += page.uploads
        return UploadPage(uploads, page.total)

    async def cancel(self, upload_id: str) -> UploadProgress:
        """Cancel an upload; its running transfer is cut, wherever it runs.

        Raises:
            UploadNotFound: There is no such upload, or it is somebody else's.
            UploadEnded: It has ended otherwise.
            NotAllowed: The server does not let us.
            ServerUnreachable: No answer came.
            UnexpectedAnswer: Something else answers there.
        """
        try:
            return await self.calls.cancel(upload_id)
        except UploadEnded:
            ended = await self.calls.snapshot(upload_id)
            raise UploadEnded(ended.state) from None

    def _patience(self) -> Patience:
        return Patience(self.retries, self.first_pause_seconds)
