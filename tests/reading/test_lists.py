"""Lists: pages that merge what is received here with the store, and sums that are bounded."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests._support.records import record
from tests._support.simulation import Simulation
from upload_progress import UploadPage, UploadState
from upload_progress._reading import lists
from upload_progress._tracking import outcomes

pytestmark = pytest.mark.anyio

S = UploadState
NOW = 1_800_000_000.0


async def save(sim: Simulation, *names: str, **changes: object) -> None:
    """Store uploads that have ended now, each created 10 s after the one before."""
    fields = {
        "state": S.COMPLETED,
        "worker": None,
        "received_bytes": 5,
        "total_bytes": 5,
        "finished_at": NOW,
        **changes,
    }
    await sim.memory.save(
        [
            record(name, **{"created_at": NOW - 1000 + 10 * number, **fields})
            for number, name in enumerate(names)
        ]
    )


async def pages_of(sim: Simulation, limit: int, **options: object) -> list[UploadPage]:
    pages, cursor = list[UploadPage](), None
    while not pages or cursor is not None:
        page = await sim.tracker.list(owner="ann", limit=limit, cursor=cursor, **options)  # type: ignore[arg-type]  # any options
        pages.append(page)
        cursor = page.next
    return pages


def ids(*pages: UploadPage) -> list[str]:
    return [upload.upload_id for page in pages for upload in page.uploads]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9])
async def test_each_upload_is_on_one_page(sim: Simulation, limit: int) -> None:
    """Received here: the newest, one between two of the store, the oldest, one that is stored."""
    await save(sim, "a", "b", "c", "d", "e")
    for name, created_at in {
        "new": NOW,
        "b2": NOW - 985,
        "old": NOW - 2000,
        "d": NOW - 970,
    }.items():
        sim.begin(name, total=10).created_at = created_at

    pages = await pages_of(sim, limit)

    assert ids(*pages) == ["new", "e", "d", "c", "b2", "b", "a", "old"]
    assert {len(page.uploads) for page in pages[:-1]} <= {limit}
    assert {page.total.uploads for page in pages} == {8}
    assert not any(page.total.approximate for page in pages)


async def test_upload_that_ends_between_two_pages_is_not_repeated(sim: Simulation) -> None:
    await save(sim, "a", "b")
    live = sim.begin("new", total=1)
    first = await sim.tracker.list(owner="ann", limit=2)
    live.end_body()
    outcomes.finish(live, 200)
    await sim.run(1)
    assert sim.internals.registry.find("ann", "new") is None

    second = await sim.tracker.list(owner="ann", limit=2, cursor=first.next)

    assert ids(first, second) == ["new", "b", "a"]


async def test_page_is_one_call_of_the_store(sim: Simulation) -> None:
    """With the sum as well, if it is the only page; with pages, the sum is read once for all."""
    await save(sim, *(f"u{number:03}" for number in range(150)))
    calls = [sim.store.calls]

    whole = await sim.tracker.list(owner="ann", limit=150)
    calls.append(sim.store.calls)
    pages = await pages_of(sim, 50)
    calls.append(sim.store.calls)

    assert ids(whole) == ids(*pages)
    assert [later - earlier for earlier, later in pairwise(calls)] == [1, 4]


async def test_sum_of_later_pages_is_read_again_after_some_seconds(sim: Simulation) -> None:
    await save(sim, "a", "b", "c")
    first = await sim.tracker.list(owner="ann", limit=1)
    await save(sim, "d", "e")
    assert (await sim.tracker.list(owner="ann", limit=1, cursor=first.next)).total.uploads == 3
    sim.clock.advance(lists.TOTAL_SECONDS + 1)
    assert (await sim.tracker.list(owner="ann", limit=1, cursor=first.next)).total.uploads == 5
    await save(sim, "f")
    assert (await sim.tracker.list(owner="ann", limit=1)).total.uploads == 6


async def test_number_of_kept_sums_is_bounded(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "KEPT_TOTALS", 3)
    await save(sim, "a", "b", group="g")
    for state in S:
        await sim.tracker.list(owner="ann", states=[S.COMPLETED, state], limit=1)

    assert len(sim.internals.reader._lists._totals) == 3


async def test_sum_over_many_uploads_says_that_it_is_approximate(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest uploads are summed, and those that are received here."""
    monkeypatch.setattr(lists, "MAX_SUMMED", 30)
    monkeypatch.setattr(lists, "SUM_PAGE", 20)
    await save(sim, *(f"u{number:03}" for number in range(30)))
    sim.add(sim.begin("live", total=10), 5)
    exact = (await sim.tracker.list(owner="ann", limit=2)).total
    await save(sim, "one more", created_at=NOW)

    total = (await sim.tracker.list(owner="ann", limit=2)).total

    assert (exact.approximate, exact.uploads, exact.bytes_transferred) == (False, 31, 155)
    assert (total.approximate, total.uploads, total.bytes_transferred) == (True, 31, 155)


async def test_page_is_selected_from_a_bounded_number_of_uploads(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a filter it may be short, and even empty, although another one follows."""
    monkeypatch.setattr(lists, "MAX_SCANNED", 4)
    await save(sim, "wanted", state=S.FAILED)
    await save(sim, *(f"u{number}" for number in range(10)), created_at=NOW - 500)

    pages = await pages_of(sim, 2, states=[S.FAILED])

    assert [ids(page) for page in pages] == [[], [], ["wanted"]]
    assert {page.total.uploads for page in pages} == {1}


async def test_group_and_states_select_what_is_received_here(sim: Simulation) -> None:
    sim.begin("here").group = "g"
    sim.begin("there")
    await save(sim, "stored", group="g")

    assert ids(await sim.tracker.list(owner="ann", group="g")) == ["here", "stored"]
    assert ids(await sim.tracker.list(owner="ann", states=[S.COMPLETED])) == ["stored"]
    assert ids(await sim.tracker.list(owner="ann", states=[S.RECEIVING])) == ["there", "here"]
