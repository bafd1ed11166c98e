"""Loading records from the store: grouped by upload, and folded into snapshots.

Records of other uploads than those that were asked for are dropped. A store returns none; but if
two processes used one connection, each would receive answers to the requests of the other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from attrs import define, evolve, frozen

from upload_progress._model.fold import fold
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadProgress,
    is_upload_id,
)
from upload_progress._reading.store_parts import StoreParts
from upload_progress.exceptions import StoreUnavailable, UploadNotFound
from upload_progress.interfaces import Clock, ListsOpenUploads, RecordPage

__all__ = ["Loaded", "RecordLoader"]


@frozen
class Loaded:
    """What the store has of several uploads.

    Attributes:
        records: The records of each upload that it has.
        errors: For each owner whose part of the store does not answer, why.
    """

    records: Mapping[UploadKey, list[TransferRecord]]
    errors: Mapping[str, StoreUnavailable]


@define(eq=False, repr=False)
class RecordLoader:
    """Loads records through the circuit breakers of the store.

    All methods that ask the store raise ``StoreUnavailable`` if it does not answer.

    Args:
        parts: The store of all workers.
        clock: What decides which leases are over.
        mount_path: What the links of snapshots begin with.
    """

    parts: StoreParts
    clock: Clock
    mount_path: str

    async def load(self, keys: Collection[UploadKey]) -> Mapping[UploadKey, list[TransferRecord]]:
        """Return the records of each of these uploads that the store has, in one round trip.

        Raises:
            StoreUnavailable: The part of one of them does not answer.
        """
        loaded = await self.load_available(keys)
        for error in loaded.errors.values():
            raise error
        return loaded.records

    async def load_available(self, keys: Collection[UploadKey]) -> Loaded:
        """Return the records of those uploads whose parts of the store answer.

        Raises:
            StoreUnavailable: None of the parts answers.
        """
        known: dict[UploadKey, list[TransferRecord]] = {}
        if not keys:
            return Loaded(known, {})
        asked, answers = frozenset(keys), await self.parts.load(keys)
        for record in answers.found:
            if record.key in asked:
                known.setdefault(record.key, []).append(record)
            else:
                self._log_foreign_record()
        return Loaded(known, answers.errors)

    async def load_current(self, keys: Collection[UploadKey]) -> Loaded:
        """Do what ``load_available`` does, with an error for each owner of outdated records.

        Raises:
            StoreUnavailable: None of the parts answers.
        """
        outdated = {key.owner for key in keys if self.parts.is_outdated(key.owner)}
        loaded = await self.load_available([key for key in keys if key.owner not in outdated])
        return evolve(
            loaded, errors={**loaded.errors, **dict.fromkeys(outdated, StoreUnavailable())}
        )

    def require_current(self, owner: str) -> None:
        """Raise an error if what the store has of *owner* may be older than what was shown.

        Raises:
            StoreUnavailable: The part of *owner* takes no writes.
        """
        if self.parts.is_outdated(owner):
            raise StoreUnavailable

    def not_found(self, owner: str) -> StoreUnavailable | UploadNotFound:
        """Return the error to be raised, as the store has not an upload of *owner*."""
        return StoreUnavailable() if self.parts.may_lack(owner) else UploadNotFound()

    def _log_foreign_record(self) -> None:
        self.parts.breaker.log_limiter.log_warning(
            "the session store has returned records that were not asked for: its connection may "
            "be used by another process, too; create the client of the store in each worker",
            effect="these records are dropped",
        )

    async def page(
        self,
        owner: str,
        *,
        ended_within_seconds: float | None,
        cursor: str | None = None,
        group: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return a page of the uploads of *owner*; see ``SessionStore.list``.

        Raises:
            StoreUnavailable: The part of *owner* does not answer, or takes no writes.
        """
        self.require_current(owner)
        page = await self.parts.call(
            owner,
            lambda store: store.list(
                owner,
                group=group,
                ended_within_seconds=ended_within_seconds,
                cursor=cursor,
                limit=limit,
            ),
        )
        if all(upload[0].owner == owner for upload in page.uploads):
            return page
        self._log_foreign_record()
        own = [
            (upload, cursor)
            for upload, cursor in zip(page.uploads, page.cursors, strict=True)
            if upload[0].owner == owner
        ]
        uploads, cursors = zip(*own, strict=True) if own else ((), ())
        return evolve(page, uploads=uploads, cursors=cursors)

    async def open_page(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return a page of the open uploads of all owners; see ``ListsOpenUploads``.

        Raises:
            UploadNotFound: The store cannot list them.
            StoreUnavailable: The store does not answer, or a part of it takes no writes.
        """
        store: object = self.parts.store
        if not isinstance(store, ListsOpenUploads):
            raise UploadNotFound
        if self.parts.outdated:
            raise StoreUnavailable
        page = await self.parts.breaker.call(lambda: store.list_open(cursor=cursor, limit=limit))
        return evolve(page, uploads=tuple(filter(_is_upload, page.uploads)))

    def fold(
        self, records: Iterable[TransferRecord], *, now: float | None = None
    ) -> UploadProgress:
        """Return the snapshot of an upload with these records, of which there is at least one.

        Args:
            records: Its records.
            now: As for the model's ``fold``; by default the time of the clock.
        """
        now = self.clock.time() if now is None else now
        progress = fold(records, now=now, mount_path=self.mount_path)
        assert progress is not None  # noqa: S101  # there is a record
        return progress


def _is_upload(records: Sequence[TransferRecord]) -> bool:
    """Return whether it is no entry of the outbox of ends, whose id no upload can have."""
    return is_upload_id(records[0].upload_id)
