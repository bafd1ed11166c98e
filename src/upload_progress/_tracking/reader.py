"""Read the progress of uploads: from this process if it receives them, else from the store."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._model.fold import accepted_bytes, sum_of
from upload_progress._model.models import UploadKey, UploadPage, UploadProgress, UploadState
from upload_progress._tracking import continuation
from upload_progress._tracking.client_lane import ClientLane
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.record_loader import RecordLoader
from upload_progress._tracking.registry import Registry
from upload_progress._tracking.shared_reads import SharedReads
from upload_progress.exceptions import InvalidValue, StoreUnavailable, UploadNotFound

__all__ = ["MAX_LISTED", "RECENT_SECONDS", "STORE_PAGE", "Reader"]

RECENT_SECONDS: Final = 300.0
"""By default a list contains uploads that have ended within this time."""
STORE_PAGE: Final = 100
MAX_LISTED: Final = 10_000


@define(eq=False, repr=False)
class Reader:
    """Reads snapshots, and changes nothing."""

    registry: Registry
    loader: RecordLoader
    lane: ClientLane
    _lists: SharedReads[str, tuple[str | None, bool], UploadPage] = field(
        factory=SharedReads, init=False
    )

    async def get(self, key: UploadKey) -> UploadProgress:
        """Return the snapshot of *key*.

        Raises:
            UploadNotFound: There is no such upload.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        live = self.registry.find(key.owner, key.upload_id)
        if live is not None:
            progress = await self._snapshot_of(live, key)
            if progress is None:
                raise UploadNotFound
            return progress
        records = await self.lane.load(key)
        if not records:
            raise UploadNotFound
        return self.loader.fold(records)

    async def get_offset(self, key: UploadKey) -> tuple[UploadProgress, int]:
        """Return the snapshot of *key*, and the first byte that the application has not accepted.

        Raises:
            UploadNotFound: There is no such upload.
            StoreUnavailable: The store does not answer, and the upload is not received here.
        """
        live = self.registry.find(key.owner, key.upload_id)
        progress = None if live is None else await self._snapshot_of(live, key)
        if live is not None and progress is not None:
            records = live.records_with(live.record(live.context.now()))
            return progress, accepted_bytes(records)
        records = await self.lane.load(key)
        if not records:
            raise UploadNotFound
        return self.loader.fold(records), accepted_bytes(records)

    async def _snapshot_of(self, live: LiveUpload, key: UploadKey) -> UploadProgress | None:
        """Return the snapshot of an upload that is received here; None if it is no upload."""
        if live.ranges is None and live.has_prior_state and not live.is_superseded:
            return live.snapshot()
        try:
            records = await self.lane.load(key)
        except StoreUnavailable:
            return live.snapshot()
        if not live.has_prior_state:
            continuation.load_prior_state(live, records)
        if live.ranges is not None:
            continuation.update_from_store(live, records)
        if live.has_ended_elsewhere or live.is_superseded or live.is_undecided:
            return self.loader.fold(records) if records else None
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
            owner: The owner.
            states: Only uploads in these states; None for open and recently ended ones.
            group: Only uploads of this group.
            cursor: The ``next`` of the previous page.
            limit: How many uploads at most.

        Raises:
            InvalidValue: The cursor or the limit is not valid.
            StoreUnavailable: The store does not answer.
        """
        if limit < 1:
            raise InvalidValue("query.limit", "must be greater than 0")
        everything = await self._lists.get(
            owner,
            (group, states is None),
            lambda: self._read_all(owner, group, recent_only=states is None),
        )
        matching, total = everything.uploads, everything.total
        if states is not None:
            matching = tuple([each for each in matching if each.state in states])
            total = sum_of(matching)
        first = 0 if cursor is None else _first_after(matching, _decode_cursor(cursor))
        page = matching[first : first + limit]
        has_more = first + limit < len(matching)
        return UploadPage(page, total, _encode_cursor(page[-1]) if has_more else None)

    async def _read_all(self, owner: str, group: str | None, *, recent_only: bool) -> UploadPage:
        """Return all uploads on one page: what is done here is done once for all that wait."""
        found = [each async for each in self._all(owner, group, recent_only=recent_only)]
        found.sort(key=_position, reverse=True)
        return UploadPage(tuple(found), sum_of(found))

    async def _all(
        self, owner: str, group: str | None, *, recent_only: bool
    ) -> AsyncIterator[UploadProgress]:
        """Yield the uploads that are received here, then those of the store."""
        live = self.registry.of_owner(owner)
        for upload in live:
            progress = await self._snapshot_of(upload, UploadKey(owner, upload.upload_id))
            if progress is not None and (group is None or progress.group == group):
                yield progress
        live_ids = {upload.upload_id for upload in live}
        now = self.loader.clock.time()
        since = now - RECENT_SECONDS if recent_only else None
        cursor: str | None = None
        for _ in range(MAX_LISTED // STORE_PAGE):
            page = await self.loader.page(
                owner, group=group, ended_since=since, cursor=cursor, limit=STORE_PAGE
            )
            cursor = page.next
            for records in page.uploads:
                stored = self.loader.fold(records)
                if stored.upload_id not in live_ids:
                    yield stored
            if cursor is None:
                return
            await checkpoint()


def _first_after(uploads: Sequence[UploadProgress], position: tuple[float, str]) -> int:
    """Return the index of the first of *uploads*, newest first, that is older than *position*."""
    low, high = 0, len(uploads)
    while low < high:
        middle = (low + high) // 2
        if _position(uploads[middle]) < position:
            high = middle
        else:
            low = middle + 1
    return low


def _position(progress: UploadProgress) -> tuple[float, str]:
    return (progress.created_at.timestamp(), progress.upload_id)


def _encode_cursor(progress: UploadProgress) -> str:
    return f"{progress.created_at.timestamp():.6f}~{progress.upload_id}"


def _decode_cursor(text: str) -> tuple[float, str]:
    created_at, _, upload_id = text.partition("~")
    try:
        return (float(created_at), upload_id)
    except ValueError:
        problem = "is not valid: use the value of `next` in the previous page"
        raise InvalidValue("query.cursor", problem) from None
