"""The contract of stores."""

import anyio
import pytest
from attrs import evolve

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress.interfaces import Clock, SessionStore
from upload_progress.testing.lease_contract import TimeContract, plain

__all__ = [
    "StoreContract",
]


class StoreContract(TimeContract):
    """What every ``SessionStore`` does. Subclass, override the ``store`` fixture, run pytest.

    A store that has its own idea of the time overrides ``clock`` and ``elapse`` too; one that
    does not is waited for, a few seconds in all.
    """

    async def test_what_was_saved_is_loaded(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Every field comes back as it was."""
        await store.save([record])

        assert plain(await store.load(record.key)) == [record]

    async def test_what_came_in_many_requests_is_loaded(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Which bytes came, and by which protocol."""
        spans = (("", 0, 400, False), ("17", 5, 2**40, True))
        several = evolve(record, protocol="s3", spans=spans, confirmed_bytes=300)
        await store.save([several])

        assert plain(await store.load(record.key)) == [several]

    async def test_what_is_unknown_adds_nothing(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Neither another id nor another owner's same id is found."""
        await store.save([record])

        assert await store.load(UploadKey("ann", "other"), UploadKey("bob", "video")) == []
        assert (await store.list("bob")).uploads == ()

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (("a:b", "c"), ("a", "b:c")),
            (("A", "c"), ("a", "c")),
            (("a", "c"), ("a ", "c")),
            (("a*", "c"), ("ab", "c")),
            (("\u00fc", "c"), ("u\u0308", "c")),
            (("1", "c"), ("01", "c")),
            (("a\0", "c"), ("a", "c")),
            (("\ud800", "c"), ("\ufffd", "c")),
        ],
    )
    async def test_owners_never_collide(
        self,
        store: SessionStore,
        record: TransferRecord,
        one: tuple[str, str],
        other: tuple[str, str],
    ) -> None:
        """Whatever their names look like, put together or to each other."""
        keys = [UploadKey(*one), UploadKey(*other)]
        records = [
            evolve(record, owner=key.owner, upload_id=key.upload_id, received_bytes=number)
            for number, key in enumerate(keys)
        ]

        await store.save(records)

        for key, each in zip(keys, records, strict=True):
            assert plain(await store.load(key)) == [each]
            [upload] = (await store.list(key.owner)).uploads
            assert plain(upload) == [each]

    async def test_a_batch_is_taken_in_its_order(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Versions of one record in one batch are as good as in several."""
        versions = [evolve(record, sequence=sequence) for sequence in (5, 7, 6)]

        await store.save(versions)

        assert plain(await store.load(record.key)) == [versions[1]]

    async def test_writers_at_the_same_time_do_not_lose_each_others_records(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Each transfer has one writer, and an upload many."""
        records = [evolve(record, transfer_id=f"t{number}") for number in range(8)]
        async with anyio.create_task_group() as tasks:
            for each in records:
                tasks.start_soon(store.save, [evolve(each, sequence=4), each])

        assert plain(await store.load(record.key)) == plain(records)

    async def test_many_are_saved_and_loaded_at_once(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Batches are complete, whatever their size."""
        records = [evolve(record, upload_id=f"u{number}") for number in range(500)]

        await store.save(records)
        await store.save([])

        loaded = await store.load(*[each.key for each in records])
        assert plain(loaded) == plain(records)

    @pytest.mark.parametrize("sequence", [1, 4, 5])
    async def test_never_goes_back(
        self, store: SessionStore, record: TransferRecord, sequence: int
    ) -> None:
        """A record that was overtaken, or written twice, changes nothing."""
        await store.save([record])

        await store.save([evolve(record, sequence=sequence, received_bytes=9)])

        assert plain(await store.load(record.key)) == [record]

    async def test_the_newer_version_stays(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """A higher sequence replaces, also within one batch."""
        newer, newest = evolve(record, sequence=6), evolve(record, sequence=8)

        await store.save([record, newer])
        await store.save([newest])

        assert plain(await store.load(record.key)) == [newest]

    async def test_an_end_is_for_ever(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Nothing revives a record that ended, within its attempt."""
        ended = evolve(
            record,
            sequence=6,
            state=UploadState.FAILED,
            finished_at=clock.time(),
            worker=None,
        )
        await store.save([record, ended])

        await store.save([evolve(record, sequence=7)])

        assert plain(await store.load(record.key)) == [ended]

    async def test_transfers_stand_side_by_side(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Several records of one attempt are one upload, in the list too."""
        other = evolve(record, transfer_id="t2", worker="w2")
        await store.save([record])
        await store.save([other])

        [upload] = (await store.list("ann")).uploads
        assert plain(await store.load(record.key)) == [record, other]
        assert plain(upload) == [record, other]

    async def test_a_new_attempt_drops_the_old(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """And what still comes of the old changes nothing."""
        anew = evolve(record, transfer_id="t2", attempt=3, sequence=1)
        await store.save([record])

        await store.save([anew])
        await store.save([evolve(record, sequence=99)])

        assert plain(await store.load(record.key)) == [anew]

    async def test_the_list_is_newest_first_in_pages(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Pages are gone through with their cursors, each upload once."""
        for number in range(7):
            each = evolve(
                record, upload_id=f"u{number}", created_at=record.created_at + number / 10
            )
            await store.save([each, evolve(each, owner="bob")])

        seen: list[str] = []
        page = await store.list("ann", limit=3)
        sizes = [len(page.uploads)]
        seen += [upload[0].upload_id for upload in page.uploads]
        while page.next is not None:
            page = await store.list("ann", limit=3, cursor=page.next)
            sizes.append(len(page.uploads))
            seen += [upload[0].upload_id for upload in page.uploads]

        assert seen == [f"u{number}" for number in reversed(range(7))]
        assert [size for size in sizes if size] == [3, 3, 1]

    async def test_an_unknown_cursor_begins_anew(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """It may name what has been forgotten since."""
        await store.save([record])

        assert len((await store.list("ann", cursor="gone")).uploads) == 1

    async def test_the_list_is_filtered_by_group(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """By the group that a record carries."""
        await store.save([record, evolve(record, upload_id="other", group=None)])

        page = await store.list("ann", group="nightly")

        assert [upload[0].upload_id for upload in page.uploads] == ["video"]
        assert (await store.list("ann", group="daily")).uploads == ()

    async def test_the_list_leaves_out_what_ended_before(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """What is open, or ended later, stays."""
        ended = evolve(record, state=UploadState.COMPLETED, worker=None, stage=None, error=None)
        now = clock.time()
        await store.save(
            [
                evolve(ended, upload_id="before", finished_at=now - 1.0),
                evolve(ended, upload_id="after", finished_at=now - 0.5),
                record,
                evolve(record, upload_id="waiting", state=UploadState.PENDING, worker=None),
            ]
        )

        page = await store.list("ann", ended_since=now - 0.75)

        assert {upload[0].upload_id for upload in page.uploads} == {"after", "video", "waiting"}

    async def test_the_word_on_the_whole_outranks_what_still_runs(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """An upload in many requests has ended for all of its writers, when it has for one."""
        now = clock.time()
        running = evolve(record, protocol="tus", stage=None, error=None)
        paused = evolve(running, transfer_id="t3", state=UploadState.PAUSED, worker=None)
        whole = evolve(
            running,
            transfer_id="t2",
            state=UploadState.COMPLETED,
            worker=None,
            finished_at=now - 1.0,
        )
        await store.save([running, paused, whole])

        assert (await store.list("ann", ended_since=now - 0.5)).uploads == ()
        [upload] = (await store.list("ann", ended_since=now - 1.5)).uploads
        assert len(upload) == 3
