"""``Upload``: attributes and ownership that the application sets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import pytest

from tests._support.simulation import ENDINGS, Simulation, end_upload
from upload_progress import InvalidValue, Upload, UploadNotFound, UploadState
from upload_progress._tracking import outcomes

pytestmark = pytest.mark.anyio


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


async def test_attributes_are_stored_shortened_or_rejected(sim: Simulation) -> None:
    """Nothing that a store cannot keep is accepted."""
    tracker = sim.tracker
    async with tracker.track(owner="ann", upload_id="up", filename="a\ud800" + "x" * 999) as upload:
        upload.set(
            filename="b\udcff.bin",
            content_type="y" * 999,
            metadata={"k": 1},
            group="g",
            total_bytes=7,
        )
        upload.set()
        async with upload.stage("s\ud800" * 100, total=3) as stage:
            stage.advance(2)
            snapshot = upload.snapshot()
        for invalid in (
            {"metadata": {"k": object()}},
            {"metadata": {"k": "x" * 5000}},
            {"total_bytes": -1},
            {"total_bytes": 2**53},
            {"total_bytes": 1.5},
            {"filename": 5},
            {"group": "x" * 129},
            {"group": ""},
            {"group": "\ud800"},
        ):
            with pytest.raises(InvalidValue, match=r"set\."):
                upload.set(**invalid)
        for size in (-1, 1.5, "1", 2**53):
            with pytest.raises(InvalidValue, match="advance"):
                upload.advance(size)  # type: ignore[arg-type]  # invalid
            with pytest.raises(InvalidValue, match="steps"):
                stage.advance(size)  # type: ignore[arg-type]  # invalid
        assert "up" in repr(upload)
        assert (upload.received_bytes, upload.is_tracked) == (0, True)

    assert snapshot.filename == "b?.bin"
    stored = await tracker.get("up", owner="ann")
    assert (stored.filename, stored.group, stored.total_bytes) == ("b?.bin", "g", 7)
    assert stored.metadata == {"k": 1}
    assert sim.memory._owners


async def test_bytes_above_the_largest_number_can_be_stored(sim: Simulation) -> None:
    tracker = sim.tracker
    async with tracker.track(owner="ann", upload_id="up") as upload:
        for _ in range(2500):
            upload.advance(2**53 - 1)
        await sim.run(2)
        assert sim.writes("up")[-1].received_bytes == 2**53 - 1
    await sim.run(0.2)

    assert (await tracker.get("up", owner="ann")).bytes_transferred == 2**53 - 1
    assert not sim.internals.registry.everything()


@pytest.mark.parametrize("ending", ENDINGS)
async def test_upload_is_cancelled_by_its_owner_only(sim: Simulation, ending: str) -> None:
    """An application may drop a file for that reason, and for no other end."""
    live = sim.begin("up", total=10)
    upload = Upload(live)
    assert not upload.is_cancelled

    end_upload(live, ending)

    assert upload.is_cancelled == ending.startswith("cancelled")


async def test_first_claim_sets_the_owner(sim: Simulation) -> None:
    live = sim.internals.admission.open(requested_id="up")
    upload = Upload(live)
    assert [upload.is_tracked] == [False]
    assert upload.claim("ann")
    assert not upload.claim("bob")
    live.begin()
    assert [upload.is_tracked] == [True]
    assert upload.claim("ann")
    assert not upload.claim("bob")
    late = sim.internals.admission.open()
    late.begin()
    assert Upload(late).claim("bob")
    outcomes.client_disconnected(late)
    unowned = sim.internals.admission.open()
    unowned.begin()
    outcomes.client_disconnected(unowned)
    assert Upload(unowned).claim("bob")
    assert not Upload(unowned).claim("ann")
    await sim.run(1)

    assert (await sim.tracker.get(unowned.upload_id, owner="bob")).state is UploadState.FAILED

    for wrong in ("bob", "None", "x"):
        with pytest.raises(UploadNotFound):
            await sim.tracker.get("up", owner=wrong)


async def test_bytes_that_are_passed_on_are_shown_and_are_never_more_than_were_received(
    sim: Simulation,
) -> None:
    async with sim.tracker.track(owner="ann", upload_id="up", total_bytes=100) as upload:
        assert upload.snapshot().stored_bytes is None
        upload.advance(50)
        for size, shown in [(0, 0), (20, 20), (40, 50), (-30, 30), (-40, 0), (15, 5)]:
            upload.stored(size)
            assert upload.snapshot().stored_bytes == shown
        for invalid in (1.5, 2**53):
            with pytest.raises(InvalidValue, match=r"stored\.size_bytes"):
                upload.stored(invalid)  # type: ignore[arg-type]  # invalid
    upload.stored(10)
    assert upload.snapshot().stored_bytes == 5


async def test_passing_on_is_reported_while_no_byte_arrives(sim: Simulation) -> None:
    """At each tenth, and every second."""
    live = sim.begin("up", total=1000)
    upload = Upload(live)
    sim.add(live, 1000)
    live.end_body()
    await sim.run(1)
    for size in (1, 100, 1, 99):
        upload.stored(size)
        await sim.run(0.3)
    await sim.run(1.5)
    upload.stored(1)
    await sim.run(0.2)
    shown = [each.stored_bytes for each in sim.events("up")]
    assert shown[shown.index(1) :] == [1, 101, 201, 202]


async def test_threads_pass_on_parts_of_one_upload(sim: Simulation) -> None:
    """As ``Callback=upload.stored`` of boto3, which sends parts in threads."""
    async with sim.tracker.track(owner="ann", upload_id="up") as upload:
        upload.advance(40_000)

        def pass_on() -> None:
            for _ in range(1000):
                upload.stored(10)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(anyio.to_thread.run_sync, pass_on)
        assert upload.snapshot().stored_bytes == 40_000


async def test_chunk_counts_as_passed_on_when_the_next_one_is_asked_for(sim: Simulation) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"de"

    async with sim.tracker.track(owner="ann", upload_id="up") as upload:
        upload.advance(5)
        seen = [(chunk, upload.snapshot().stored_bytes) async for chunk in upload.pass_on(chunks())]
        assert seen == [(b"abc", None), (b"de", 3)]
        assert upload.snapshot().stored_bytes == 5


async def test_bytes_passed_on_are_reported_after_a_while(sim: Simulation) -> None:
    """So few that no other report is due."""
    live = sim.begin("up", total=1000)
    sim.add(live, 1000)
    live.end_body()
    upload = Upload(live)
    upload.stored(10)
    await sim.run(1)
    assert sim.events("up")[-1].stored_bytes == 10

    upload.stored(5)
    await sim.run(5)

    assert sim.events("up")[-1].stored_bytes == 15
