"""The outbox of ends in the store: what a broker has not accepted is published after a restart.

It is used if the broker keeps events for consumers that are not connected. An entry is a record
under an owner that no user can have, in a transfer that its worker seems to receive. When the
broker has accepted the event, the entry ends. If the worker is gone before that, its lease runs
out; the store returns the entry as overdue to any worker, and that worker publishes the event.

So an end is published at least once: twice, if a worker stops between publishing and noting it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import define, evolve, field

from upload_progress._fanout.update import Update
from upload_progress._model.codec import decode_json, decode_progress, encode_json
from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.worker import Worker
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.identity import CapabilityIdentity

__all__ = ["MAX_UNSAVED", "EndOutbox", "is_entry"]

MAX_UNSAVED: Final = 10_000
"""Entries that wait for the store, at most."""

_OWNER: Final = CapabilityIdentity().owner_of("/ends/")
"""No owner begins with it: an upload id contains no slash."""
_TRANSFER: Final = "end"


def is_entry(record: TransferRecord) -> bool:
    """Return whether *record* is an entry of this outbox, and no transfer."""
    return record.owner.startswith(_OWNER)


def _key(update: Update) -> UploadKey:
    progress = update.progress
    return UploadKey(_OWNER + update.owner, f"{progress.upload_id}/{progress.attempt}")


@define(eq=False, repr=False)
class EndOutbox:
    """Keeps the ends that the broker has not accepted yet in the store.

    Args:
        loader: Saves the entries.
        worker: This process.
        is_enabled: Whether the publisher promises to deliver ends at least once.
    """

    loader: RecordLoader
    worker: Worker
    is_enabled: bool = field(kw_only=True)
    _stored: set[UploadKey] = field(factory=set, init=False)
    _unsaved: dict[UploadKey, TransferRecord] = field(factory=dict, init=False)

    def entries_of(self, updates: Iterable[Update]) -> list[TransferRecord]:
        """Return an entry for each end among *updates* that has none; to be saved with the end."""
        if not self.is_enabled:
            return []
        ends = {_key(update): update for update in updates if update.is_end}
        return [self._entry(key, end) for key, end in ends.items() if key not in self._stored]

    def _entry(self, key: UploadKey, end: Update) -> TransferRecord:
        now = self.loader.clock.time()
        return TransferRecord(
            owner=key.owner,
            upload_id=key.upload_id,
            transfer_id=_TRANSFER,
            attempt=1,
            sequence=1,
            state=UploadState.RECEIVING,
            worker=self.worker.name,
            metadata=decode_json(end.json, "snapshot"),
            created_at=now,
            updated_at=now,
        )

    def mark_stored(self, entries: Iterable[TransferRecord]) -> None:
        """Remember that the store has *entries*."""
        self._stored.update(entry.key for entry in entries)

    async def add(self, updates: Iterable[Update]) -> None:
        """Store an entry for each end among *updates* that has none."""
        await self._save(self.entries_of(updates))

    async def confirm(self, updates: Iterable[Update]) -> None:
        """End the entries of *updates*, which the broker has accepted, or never will."""
        if self.is_enabled:
            ends = {_key(update): update for update in updates if update.is_end}
            await self._close([self._entry(key, end) for key, end in ends.items()])
            self._stored -= ends.keys()

    def forget(self, update: Update) -> None:
        """Leave the entry of *update* to the workers that come after this one."""
        self._stored.discard(_key(update))

    async def take_over(self, entries: Sequence[TransferRecord]) -> list[Update]:
        """Return the ends in *entries*, whose workers are gone; end those that have none."""
        found = {entry.key: _end_in(entry) for entry in entries if self.is_enabled}
        await self._close([entry for entry in entries if found.get(entry.key) is None])
        return [end for end in found.values() if end is not None]

    async def _close(self, entries: Iterable[TransferRecord]) -> None:
        now = self.loader.clock.time()
        await self._save(
            evolve(
                entry,
                sequence=entry.sequence + 1,
                state=UploadState.COMPLETED,
                worker=None,
                metadata=None,
                updated_at=now,
                finished_at=now,
            )
            for entry in entries
        )

    async def _save(self, entries: Iterable[TransferRecord]) -> None:
        """Save *entries*, and those that the store has not taken before."""
        unsaved = self._unsaved
        unsaved |= {entry.key: entry for entry in entries}
        while len(unsaved) > MAX_UNSAVED:
            del unsaved[next(iter(unsaved))]
        if not unsaved:
            return
        batch = list(unsaved.values())
        try:
            answers = await self.loader.parts.save(batch)
        except StoreUnavailable:
            return
        for entry in batch:
            if unsaved.get(entry.key) is entry and entry.owner not in answers.errors:
                del unsaved[entry.key]
                if entry.state is UploadState.RECEIVING:
                    self._stored.add(entry.key)


def _end_in(entry: TransferRecord) -> Update | None:
    """Return the end in an entry; None if there is none that can be read."""
    snapshot: Mapping[str, object] | None = entry.metadata
    try:
        progress = decode_progress(encode_json(snapshot))
    except InvalidValue:
        return None
    return Update(entry.owner.removeprefix(_OWNER), progress)
