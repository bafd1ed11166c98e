"""The oracle itself: what it finds, and how it tells it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import pytest
from attrs import define, evolve

from benchmarks.sample_snapshot import sample_snapshot
from tests._support.virtual_time import VirtualClock
from tests.oracle.applications import APPLICATIONS
from tests.oracle.generation import Dimensions, random_scenario, shorten
from tests.oracle.judgement import Failure, failure_of, judge
from tests.oracle.ledger import Expectation, Ledger
from tests.oracle.steps import PROTOCOLS, Cancel, Request, Scenario, Wait
from tests.oracle.surfaces import Surface, Watcher
from tests.oracle.world import GROUP, World
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._model.models import ErrorCode, TransferRecord, UploadError, UploadKey

S = UploadState
THREE_STEPS = Scenario(
    workers=2, load_seconds=0.2, steps=(Wait(), Request(size=4, chunks=2, worker=1), Wait(0.3))
)


@define(eq=False)
class ForgetfulStore(MemoryStore):
    """A store that has no records when it is asked for some."""

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        return []


@define(eq=False)
class NamelessStore(MemoryStore):
    """A store that saves no descriptions."""

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        return await super().save([evolve(record, filename=None, group=None) for record in records])


@define(eq=False)
class BrokenWorld(World):
    """A world that cannot be run."""

    async def run(self) -> None:
        raise ZeroDivisionError


def fails_with(store: type[MemoryStore], scenario: Scenario) -> Failure | None:
    return failure_of(lambda: nullcontext(World(scenario, store(clock=VirtualClock()))), "asyncio")


def test_failure_is_told_with_the_shortest_steps_and_what_has_happened() -> None:
    with pytest.raises(AssertionError) as failure:
        judge([Scenario(), THREE_STEPS], partial(fails_with, ForgetfulStore))

    first, scenario, step, *lines = str(failure.value).splitlines()
    assert "GET at worker" in first
    assert scenario == "Scenario(workers=2)"
    assert step.strip() == "Request()"
    assert "POST /files bytes 0 to 8 at worker 0" in lines[0]
    assert "answered 201 completed" in lines[1]


def test_description_that_is_lost_is_a_failure() -> None:
    failure = fails_with(NamelessStore, Scenario(steps=(Request(endpoint="set"),)))

    assert failure is not None
    assert "the group is None; the file name is None" in failure.message


def test_error_of_the_world_is_a_failure_with_its_traceback() -> None:
    failure = failure_of(lambda: nullcontext(BrokenWorld(Scenario())), "asyncio")

    assert failure is not None
    assert "ZeroDivisionError" in failure.lines[-1]


def test_failures_of_one_kind_differ_only_in_numbers() -> None:
    assert Failure("8 of 24 bytes", ()).kind == Failure("16 of 24 bytes", ()).kind
    assert Failure("8 of 24 bytes", ()).kind != Failure("8 of 24 parts", ()).kind


def test_scenario_is_shortened_within_a_number_of_runs() -> None:
    runs = list[Scenario]()

    def fails(scenario: Scenario) -> bool:
        runs.append(scenario)
        return True

    assert shorten(THREE_STEPS, fails, max_runs=2) == evolve(THREE_STEPS, steps=(Wait(),))
    assert len(runs) == 2


def test_scenario_is_reduced_to_dimensions() -> None:
    none = Dimensions(False, False, False, False, False, False, False, False)  # all off
    scenarios = [random_scenario("tus", seed, none) for seed in range(50)]

    requests = [step for each in scenarios for step in each.steps if isinstance(step, Request)]
    assert all(each.workers == 1 and each.stops_at_end for each in scenarios)
    assert not any(isinstance(step, Cancel) for each in scenarios for step in each.steps)
    assert {(step.status, step.endpoint, step.gap_seconds) for step in requests} == {(0, "", None)}


PAUSED = evolve(sample_snapshot(), state=S.PAUSED, error=None)
FAILED = evolve(PAUSED, state=S.FAILED, error=UploadError(ErrorCode.REJECTED, "no", 413))


def watcher_of(upload_id: str | None, *shown: UploadProgress, **options: bool) -> Watcher:
    surface = Surface("a watcher", Ledger(APPLICATIONS["tus"](has_id=True)), lambda _line: None)
    surface.shown |= {snapshot.upload_id: snapshot for snapshot in shown}
    return Watcher(ProgressTracker(), surface, upload_id, **options)


@pytest.mark.parametrize(
    ("watcher", "problem"),
    [
        (watcher_of(None, PAUSED), None),
        (watcher_of(None), "was not shown all uploads"),
        (watcher_of(None, misses_events=True), None),
        (watcher_of(PAUSED.upload_id), "was shown nothing"),
        (watcher_of(PAUSED.upload_id, has_ended=True), None),
        (watcher_of(PAUSED.upload_id, FAILED, has_ended=True), "was last shown"),
        (watcher_of(PAUSED.upload_id, evolve(FAILED, attempt=0), has_ended=True), None),
    ],
)
def test_watcher_must_be_shown_what_the_workers_show(watcher: Watcher, problem: str | None) -> None:
    found = watcher.problem({PAUSED.upload_id: PAUSED})

    assert (found is None) if problem is None else (problem in (found or ""))


def test_watcher_of_an_upload_must_end_with_it() -> None:
    watcher = watcher_of(FAILED.upload_id, FAILED)

    assert "does not end" in (watcher.problem({FAILED.upload_id: FAILED}) or "")


def test_only_failed_and_cancelled_uploads_have_an_error() -> None:
    expectation = Expectation(frozenset({S.PAUSED, S.FAILED}), 0, 2**53)

    assert expectation.allows(PAUSED)
    assert expectation.allows(FAILED)
    assert not expectation.allows(evolve(FAILED, error=None))
    assert not expectation.allows(evolve(PAUSED, error=FAILED.error))


@pytest.mark.parametrize(
    ("allowed", "problems"),
    [(None, ["failed uploads are shown that there were not"]), (S.FAILED, [])],
)
def test_failed_creation_must_have_been_tried(
    allowed: UploadState | None, problems: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Expectation(frozenset({allowed}), 0, 1 << 53)
    monkeypatch.setattr(Ledger, "expectation", lambda _: expected)
    shown = evolve(
        sample_snapshot(),
        upload_id="other",
        state=S.FAILED,
        group=GROUP,
        error=UploadError(ErrorCode.REJECTED, "", 500),
    )

    assert World(Scenario("tus", has_id=False))._untruths({"other": shown}) == problems


def test_requests_at_one_resource_are_one_upload() -> None:
    shown = {name: evolve(sample_snapshot(), upload_id=name) for name in ("one", "other")}

    assert World(Scenario())._untruths(shown) == ["one upload is shown as 2"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scenario_has_a_number(protocol: str) -> None:
    assert random_scenario(protocol, 5) == random_scenario(protocol, 5)
    assert random_scenario(protocol, 5) != random_scenario(protocol, 6)
