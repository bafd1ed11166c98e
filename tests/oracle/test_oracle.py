"""Random sequences of requests, against a model of what the application really has.

The same sequences in every run; `--oracle-examples` and `--oracle-seed` choose others, as the nox
session `nightly` does. A failure tells the shortest sequence that fails in the same way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext

import pytest
from redis.asyncio import Redis

from tests.oracle.generation import Dimensions, random_scenario
from tests.oracle.judgement import Failure, failure_of, judge
from tests.oracle.steps import (
    PROTOCOLS,
    Authentication,
    Cancel,
    Kind,
    Request,
    Scenario,
    Watch,
)
from tests.oracle.system import WithoutLeases
from tests.oracle.world import World
from upload_progress.backends.redis import RedisPublisher, RedisStore

SHARES = 4
"""The sequences of a protocol are tested in so many parts, which may run in several processes."""
DIMENSIONS = Dimensions(identities=False, late_requests=False, workers=False, races=False)
"""What the sequences vary; without arguments everything.

What is switched off is not yet true of all sequences:

* ``identities``: if the owner of a request is known only after the next requests of the upload, the
  report may lack bytes, begin another attempt, or keep an older end.
* ``late_requests``: an OCI session after a blob under the same ``Upload-Id`` shows no more bytes
  than the blob had; a query after a broken first piece brings back the attempt before.
* ``workers``: after an upload was abandoned at one worker, the next attempt, created at another one
  that had received bytes of it, may be lost.
* ``races``: if two workers get requests of an upload before one has read what the other has stored,
  bytes may be counted twice, and a creation or a rejection at one of them may be lost.
"""
FULL_EXAMPLES = {"concatenation": 36, "tus": 41}
"""Sequences of a protocol in which everything varies: 60, or up to the first one that fails because
of ``races``."""
NEVER = Authentication(refusals=99)
LATE = Authentication(after_seconds=0.4)
TRIO_EXAMPLES = 2
REDIS_EXAMPLES = 5


@pytest.fixture
def seeds(pytestconfig: pytest.Config, share: int) -> range:
    """Return the numbers of the sequences of one share."""
    first, count = pytestconfig.getoption("oracle_seed"), pytestconfig.getoption("oracle_examples")
    return range(first + share, first + -(-count // len(PROTOCOLS)), SHARES)


def scenarios(protocol: str, seeds: Iterable[int]) -> Iterator[Scenario]:
    """Return the scenarios of a protocol with these numbers."""
    return (random_scenario(protocol, seed, DIMENSIONS) for seed in seeds)


def fails(scenario: Scenario, backend: str = "asyncio") -> Failure | None:
    """Return what is wrong after the steps of *scenario*, with a store in memory."""
    return failure_of(lambda: nullcontext(World(scenario)), backend)


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true(protocol: str, seeds: range) -> None:
    judge(scenarios(protocol, seeds), fails)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true_if_everything_varies(protocol: str) -> None:
    seeds = range(FULL_EXAMPLES.get(protocol, 60))
    judge((random_scenario(protocol, seed) for seed in seeds), fails)


def test_reports_are_true_at_two_workers_without_races() -> None:
    dimensions = Dimensions(races=False)
    judge((random_scenario("plain", seed, dimensions) for seed in range(10)), fails)


CHOSEN = {
    "concatenation of three parts": Scenario(
        "concatenation",
        steps=(
            *(Request(part=part) for part in (0, 1, 2, 2, 1, 0)),
            Watch(),
            Request(Kind.FINISH),
            Watch(),
        ),
    ),
    "S3 completion that fails in the body of its response": Scenario(
        "s3", steps=(Request(), Request(Kind.FINISH, kept=1))
    ),
    "S3 completion of an upload whose owner is not known before": Scenario(
        "s3", steps=(Request(authentication=NEVER), Request(Kind.FINISH))
    ),
    "fail() and an exception": Scenario(steps=(Request(endpoint="fail", status=None),)),
    "announced upload that is never sent": Scenario(
        is_announced=True, steps=(Request(authentication=NEVER), Cancel())
    ),
    "piece whose owner is known late, when the upload has continued": Scenario(
        "range",
        steps=(
            Request(size=4, status=409, authentication=LATE),
            Request(),
            Request(size=24, breaks_after=8),
        ),
    ),
    "piece whose owner is known late, when the upload is stored": Scenario(
        "range",
        steps=(
            Request(breaks_after=0, authentication=Authentication(after_seconds=2.0)),
            Request(status=307, authentication=LATE),
            Request(size=12),
        ),
    ),
    "next attempt after a late piece of the one before": Scenario(
        "range", steps=(Request(), Request(size=16, think_seconds=1.5), Request(start=8), Request())
    ),
    "OCI closing request that is refused before the bytes have come": Scenario(
        "oci", has_id=False, steps=(Request(), Request(Kind.FINISH, size=0, status=409), Request())
    ),
    "nothing after the end": Scenario("tus", stops_at_end=True, steps=(Request(size=24),) * 3),
}
"""Scenarios that random sequences seldom contain."""


@pytest.mark.parametrize("name", CHOSEN)
def test_chosen_reports_are_true(name: str) -> None:
    judge([CHOSEN[name]], fails)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true_on_trio(protocol: str) -> None:
    judge(scenarios(protocol, range(TRIO_EXAMPLES)), lambda each: fails(each, "trio"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true_with_redis(protocol: str, redis_url: str) -> None:
    def fails(scenario: Scenario) -> Failure | None:
        @asynccontextmanager
        async def opened() -> AsyncIterator[World]:
            async with Redis.from_url(redis_url) as client, RedisPublisher(client) as publisher:
                await client.flushall()
                yield World(scenario, WithoutLeases(RedisStore(client)), publisher)

        return failure_of(opened, "asyncio", uses_sockets=True)

    judge(scenarios(protocol, range(REDIS_EXAMPLES)), fails)
