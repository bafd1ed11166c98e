"""The contract of stores, as tests to be subclassed."""

import anyio
import pytest
from attrs import evolve

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress.interfaces import Clock, ListsOpenUploads, SessionStore
from upload_progress.testing.lease_contract import SKEWS, Elapse, LeaseContract, comparable

__all__ = ["StoreContract"]


class StoreContract(LeaseContract):
    """Tests that every ``SessionStore`` passes. Subclass it, and override the fixture ``store``.

    A store with a clock of its own overrides the fixtures ``clock`` and ``elapse`` as well. With
    the clock of the system the tests wait for some seconds in all.
    """

    async def test_saved_record_is_loaded(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Every field has the same value."""
        await store.save([record])

        assert comparable(await store.load(record.key)) == [record]

    async def test_byte_ranges_are_loaded(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """An upload in several requests keeps its byte ranges and its protocol."""
        ranges = (("", 0, 400, False), ("@1700000000000.17", 0, 2**40, True))
        resumable = evolve(
            record,
            protocol="s3",
            byte_ranges=ranges,
            confirmed_bytes=300,
            set_by_app=("filename", "group"),
            previous_ended_at=1_700_000_000.5,
            former_sessions=("0011223344556677",),
            session=".8899aabbccddeeff",
            idle_at=1_700_000_001.5,
        )
        await store.save([resumable])

        assert comparable(await store.load(record.key)) == [resumable]

    async def test_unknown_upload_adds_nothing(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Neither another id nor the same id of another owner is found."""
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
    async def test_similar_names_do_not_collide(
        self,
        store: SessionStore,
        record: TransferRecord,
        one: tuple[str, str],
        other: tuple[str, str],
    ) -> None:
        """Names that are equal when joined, normalized or decoded carelessly are different."""
        keys = [UploadKey(*one), UploadKey(*other)]
        records = [
            evolve(record, owner=key.owner, upload_id=key.upload_id, received_bytes=number)
            for number, key in enumerate(keys)
        ]

        await store.save(records)

        for key, each in zip(keys, records, strict=True):
            assert comparable(await store.load(key)) == [each]
            [upload] = (await store.list(key.owner)).uploads
            assert comparable(upload) == [each]

    async def test_batch_is_saved_in_order(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Several versions of a record in one batch are saved one after the other."""
        versions = [evolve(record, sequence=sequence) for sequence in (5, 7, 6)]

        await store.save(versions)

        assert comparable(await store.load(record.key)) == [versions[1]]

    async def test_concurrent_writers_keep_each_others_records(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Each transfer has one writer, and an upload has several."""
        records = [evolve(record, transfer_id=f"t{number}") for number in range(8)]
        async with anyio.create_task_group() as tasks:
            for each in records:
                tasks.start_soon(store.save, [evolve(each, sequence=4), each])

        assert comparable(await store.load(record.key)) == comparable(records)

    async def test_large_batch_is_saved_and_loaded(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Batches of any size are saved and loaded completely."""
        records = [evolve(record, upload_id=f"u{number}") for number in range(500)]

        await store.save(records)
        await store.save([])

        loaded = await store.load(*[each.key for each in records])
        assert comparable(loaded) == comparable(records)

    @pytest.mark.parametrize("sequence", [1, 4, 5])
    async def test_older_version_changes_nothing(
        self, store: SessionStore, record: TransferRecord, sequence: int
    ) -> None:
        """An older version, or the same version again, changes nothing; its writer learns it."""
        assert list(await store.save([record])) == []

        older = evolve(record, sequence=sequence, received_bytes=9)
        refused = await store.save([evolve(record, upload_id="other"), older])

        assert comparable(refused) == [older]
        assert comparable(await store.load(record.key)) == [record]

    async def test_newer_version_replaces_older(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """The higher sequence wins, also within one batch."""
        newer, newest = evolve(record, sequence=6), evolve(record, sequence=8)

        await store.save([record, newer])
        await store.save([newest])

        assert comparable(await store.load(record.key)) == [newest]

    async def test_final_record_is_not_replaced(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Within an attempt, nothing replaces a record that has ended."""
        ended = evolve(
            record,
            sequence=6,
            state=UploadState.FAILED,
            finished_at=clock.time(),
            worker=None,
        )
        await store.save([record, ended])

        await store.save([evolve(record, sequence=7)])

        assert comparable(await store.load(record.key)) == [ended]

    @pytest.mark.parametrize("later", [UploadState.RECEIVING, UploadState.COMPLETED])
    async def test_cancel_by_another_worker_is_not_replaced(
        self, store: SessionStore, record: TransferRecord, clock: Clock, later: UploadState
    ) -> None:
        """The worker that receives the upload learns of it, as its further versions are refused."""
        running = evolve(record, stage=None, error=None)
        paused = evolve(running, transfer_id="t2", state=UploadState.PAUSED, worker=None)
        ends = [
            evolve(
                each,
                sequence=each.sequence + 1000,
                state=UploadState.CANCELLED,
                finished_at=clock.time(),
                worker=None,
            )
            for each in (running, paused)
        ]
        await store.save([running, paused])
        assert list(await store.save(ends)) == []

        for sequence in (6, 2000):
            versions = [
                evolve(running, sequence=sequence, state=later, finished_at=clock.time()),
                evolve(paused, sequence=sequence, state=UploadState.RECEIVING, worker="w1"),
            ]
            assert comparable(await store.save(versions)) == comparable(versions)

        assert comparable(await store.load(record.key)) == comparable(ends)
        assert list(await store.running("w1", limit=10)) == []

    async def test_transfers_of_one_upload_are_kept_together(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Several records of one attempt are one upload, also in the list."""
        other = evolve(record, transfer_id="t2", worker="w2")
        await store.save([record])
        await store.save([other])

        [upload] = (await store.list("ann")).uploads
        assert comparable(await store.load(record.key)) == [record, other]
        assert comparable(upload) == [record, other]

    async def test_new_attempt_replaces_older_attempt(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Later records of the older attempt change nothing."""
        new = evolve(record, transfer_id="t2", attempt=3, sequence=1)
        await store.save([record])

        await store.save([new])
        await store.save([evolve(record, sequence=99)])

        assert comparable(await store.load(record.key)) == [new]

    async def test_announcements_of_an_owner_are_limited(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Pending uploads count, and neither those that have begun nor those that have ended."""
        pending = evolve(record, state=UploadState.PENDING, worker=None, stage=None, error=None)
        others = [evolve(record, upload_id=f"other{number}") for number in range(300)]
        ids = [f"up{number}" for number in range(3)]
        await store.save(others)

        announced = [evolve(pending, upload_id=each) for each in ids]
        answers = [await store.announce(each, limit=2) for each in announced]
        await store.save(others)
        assert answers == [True, True, False]
        assert comparable(await store.load(announced[0].key)) == [announced[0]]
        assert await store.load(announced[2].key) == []
        assert await store.announce(evolve(announced[2], owner="bob"), limit=1)
        await store.save([evolve(record, upload_id="up0", transfer_id="t2")])
        assert await store.announce(announced[2], limit=2)
        assert not await store.announce(evolve(pending, upload_id="up3"), limit=2)
        await store.save([evolve(announced[1], state=UploadState.CANCELLED, sequence=9)])
        assert await store.announce(evolve(pending, upload_id="up3"), limit=2)
        assert not await store.announce(evolve(pending, upload_id="up4"), limit=0)

    async def test_announcements_at_the_same_time_are_counted(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Not more than the limit are stored, and no fewer."""
        pending = evolve(record, state=UploadState.PENDING, worker=None, stage=None, error=None)
        answers: list[bool] = []

        async def announce(number: int) -> None:
            each = evolve(pending, upload_id=f"up{number}")
            answers.append(await store.announce(each, limit=7))

        async with anyio.create_task_group() as tasks:
            for number in range(15):
                tasks.start_soon(announce, number)

        assert sum(answers) == 7
        assert len((await store.list("ann")).uploads) == 7

    async def test_list_is_newest_first_in_pages(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Following the cursors returns each upload once."""
        for number in range(7):
            each = evolve(
                record, upload_id=f"u{number}", created_at=record.created_at + number / 10
            )
            await store.save([each, evolve(each, owner="bob")])

        first = await store.list("ann")
        for number, cursor in enumerate(first.cursors, start=1):
            rest = (await store.list("ann", cursor=cursor)).uploads
            assert [upload[0].upload_id for upload in rest] == [
                f"u{older}" for older in reversed(range(7 - number))
            ]
        assert len(first.cursors) == 7

        listed: list[str] = []
        page = await store.list("ann", limit=3)
        sizes = [len(page.uploads)]
        listed += [upload[0].upload_id for upload in page.uploads]
        while page.next is not None:
            page = await store.list("ann", limit=3, cursor=page.next)
            sizes.append(len(page.uploads))
            listed += [upload[0].upload_id for upload in page.uploads]

        assert listed == [f"u{number}" for number in reversed(range(7))]
        assert [size for size in sizes if size] == [3, 3, 1]

    @pytest.mark.parametrize("cursor", ["", "unknown", "x:video", "nan:video"])
    async def test_list_starts_with_first_page_if_text_is_no_cursor(
        self, store: SessionStore, record: TransferRecord, cursor: str
    ) -> None:
        """It is no error."""
        await store.save([record])

        assert len((await store.list("ann", cursor=cursor)).uploads) == 1

    async def test_open_uploads_of_all_owners_are_listed_in_pages(
        self, store: SessionStore, record: TransferRecord, clock: Clock
    ) -> None:
        """Each is on one page; an upload that has ended is on none."""
        states = (UploadState.PENDING, UploadState.RECEIVING, UploadState.PAUSED)
        open_uploads = [
            evolve(record, owner=owner, upload_id=f"{owner}-{state}", state=state, stage=None)
            for owner in ("ann", "bob", "cid")
            for state in states
        ]
        running = evolve(record, upload_id="whole", protocol="tus", stage=None, error=None)
        ended = [
            evolve(record, upload_id="failed", state=UploadState.FAILED, finished_at=clock.time()),
            evolve(running, transfer_id="t2"),
            evolve(running, state=UploadState.COMPLETED, worker=None, finished_at=clock.time()),
        ]
        await store.save([*open_uploads, *ended])
        assert isinstance(store, ListsOpenUploads)

        for limit in (2, 9, 100):
            page = await store.list_open(limit=limit)
            listed = [upload[0].key for upload in page.uploads]
            while page.next is not None:
                page = await store.list_open(limit=limit, cursor=page.next)
                assert len(page.uploads) <= limit
                listed += [upload[0].key for upload in page.uploads]
            assert sorted(listed) == sorted(each.key for each in open_uploads)

    @pytest.mark.parametrize("cursor", ["", "unknown", "x:", "99999999:x"])
    async def test_open_uploads_start_with_first_page_if_text_is_no_cursor(
        self, store: SessionStore, record: TransferRecord, cursor: str
    ) -> None:
        """It is no error."""
        await store.save([evolve(record, owner="zoe")])

        assert isinstance(store, ListsOpenUploads)
        assert len((await store.list_open(cursor=cursor)).uploads) <= 1

    async def test_next_attempt_is_listed_as_a_new_upload(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """Its position is that of the record of this attempt that was created first."""
        first = evolve(record, upload_id="first")
        second = evolve(record, upload_id="second", created_at=record.created_at + 1)
        again = evolve(first, attempt=first.attempt + 1, created_at=record.created_at + 3)
        earlier = evolve(again, transfer_id="t2", created_at=record.created_at + 2)
        for saved, listed in (
            ([first, second], ["second", "first"]),
            ([again], ["first", "second"]),
            ([earlier, evolve(record, upload_id="third", created_at=record.created_at + 2.5)], []),
        ):
            await store.save(saved)
            found = [upload[0].upload_id for upload in (await store.list("ann")).uploads]
            assert found == (listed or ["third", "first", "second"])

    async def test_list_is_filtered_by_group(
        self, store: SessionStore, record: TransferRecord
    ) -> None:
        """The group is that of the records."""
        await store.save([record, evolve(record, upload_id="other", group=None)])

        page = await store.list("ann", group="nightly")

        assert [upload[0].upload_id for upload in page.uploads] == ["video"]
        assert (await store.list("ann", group="daily")).uploads == ()

    async def test_list_omits_uploads_that_ended_earlier(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """Open uploads, and those that ended later, are listed, whatever the clock of a worker."""
        ended = evolve(record, state=UploadState.COMPLETED, worker=None, stage=None, error=None)
        times = {name: clock.time() + skew for name, skew in SKEWS.items()}
        before = [evolve(ended, upload_id=f"b{name}", finished_at=at) for name, at in times.items()]
        after = [evolve(ended, upload_id=f"a{name}", finished_at=at) for name, at in times.items()]
        waiting = evolve(record, upload_id="waiting", state=UploadState.PENDING, worker=None)
        await store.save(before)
        await elapse(0.5)
        await store.save([*after, record, waiting])

        page = await store.list("ann", ended_within_seconds=0.4)

        assert sorted(upload[0].upload_id for upload in page.uploads) == [
            *sorted(each.upload_id for each in after),
            "video",
            "waiting",
        ]
        assert len((await store.list("ann", ended_within_seconds=60.0)).uploads) == 8

    async def test_completed_upload_has_ended_although_transfers_are_open(
        self, store: SessionStore, record: TransferRecord, clock: Clock, elapse: Elapse
    ) -> None:
        """An upload in several requests has ended as soon as one record completes it."""
        running = evolve(record, protocol="tus", stage=None, error=None)
        paused = evolve(running, transfer_id="t3", state=UploadState.PAUSED, worker=None)
        completed = evolve(
            running,
            transfer_id="t2",
            state=UploadState.COMPLETED,
            worker=None,
            finished_at=clock.time(),
        )
        await store.save([running, paused, completed])
        await elapse(0.3)

        assert (await store.list("ann", ended_within_seconds=0.2)).uploads == ()
        [upload] = (await store.list("ann", ended_within_seconds=60.0)).uploads
        assert len(upload) == 3
