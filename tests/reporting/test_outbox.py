"""The outbox: events wait for the publisher, the newest of each upload."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from attrs import define, evolve, field

from benchmarks.sample_snapshot import sample_snapshot
from tests._support.simulation import Simulation
from upload_progress import CloudEvent, MemoryStore, UploadState
from upload_progress._fanout.update import Topic, Update
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._reading.store_parts import StoreParts
from upload_progress._reporting import outbox as outbox_module
from upload_progress._reporting.end_outbox import EndOutbox
from upload_progress._reporting.outbox import Outbox
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.worker import Worker
from upload_progress._tracking import outcomes
from upload_progress.testing import FakeClock, Fault, RecordingPublisher

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.mark.parametrize("fault", ["raise", "hang"])
@pytest.mark.usefixtures("short_call_timeout")
async def test_publisher_outage_delays_the_last_event_of_each_upload(
    sim: Simulation, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """One event per upload waits at most, and the end is not lost."""
    sim.publisher.fault = fault
    for number in range(20):
        live = sim.begin(f"up{number}", total=100)
        await sim.run(0.5)
        outcomes.client_disconnected(live)
        await sim.run(0.5)
    assert len(sim.internals.flusher.outbox) == 20
    assert len(sim.internals.registry) == 0

    sim.publisher.fault = None
    await sim.run(6)

    for number in range(20):
        assert [event.state for event in sim.events(f"up{number}")] == [S.FAILED]
    assert len(caplog.records) == 1
    assert sim.internals.flusher.is_idle


@define(eq=False, repr=False)
class SelectivePublisher(RecordingPublisher):
    """Refuses each batch with an event of a refused owner, as one event that cannot be encoded.

    Attributes:
        refused: The owners; ``*`` refuses everything.
    """

    refused: set[str] = field(factory=set, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        if "*" in self.refused or self.refused & {event.owner for event in events}:
            raise UnicodeEncodeError("latin-1", "", 0, 1, "no such character")
        await super().publish(events)


@define(eq=False, repr=False)
class Line:
    """An outbox with a fake clock, before a publisher that refuses some events."""

    clock: FakeClock = field(factory=FakeClock)
    publisher: SelectivePublisher = field(factory=SelectivePublisher)
    outbox: Outbox = field(init=False)

    def __attrs_post_init__(self) -> None:
        breaker = CircuitBreaker("the event publisher", self.clock)
        loader = RecordLoader(StoreParts(MemoryStore(), breaker), self.clock, "/uploads")
        self.outbox = Outbox(
            publisher=self.publisher,
            breaker=breaker,
            ends=EndOutbox(loader, Worker(), is_enabled=False),
            is_held=frozenset[str]().__contains__,
            source="/tests",
            namespace="tests",
            log_limiter=LogLimiter(self.clock),
        )

    async def send(self, *updates: Update, passes: int = 1) -> None:
        """Send *updates*, and then nothing more, every 10 s."""
        await self.outbox.send(by_topic(updates))
        for _ in range(passes - 1):
            self.clock.advance(10)
            await self.outbox.send({})

    @property
    def published(self) -> list[tuple[str, str, int, bool]]:
        """Owner, upload, attempt, and whether it is an end, of each published event."""
        return [
            (each.owner, each.subject, each.data.attempt, each.data.state is S.COMPLETED)
            for each in self.publisher.events
        ]


def by_topic(updates: Sequence[Update]) -> dict[Topic, Update]:
    return {update.topic: update for update in updates}


def report(owner: str, upload_id: str = "up", attempt: int = 1, sequence: int = 1) -> Update:
    progress = evolve(sample_snapshot(), upload_id=upload_id, attempt=attempt, sequence=sequence)
    return Update(owner, evolve(progress, state=S.RECEIVING))


def end(owner: str, upload_id: str = "up", attempt: int = 1) -> Update:
    progress = evolve(sample_snapshot(), upload_id=upload_id, attempt=attempt, sequence=9)
    return Update(owner, evolve(progress, state=S.COMPLETED))


async def test_refused_event_stops_no_other_event(caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again after others were accepted, and then dropped and counted."""
    line = Line()
    line.publisher.refused = {"bad"}
    owners = [f"good{number}" for number in range(20)]
    await line.send(*map(end, owners[:10]), end("bad"), *map(end, owners[10:]), passes=30)
    assert {owner for owner, *_ in line.published} == set(owners)
    assert len(line.outbox) == 1

    for number in range(3):
        await line.send(end("later", f"up{number}"), passes=3)

    assert len(line.outbox) == 0
    assert (line.outbox.dropped, line.outbox.dropped_ends) == (1, 1)
    assert not line.outbox._refusals
    assert "the broker refuses an event, or it cannot be encoded: it is dropped" in caplog.text


