"""Reading progress: single uploads, lists and their pages."""

from __future__ import annotations

import pytest

from tests._support.protocol_apps import FileApp, ResponseHead, S3App, TusApp, send_request
from tests._support.scripted_server import ALICE, Receive, Scope, body_messages
from tests._support.simulation import Simulation
from upload_progress import (
    InvalidValue,
    ProgressTracker,
    StoreUnavailable,
    UploadNotFound,
    UploadProgress,
    UploadState,
)
from upload_progress._internals import internals_of
from upload_progress._model.models import UploadKey
from upload_progress._runtime import circuit_breaker
from upload_progress._tracking import outcomes

pytestmark = pytest.mark.anyio

S = UploadState


# --- offset ---------------------------------------------------------------------------------------


async def offset_of(sim: Simulation, owner: str = ALICE.id) -> int:
    """Return the first byte that is not accepted, as this and another worker know it."""
    [shown] = (await sim.tracker.list(owner=owner, states=set(S))).uploads
    key = UploadKey(owner, shown.upload_id)
    other = ProgressTracker(store=sim.memory, clock=sim.clock)
    here = await sim.internals.reader.get_offset(key)
    await sim.run(0.2)
    elsewhere = await internals_of(other).reader.get_offset(key)
    assert elsewhere[1] == here[1]
    return here[1]


async def put_range(sim: Simulation, first: int, last: int, app: FileApp | None = None) -> None:
    headers = {"content-range": f"bytes {first}-{last}/100"}
    content = b"x" * (last - first + 1)
    await send_request(app or FileApp(), sim.tracker, "PUT", "/a", headers=headers, content=content)


class RefusingApp(FileApp):
    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        await super().respond(scope, receive)
        return 503, {}


async def test_offset_is_the_first_byte_that_is_not_accepted(sim: Simulation) -> None:
    await put_range(sim, 50, 59)
    assert await offset_of(sim) == 0
    await put_range(sim, 0, 9)
    assert await offset_of(sim) == 10
    await put_range(sim, 10, 49, RefusingApp())
    assert await offset_of(sim) == 10
    await put_range(sim, 10, 49)
    assert await offset_of(sim) == 60
    await put_range(sim, 60, 99)
    assert await offset_of(sim) == 100


async def test_bytes_of_a_broken_request_are_not_accepted(sim: Simulation) -> None:
    app, headers = TusApp(), {"tus-resumable": "1.0.0"}
    await send_request(
        app, sim.tracker, "POST", "/files", headers={**headers, "upload-length": "30"}
    )
    headers |= {"content-type": "application/offset+octet-stream", "upload-offset": "0"}
    await send_request(
        app,
        sim.tracker,
        "PATCH",
        "/files/0",
        headers=headers,
        messages=[*body_messages(b"x" * 10)[:1], {"type": "http.disconnect"}],
    )

    assert await offset_of(sim) == 0


async def test_parts_are_accepted_unless_one_is_missing_before_them(sim: Simulation) -> None:
    for number, offset in ((2, 0), (1, 20), (4, 0), (3, 40)):
        path = f"/b/k?uploadId=u&partNumber={number}"
        await send_request(S3App(), sim.tracker, "PUT", path, content=b"x" * 10)
        assert await offset_of(sim) == offset


async def test_one_request_is_accepted_with_its_response(sim: Simulation) -> None:
    live = sim.begin("up", total=10)
    assert await offset_of(sim, "ann") == 0
    sim.add(live, 10)
    live.end_body()
    assert await offset_of(sim, "ann") == 0
    outcomes.finish(live, 200)
    assert await offset_of(sim, "ann") == 10
    with pytest.raises(UploadNotFound):
        await sim.internals.reader.get_offset(UploadKey("ann", "unknown"))


# --- lists ----------------------------------------------------------------------------------------


async def test_list_has_pages_and_filters(sim: Simulation) -> None:
    for number in range(5):
        await sim.tracker.announce(owner="ann", total_bytes=10, group="g" if number else None)
        await sim.run(1)
    live = sim.begin("live", total=50)
    sim.add(live, 25)
    done = sim.begin("done", total=1)
    done.end_body()
    outcomes.finish(done, 200)
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


@pytest.mark.parametrize("options", [{"cursor": "x"}, {"cursor": ""}, {"limit": 0}, {"limit": -5}])
async def test_invalid_page_is_rejected(sim: Simulation, options: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=r"query\."):
        await sim.tracker.list(owner="ann", **options)  # type: ignore[arg-type]  # refused
    assert (await sim.tracker.list(owner="ann", cursor="nan:x:")).uploads == ()


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
