"""Answering how far uploads are: from this process where it receives them, else the store."""

from collections.abc import AsyncIterator, Collection
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define

from upload_progress._model.fold import fold, sum_of
from upload_progress._model.models import UploadKey, UploadPage, UploadProgress, UploadState
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.multi_request_upload import MultiRequestUpload
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import InvalidValue, StoreUnavailable, UploadNotFound
from upload_progress.interfaces import Clock, RecordPage, SessionStore

__all__ = [
    "MOST_LISTED",
    "RECENT_SECONDS",
    "Reader",
    "STORE_PAGE",
]

RECENT_SECONDS: Final = 300.0
STORE_PAGE: Final = 100
MOST_LISTED: Final = 10_000


@define(eq=False, repr=False)
class Reader:
    """Reads snapshots; changes nothing."""

    registry: Registry
    store: SessionStore
    breaker: CircuitBreaker
    clock: Clock
    mount_path: str

    async def get(self, key: UploadKey) -> UploadProgress:
        """Return the snapshot of *key*.

        Raises:
            UploadNotFound: There is none.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        live = self.registry.find(key.owner, key.upload_id)
        if live is not None:
            return await self._live(live, key)
        records = await self.breaker.call(lambda: self.store.load(key))
        progress = fold(records, now=self.clock.time(), mount_path=self.mount_path)
        if progress is None:
            raise UploadNotFound
        return progress

    async def _live(self, live: LiveUpload, key: UploadKey) -> UploadProgress:
        if isinstance(live, MultiRequestUpload) or not live.has_prior_state:
            try:
                records = await self.breaker.call(lambda: self.store.load(key))
            except StoreUnavailable:
                return live.snapshot()
            live.load_prior_state(records)
            if isinstance(live, MultiRequestUpload):
                live.learn(records)
        return live.snapshot()

    async def list(
        self,
        owner: str,
        *,
        states: Collection[UploadState] | None,
        group: str | None,
        cursor: str | None,
        limit: int,
    ) -> UploadPage:
        """Return a page of the uploads of *owner*, newest first, and the sum over all pages.

        Args:
            owner: Whose.
            states: Only these; None for the open ones and those that ended a short while ago.
            group: Only this group.
            cursor: The ``next`` of the page before.
            limit: How many to a page.

        Raises:
            InvalidValue: The cursor is none, or the limit is no number above 0.
            StoreUnavailable: The store does not answer.
        """
        if limit < 1:
            raise InvalidValue("query.limit", "must be above 0")
        matching = [
            progress
            async for progress in self._all(owner, group, recent_only=states is None)
            if states is None or progress.state in states
        ]
        matching.sort(key=_place, reverse=True)
        after = None if cursor is None else _read_cursor(cursor)
        rest = [progress for progress in matching if after is None or _place(progress) < after]
        page = rest[:limit]
        more = len(rest) > limit
        return UploadPage(tuple(page), sum_of(matching), _cursor(page[-1]) if more else None)

    async def _all(
        self, owner: str, group: str | None, *, recent_only: bool
    ) -> AsyncIterator[UploadProgress]:
        """Go through the uploads that are received here, then through the stored ones."""
        live = self.registry.of_owner(owner)
        for upload in live:
            key = UploadKey(owner, upload.upload_id)
            progress = await self._live(upload, key)
            if group is None or progress.group == group:
                yield progress
        known = {upload.upload_id for upload in live}
        since = self.clock.time() - RECENT_SECONDS if recent_only else None
        cursor: str | None = None
        for _ in range(MOST_LISTED // STORE_PAGE):
            page = await self._page(owner, group, since, cursor)
            cursor = page.next
            for records in page.uploads:
                stored = fold(records, now=self.clock.time(), mount_path=self.mount_path)
                if stored is not None and stored.upload_id not in known:
                    yield stored
            if cursor is None:
                return
            await checkpoint()

    async def _page(
        self, owner: str, group: str | None, since: float | None, cursor: str | None
    ) -> RecordPage:
        return await self.breaker.call(
            lambda: self.store.list(
                owner, group=group, ended_since=since, cursor=cursor, limit=STORE_PAGE
            )
        )


def _place(progress: UploadProgress) -> tuple[float, str]:
    return (progress.created_at.timestamp(), progress.upload_id)


def _cursor(progress: UploadProgress) -> str:
    return f"{progress.created_at.timestamp():.6f}~{progress.upload_id}"


def _read_cursor(text: str) -> tuple[float, str]:
    moment, _, upload_id = text.partition("~")
    try:
        return (float(moment), upload_id)
    except ValueError:
        raise InvalidValue("query.cursor", "is none that a page before has given") from None