async def test_event_is_kept_while_the_broker_accepts_none() -> None:
    line = Line()
    line.publisher.refused = {"*"}
    await line.send(end("ann"), end("bob"), report("cid"), passes=50)
    assert len(line.outbox) == 3

    line.publisher.refused = set()
    await line.send(passes=3)

    assert {owner for owner, *_ in line.published} == {"ann", "bob", "cid"}
    assert line.outbox.dropped == 0


async def test_event_that_was_refused_once_is_published() -> None:
    line = Line()
    line.publisher.refused = {"ann"}
    await line.send(end("ann"), passes=2)
    await line.send(end("bob"), passes=2)
    line.publisher.refused = set()
    await line.send(passes=3)

    assert [owner for owner, *_ in line.published] == ["bob", "ann"]
    assert not line.outbox._refusals


async def test_ends_are_dropped_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_UNPUBLISHED", 4)
    line = Line()
    line.publisher.refused = {"*"}
    await line.send(end("ann"), report("bob"), report("cid"), report("dan"))
    await line.send(end("eve"), end("fay"))
    assert (len(line.outbox), line.outbox.waiting_ends) == (4, 3)
    assert (line.outbox.dropped, line.outbox.dropped_ends) == (2, 0)
    await line.send(end("gil"), end("hal"))
    line.publisher.refused = set()
    await line.send(passes=4)

    assert [owner for owner, *_ in line.published] == ["eve", "fay", "gil", "hal"]
    assert (line.outbox.dropped, line.outbox.dropped_ends) == (4, 1)
    assert caplog.text.count("the oldest are dropped") == 1


async def test_end_of_an_attempt_is_not_replaced_by_the_next_attempt() -> None:
    line = Line()
    line.publisher.refused = {"*"}
    await line.send(report("ann"))
    await line.send(end("ann"))
    await line.send(report("ann", attempt=2, sequence=11))
    await line.send(report("ann", attempt=2, sequence=12))
    line.publisher.refused = set()
    await line.send(passes=3)

    assert line.published == [("ann", "up", 1, True), ("ann", "up", 2, False)]
    assert line.publisher.events[-1].data.sequence == 12


async def test_report_that_failed_does_not_replace_a_newer_one() -> None:
    """Nor does it follow the end, if that came meanwhile."""
    line, newer = Line(), [report("ann", sequence=2), end("bob")]

    class Overtaken(SelectivePublisher):
        async def publish(self, _events: Sequence[CloudEvent]) -> None:
            line.outbox.publisher = line.publisher
            line.outbox.hold({each.topic: each for each in newer})
            raise OSError

    line.outbox.publisher = Overtaken()
    await line.send(report("ann"), report("bob"))
    await line.send(passes=3)

    assert [event.data.sequence for event in line.publisher.events] == [2, 9]


async def test_events_that_wait_at_the_stop_are_logged(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    """As well as the ends that could not be stored."""
    caplog.set_level(logging.WARNING)
    sim.publisher.fault = sim.store.fault = "raise"
    ended, open_ = sim.begin("ended", total=9), sim.begin(total=9)
    await sim.run(0.5)
    outcomes.client_disconnected(ended)
    sim.add(open_, 5)
    await sim.run(0.5)
    await sim.internals.flusher.finish()

    assert (
        "stopped before the event publisher had accepted 2 events, of which 1 are ends"
        in caplog.text
    )
    assert "stopped before the store had accepted the ends of 1 uploads" in caplog.text


async def test_nothing_is_logged_at_the_stop_if_nothing_waits(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes.client_disconnected(sim.begin("up", total=9))
    await sim.internals.flusher.finish()

    assert not caplog.records
