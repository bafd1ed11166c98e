"""Random scenarios, and the search for the shortest one that fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, takewhile
from random import Random
from typing import TypeVar

from attrs import evolve, fields, frozen

from tests.oracle.steps import (
    PARTS,
    TOTAL,
    Authentication,
    Cancel,
    Kind,
    Request,
    Scenario,
    Step,
    Wait,
    Watch,
)

__all__ = ["ALL", "Dimensions", "random_scenario", "shorten"]

T = TypeVar("T")

KINDS = (*[Kind.BYTES] * 8, *[Kind.CREATE] * 3, *[Kind.FINISH] * 3, Kind.ABORT, Kind.ASK)
SIZES = (8, 8, 8, 1, 4, 12, 16, 24, 24, 0)
STATUSES = (409, 409, 423, 460, 500, 503, None, None, 401, 403, 404, 410, 413, 422, 307, 303)
STRAY_STATUSES = (404, 404, 410)
GAPS = (0.0, 0.003, 0.05, 0.3, 1.5)
MAX_STEPS = 9
MAX_RUNS = 300


@frozen
class Dimensions:
    """What scenarios vary.

    Attributes:
        identities: When ``authenticate`` answers.
        overlaps: Whether a request is sent before the one before it has ended.
        endpoints: Whether the application describes uploads, or fails them.
        workers: Whether there are two workers.
        races: Whether a worker may get a request before it knows what the other has done.
        refusals: Whether the application refuses requests, or breaks off.
        late_requests: Whether requests follow the end of the upload.
        cancels: Whether the owner cancels.
        strays: Whether requests go to addresses that do not exist.
    """

    identities: bool = True
    overlaps: bool = True
    endpoints: bool = True
    workers: bool = True
    races: bool = True
    refusals: bool = True
    late_requests: bool = True
    cancels: bool = True
    strays: bool = False


ALL = Dimensions()
"""All that sequences had from the beginning: what was added since is not in their numbers."""


class _Dice(Random):
    """Random numbers, with the choices that scenarios need."""

    def mostly(self, usual: T, *others: T) -> T:
        """Return *usual* three times of four."""
        return usual if self.random() < 0.75 else self.choice(others)


def random_scenario(protocol: str, seed: int, dimensions: Dimensions = ALL) -> Scenario:
    """Return the scenario of that protocol with the number *seed*, reduced to *dimensions*."""
    scenario = _any_scenario(protocol, seed)
    if dimensions.strays:
        scenario = _with_stray(scenario, _Dice(f"stray {protocol} {seed}"))
    return evolve(
        scenario,
        workers=scenario.workers if dimensions.workers else 1,
        stops_at_end=not dimensions.late_requests,
        has_races=dimensions.races,
        steps=tuple(
            _reduced(step, dimensions)
            for step in scenario.steps
            if dimensions.cancels or not isinstance(step, Cancel)
        ),
    )


def _with_stray(scenario: Scenario, dice: _Dice) -> Scenario:
    """Return a scenario with one request more, if the client names the upload."""
    if not scenario.has_id or dice.random() < 0.5:
        return scenario
    stray = evolve(
        _random_request(dice),
        kind=Kind.STRAY,
        status=dice.choice(STRAY_STATUSES),
        endpoint="",
        breaks_after=None,
        cancelled_after=None,
    )
    at, steps = dice.randint(0, len(scenario.steps)), scenario.steps
    return evolve(scenario, steps=(*steps[:at], stray, *steps[at:]))


def _reduced(step: Step, dimensions: Dimensions) -> Step:
    if not isinstance(step, Request):
        return step
    usual = Request()
    if not dimensions.identities:
        step = evolve(step, authentication=usual.authentication)
    if not dimensions.overlaps:
        step = evolve(step, gap_seconds=usual.gap_seconds)
    if not dimensions.endpoints:
        step = evolve(step, endpoint=usual.endpoint)
    if not dimensions.refusals:
        step = evolve(step, status=0, kept=usual.kept, breaks_after=None, cancelled_after=None)
    return step


def _any_scenario(protocol: str, seed: int) -> Scenario:
    dice = _Dice(f"{protocol} {seed}")
    return Scenario(
        protocol=protocol,
        has_id=dice.random() < 0.5,
        is_announced=dice.mostly(False, True),
        workers=dice.choice((1, 2)),
        save_seconds=dice.mostly((0.0, 0.0), (0.05, 0.0), (0.0, 0.05), (0.2, 0.2), (0.0, 0.7)),
        load_seconds=dice.mostly(0.0, 0.05, 0.2, 0.7),
        event_seconds=dice.mostly(0.0, 0.05, 0.8),
        lost_events=dice.mostly(0, 1, 2, 3),
        is_long=dice.random() < 0.1,
        steps=tuple(_random_step(dice) for _ in range(dice.randint(1, MAX_STEPS))),
        is_reversed=dice.random() < 0.5,
    )


def _random_step(dice: _Dice) -> Step:
    kind = dice.random()
    if kind < 0.76:
        return _random_request(dice)
    if kind < 0.82:
        return Cancel(dice.choice((0, 1)))
    if kind < 0.92:
        return Watch(dice.choice((0, 1)), dice.random() < 0.5)
    return Wait(dice.choice((0.05, 0.3, 2.5, 6.0)))


def _random_request(dice: _Dice) -> Request:
    return Request(
        kind=dice.choice(KINDS),
        worker=dice.choice((0, 1)),
        start=dice.mostly(None, 0, 4, 8, 16),
        size=dice.choice(SIZES),
        part=dice.randrange(PARTS),
        status=dice.mostly(0, *STATUSES),
        kept=dice.mostly(TOTAL, 0, 1, 4),
        chunks=dice.choice((1, 2, 3)),
        pace_seconds=dice.mostly(0.0, 0.05, 0.3, 2.2),
        breaks_after=dice.mostly(None, None, 0, 1, 4, 8),
        keeps_broken=dice.random() < 0.5,
        cancelled_after=dice.mostly(None, None, None, 0.02, 0.31),
        is_early=dice.mostly(False, False, False, True),
        think_seconds=dice.mostly(0.0, 0.05, 0.4, 1.5),
        endpoint=dice.mostly("", "set", "set", "fail"),
        authentication=_random_authentication(dice),
        gap_seconds=None if dice.random() < 0.5 else dice.choice(GAPS),
    )


def _random_authentication(dice: _Dice) -> Authentication:
    refusals = dice.mostly(0, 0, 1, 1, 99)
    after = None if dice.random() < 0.6 else dice.choice((0.0, 0.003, 0.06, 0.4, 2.0, 4.0))
    return Authentication(refusals, after)


def shorten(
    scenario: Scenario, fails: Callable[[Scenario], bool], *, max_runs: int = MAX_RUNS
) -> Scenario:
    """Return a scenario that still fails, from which nothing can be left out.

    Args:
        scenario: One that fails.
        fails: Whether a scenario fails in the same way.
        max_runs: How many scenarios may be tried.
    """
    runs = count()
    shorter: Scenario | None = scenario
    while shorter is not None:
        scenario = shorter
        tried = takewhile(lambda _: next(runs) < max_runs, _simpler(scenario))
        shorter = next(filter(fails, tried), None)
    return scenario


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with one step less, or with one default more."""
    steps = scenario.steps
    for at in reversed(range(len(steps))):
        yield evolve(scenario, steps=(*steps[:at], *steps[at + 1 :]))
    for attribute in fields(Scenario):
        usual = getattr(Scenario(), attribute.name)
        is_kept = attribute.name in {"protocol", "steps", "has_races"}
        if not is_kept and getattr(scenario, attribute.name) != usual:
            yield evolve(scenario, **{attribute.name: usual})
    for at, step in enumerate(steps):
        for simple in _simpler_steps(step):
            yield evolve(scenario, steps=(*steps[:at], simple, *steps[at + 1 :]))


def _simpler_steps(step: Step) -> Iterator[Step]:
    usual = type(step)()
    for attribute in fields(type(step)):
        value = getattr(usual, attribute.name)
        if getattr(step, attribute.name) != value:
            yield evolve(step, **{attribute.name: value})
