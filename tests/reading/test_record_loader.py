"""Loading records: grouped by upload, in one call of the store."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests._support.records import record
from tests._support.simulation import Simulation
from upload_progress import MemoryStore, StoreUnavailable, UploadState
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reading.store_parts import StoreParts
from upload_progress.interfaces import RecordPage

pytestmark = pytest.mark.anyio

UP, OTHER, MISSING = (UploadKey("ann", upload_id) for upload_id in ("up", "other", "missing"))


@pytest.fixture
async def loader(sim: Simulation) -> RecordLoader:
    """Return the loader of a tracker whose store has two uploads, one of them by two workers."""
    up = record("up", received_bytes=5)
    await sim.memory.save([up, evolve(up, transfer_id="t2", sequence=3), record("other")])
    return sim.internals.reader.loader


async def test_records_are_grouped_by_upload(sim: Simulation, loader: RecordLoader) -> None:
    calls = sim.store.calls

    known = await loader.load([UP, OTHER, MISSING])

    assert {key: len(records) for key, records in known.items()} == {UP: 2, OTHER: 1}
    assert sim.store.calls == calls + 1


async def test_store_is_not_called_without_keys(sim: Simulation, loader: RecordLoader) -> None:
    sim.store.fault = "raise"

    assert await loader.load([]) == {}


async def test_records_are_folded_into_a_snapshot(loader: RecordLoader) -> None:
    known = await loader.load([UP, MISSING])
    snapshot = loader.fold(known[UP])

    assert set(known) == {UP}
    assert (snapshot.bytes_transferred, snapshot.sequence) == (10, 4)
    assert snapshot.links.progress == "/uploads/up/progress"


async def test_page_contains_the_uploads_of_an_owner(loader: RecordLoader) -> None:
    page = await loader.page("ann", ended_within_seconds=None, limit=1)
    rest = await loader.page("ann", ended_within_seconds=None, cursor=page.next, limit=1)

    uploads = [*page.uploads, *rest.uploads]
    assert {records[0].upload_id for records in uploads} == {"up", "other"}
    assert {loader.fold(records).state for records in uploads} == {UploadState.RECEIVING}
    last = await loader.page("ann", ended_within_seconds=None, cursor=rest.next)
    assert (last.uploads, last.next) == ((), None)


async def test_store_outage_is_raised(sim: Simulation, loader: RecordLoader) -> None:
    sim.store.fault = "raise"

    with pytest.raises(StoreUnavailable):
        await loader.load([UP])
    sim.store.fault = None
    with pytest.raises(StoreUnavailable):
        await loader.page("ann", ended_within_seconds=None)


class StoreWithForeignRecords(MemoryStore):
    """A store that also returns what was not asked for."""

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        return [record(owner="bob"), *await super().load(*keys), record("other")]

    async def list(self, owner: str, **selection: object) -> RecordPage:
        page = await super().list(owner, **selection)  # type: ignore[arg-type]  # passed on
        uploads = ((record(owner="bob"),), *page.uploads)
        return RecordPage(uploads, page.next, ("bob", *page.cursors))


@pytest.fixture
def loader_of_foreign_records(sim: Simulation) -> RecordLoader:
    store, loader = StoreWithForeignRecords(), sim.internals.reader.loader
    parts = StoreParts(store, loader.parts.breaker)
    return RecordLoader(parts, loader.clock, loader.mount_path)


async def test_records_that_were_not_asked_for_are_dropped(
    loader_of_foreign_records: RecordLoader, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of_foreign_records
    await loader.parts.store.save([record("up")])

    known = await loader.load([UP])
    page = await loader.page("ann", ended_within_seconds=None)
    empty = await loader.page("eve", ended_within_seconds=None)

    assert {key: len(records) for key, records in known.items()} == {UP: 1}
    assert [upload[0].key for upload in page.uploads] == [UP]
    assert len(page.cursors) == 1
    assert (empty.uploads, empty.cursors) == ((), ())
    assert "records that were not asked for" in caplog.text
