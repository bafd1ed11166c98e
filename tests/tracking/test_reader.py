"""Reading progress: single uploads, lists and their pages."""

from __future__ import annotations

import pytest

from tests._support.simulation import Simulation
from upload_progress import InvalidValue, StoreUnavailable, UploadProgress, UploadState
from upload_progress._runtime import circuit_breaker
from upload_progress._tracking import reader

pytestmark = pytest.mark.anyio

S = UploadState


async def test_list_has_pages_and_filters(sim: Simulation) -> None:
    for number in range(5):
        await sim.tracker.announce(owner="ann", total_bytes=10, group="g" if number else None)
        await sim.run(1)
    live = sim.begin("live", total=50)
    sim.add(live, 25)
    done = sim.begin("done", total=1)
    done.end_body()
    done.finish(200)
    await sim.run(1)

    everything = await sim.tracker.list(owner="ann")
    assert len(everything.uploads) == 7
    assert (everything.total.uploads, everything.total.total_bytes) == (7, 101)
    times = [each.created_at for each in everything.uploads]
    assert times == sorted(times, reverse=True)

    listed: list[UploadProgress] = []
    cursor: str | None = None
    while True:
        page = await sim.tracker.list(owner="ann", limit=3, cursor=cursor)
        assert page.total == everything.total
        listed += page.uploads
        cursor = page.next
        if cursor is None:
            break
    assert [each.upload_id for each in listed] == [each.upload_id for each in everything.uploads]

    grouped = await sim.tracker.list(owner="ann", group="g")
    assert len(grouped.uploads) == 4
    completed = await sim.tracker.list(owner="ann", states=[S.COMPLETED])
    assert [each.upload_id for each in completed.uploads] == ["done"]
    await sim.run(400)
    assert len((await sim.tracker.list(owner="ann")).uploads) == 6
    assert len((await sim.tracker.list(owner="ann", states=set(S))).uploads) == 7
    assert (await sim.tracker.list(owner="bob")).uploads == ()


async def test_list_reads_several_pages_of_the_store(sim: Simulation) -> None:
    for _ in range(60):
        await sim.tracker.announce(owner="ann")
    for _ in range(60):
        sim.begin().client_disconnected()
    await sim.run(1)

    page = await sim.tracker.list(owner="ann", limit=500)

    assert len(page.uploads) == 120
    assert page.next is None


async def test_list_is_cut_at_the_maximum(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest uploads come first."""
    monkeypatch.setattr(reader, "MAX_LISTED", 2 * reader.STORE_PAGE)
    for _ in range(2 * reader.STORE_PAGE + 1):
        sim.begin().client_disconnected()
        await sim.run(0.2)

    page = await sim.tracker.list(owner="ann", limit=500)

    assert len(page.uploads) == page.total.uploads == 2 * reader.STORE_PAGE
    assert min(each.created_at for each in page.uploads).timestamp() > 1_800_000_000.1


@pytest.mark.parametrize("options", [{"cursor": "x"}, {"cursor": ""}, {"limit": 0}, {"limit": -5}])
async def test_invalid_page_is_rejected(sim: Simulation, options: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=r"query\."):
        await sim.tracker.list(owner="ann", **options)  # type: ignore[arg-type]  # refused
    assert (await sim.tracker.list(owner="ann", cursor="nan~x")).uploads == ()


async def test_store_outage_is_an_error_unless_the_upload_is_live(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "CALL_SECONDS", 0.01)
    live = sim.begin("up", total=10)
    sim.store.fault = "hang"

    assert (await sim.tracker.get("up", owner="ann")).state is S.RECEIVING
    with pytest.raises(StoreUnavailable):
        await sim.tracker.get("other", owner="ann")
    with pytest.raises(StoreUnavailable):
        await sim.tracker.announce(owner="ann")
    with pytest.raises(StoreUnavailable):
        await sim.tracker.watch("other", owner="ann").__anext__()
    await sim.tracker.cancel("up", owner="ann")
    assert live.state is S.CANCELLED
    assert len(sim.internals.hub) == 0
