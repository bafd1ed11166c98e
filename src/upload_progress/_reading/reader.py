"""Read the progress of uploads: from this process if it receives them, else from the store."""

import builtins
from collections.abc import Collection

from attrs import define, field

from upload_progress._model.fold import accepted_bytes
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadPage,
    UploadProgress,
    UploadState,
)
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.lists import ListCursor, ListSelection, UploadLists
from upload_progress._reading.open_uploads import OpenUploads
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reading.shared_reads import SharedReads
from upload_progress._tracking import outcomes
from upload_progress._tracking.continuation import prior_state
from upload_progress._tracking.live_record import current_snapshot, record_of, records_with
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import InvalidValue, StoreUnavailable, UploadNotFound
from upload_progress.interfaces import ALL_OWNERS

__all__ = ["Reader"]


@define(eq=False, repr=False)
class Reader:
    """Reads snapshots, and changes nothing."""

    registry: Registry
    loader: RecordLoader
    lane: ClientLane
    _reads: SharedReads[str, tuple[ListSelection, str | None, int], UploadPage] = field(
        factory=SharedReads, init=False
    )
    _lists: UploadLists = field(init=False)

    @_lists.default
    def _make_lists(self) -> UploadLists:
        return UploadLists(self.registry, self.loader, self.lane, self._snapshot_of)

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
        records = await self._load(key)
        if not records:
            raise self.loader.not_found(key.owner)
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
            records = records_with(live, record_of(live, live.context.now()))
            return progress, accepted_bytes(records)
        records = await self._load(key)
        if not records:
            raise self.loader.not_found(key.owner)
        return self.loader.fold(records), accepted_bytes(records)

    async def _load(self, key: UploadKey) -> builtins.list[TransferRecord]:
        self.loader.require_current(key.owner)
        return await self.lane.load(key)

    async def _snapshot_of(self, live: LiveUpload, key: UploadKey) -> UploadProgress | None:
        """Return the snapshot of an upload that is received here; None if it is no upload."""
        if live.series is None and live.has_prior_state and not live.is_superseded:
            return current_snapshot(live)
        try:
            records = await self._load(key)
        except StoreUnavailable:
            return current_snapshot(live)
        if not live.has_prior_state:
            prior_state.load_prior_state(live, records)
        if live.series is not None:
            prior_state.update_from_store(live, records)
        if live.has_ended_elsewhere or live.is_superseded or outcomes.is_undecided(live):
            known = [*records, *live.preceding]
            return self.loader.fold(known) if known else None
        return current_snapshot(live)

    async def list(
        self,
        owner: str | None,
        *,
        states: Collection[UploadState] | None,
        group: str | None,
        cursor: str | None,
        limit: int,
    ) -> UploadPage:
        """Return a page of the uploads of *owner*, newest first, and the sum over all pages.

        Args:
            owner: The owner. ``ALL_OWNERS`` for the open uploads of all, in the order of the
                store, and the sum over the page.
            states: Only uploads in these states; None for open and recently ended ones.
            group: Only uploads of this group.
            cursor: The ``next`` of the previous page.
            limit: How many uploads at most. A page may have fewer although another one follows.

        Raises:
            InvalidValue: The cursor or the limit is not valid.
            StoreUnavailable: The store does not answer.
        """
        if limit < 1:
            raise InvalidValue("query.limit", "must be greater than 0")
        if owner is ALL_OWNERS:
            everyone = OpenUploads(self.registry, self.loader, self.lane, self._snapshot_of)
            return await everyone.read(states=states, group=group, cursor=cursor, limit=limit)
        start = ListCursor.parse(cursor)
        query = ListSelection(owner, None if states is None else frozenset(states), group)
        return await self._reads.get(
            owner, (query, cursor, limit), lambda: self._lists.read(query, start, limit)
        )
