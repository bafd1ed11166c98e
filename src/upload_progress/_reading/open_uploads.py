"""Lists of the open uploads of all owners, for operators."""

from collections.abc import Awaitable, Callable, Collection

from attrs import define, evolve

from upload_progress._model.fold import sum_of
from upload_progress._model.models import UploadKey, UploadPage, UploadProgress, UploadState
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import Registry

__all__ = ["OpenUploads"]

_LANE: str = "*"


@define(eq=False, repr=False)
class OpenUploads:
    """Reads pages of all open uploads, in the order of the store.

    Args:
        registry: The uploads that are received here.
        loader: Reads the store.
        lane: Limits how many pages are read at once.
        snapshot_of: Returns the snapshot of an upload that is received here, if it is one.
    """

    registry: Registry
    loader: RecordLoader
    lane: ClientLane
    snapshot_of: Callable[[LiveUpload, UploadKey], Awaitable[UploadProgress | None]]

    async def read(
        self,
        *,
        states: Collection[UploadState] | None,
        group: str | None,
        cursor: str | None,
        limit: int,
    ) -> UploadPage:
        """Return a page, whose sum is that of the page; with filters it may have fewer uploads.

        Raises:
            UploadNotFound: The store cannot list them.
            StoreUnavailable: The store does not answer.
        """
        page = await self.lane.call(
            _LANE, lambda: self.loader.open_page(cursor=cursor, limit=limit)
        )
        found: list[UploadProgress] = []
        for records in page.uploads:
            key = records[0].key
            live = self.registry.find(key.owner, key.upload_id)
            shown = None if live is None else await self.snapshot_of(live, key)
            progress = self.loader.fold(records) if shown is None else shown
            if group in {None, progress.group} and (states is None or progress.state in states):
                found.append(evolve(progress, owner=key.owner))
        is_part = cursor is not None or page.next is not None
        return UploadPage(tuple(found), sum_of(found, approximate=is_part), page.next)
