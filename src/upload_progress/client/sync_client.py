"""The client for blocking code: runs the asynchronous client on an event loop in a thread."""

import ssl
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from os import PathLike
from types import TracebackType
from typing import BinaryIO, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define, field

from upload_progress._model.models import Metadata, UploadPage, UploadProgress, UploadState
from upload_progress.client.async_client import (
    FIRST_DELAY_SECONDS,
    RETRIES,
    AsyncProgressClient,
    Auth,
)
from upload_progress.client.retry import Retry, ignore
from upload_progress.client.upload import Resumption, UploadResult

__all__ = ["ProgressClient"]


@define(eq=False, repr=False)
class ProgressClient(AbstractContextManager["ProgressClient"]):
    """Sends uploads to one server, and watches, lists and cancels them; blocks meanwhile.

    Enter it with ``with``: the block runs an event loop in a thread of its own, and leaving it
    closes the connections. The callbacks ``on_progress`` and ``on_sent`` run in that thread.

    Example:
        ```python
        with ProgressClient("https://host/uploads", auth=("ann", password)) as client:
            result = client.put("app.tar.gz", "https://host/files/")
            for snapshot in client.watch(result.upload_id):
                print(snapshot.state, snapshot.bytes_transferred)
        ```

    Attributes:
        url: URL where the progress routes are mounted; see ``AsyncProgressClient``, as for all
            of these attributes.
        token: Bearer token. Default None.
        auth: User name and password for HTTP Basic, or an ``httpx2.Auth``. Default None.
        verify: How the server's certificate is checked. Default True.
        retries: Number of consecutive network failures after which a call gives up. Default 5.
        first_delay_seconds: Delay in seconds after the first failure. Default 0.5.
        headers: Further headers of every request. Default: none.

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
    _client: AsyncProgressClient = field(init=False)
    _portal: BlockingPortal = field(init=False)
    _stack: ExitStack = field(factory=ExitStack, init=False)

    def __attrs_post_init__(self) -> None:
        """Create the asynchronous client, which parses the URL."""
        self._client = AsyncProgressClient(
            self.url,
            token=self.token,
            auth=self.auth,
            verify=self.verify,
            retries=self.retries,
            first_delay_seconds=self.first_delay_seconds,
            headers=self.headers,
        )
        self.url = self._client.url

    def __enter__(self) -> Self:
        """Start the event loop."""
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal("asyncio"))
            stack.enter_context(self._portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections, cancel the running calls, and stop the event loop."""
        self._stack.__exit__(exc_type, exc, traceback)

    def create(
        self,
        *,
        filename: str | None = None,
        total_bytes: int | None = None,
        content_type: str | None = None,
        group: str | None = None,
        metadata: Metadata | None = None,
    ) -> UploadProgress:
        """Announce an upload; see ``AsyncProgressClient.create``."""
        return self._portal.call(
            partial(
                self._client.create,
                filename=filename,
                total_bytes=total_bytes,
                content_type=content_type,
                group=group,
                metadata=metadata,
            )
        )

    def put(
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
        """Upload a file; see ``AsyncProgressClient.put``."""
        return self._portal.call(
            partial(
                self._client.put,
                path,
                url,
                upload_id=upload_id,
                group=group,
                metadata=metadata,
                content_type=content_type,
                chunk_bytes=chunk_bytes,
                form=form,
                tus=tus,
                tus_url=tus_url,
                on_progress=on_progress,
                on_sent=on_sent,
                on_retry=on_retry,
                on_resume=on_resume,
                on_created=on_created,
            )
        )

    def watch(
        self, upload_id: str | None = None, *, group: str | None = None, wait: bool = False
    ) -> Generator[UploadProgress]:
        """Yield snapshots of uploads; see ``AsyncProgressClient.watch``."""
        snapshots = self._client.watch(upload_id, group=group, wait=wait)
        try:
            while (progress := self._portal.call(_next, snapshots)) is not None:
                yield progress
        except GeneratorExit:
            self._portal.call(snapshots.aclose)
            raise

    def get(self, upload_id: str) -> UploadProgress:
        """Return the current snapshot of an upload; see ``AsyncProgressClient.get``."""
        return self._portal.call(self._client.get, upload_id)

    def list(
        self,
        *,
        states: Collection[UploadState] = (),
        group: str | None = None,
        owner: str | None = None,
    ) -> UploadPage:
        """Return the caller's uploads; see ``AsyncProgressClient.list``."""
        return self._portal.call(
            partial(self._client.list, states=states, group=group, owner=owner)
        )

    def cancel(self, upload_id: str) -> UploadProgress:
        """Cancel an upload; see ``AsyncProgressClient.cancel``."""
        return self._portal.call(self._client.cancel, upload_id)


async def _next(snapshots: AsyncGenerator[UploadProgress]) -> UploadProgress | None:
    return await anext(snapshots, None)
