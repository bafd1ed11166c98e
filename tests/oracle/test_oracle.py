"""Random sequences of requests, against a model of what the application really has.

The same sequences in every run; `--oracle-examples` and `--oracle-seed` choose others, as the nox
session `nightly` does. A failure tells the shortest sequence that fails in the same way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext

import pytest

from tests._support.patient_redis import PatientRedis
from tests.oracle.generation import Dimensions, random_scenario
from tests.oracle.judgement import Failure, failure_of, judge
from tests.oracle.steps import (
    PROTOCOLS,
    Authentication,
    Cancel,
    Kind,
    Request,
    Scenario,
    Wait,
    Watch,
)
from tests.oracle.system import WithoutLeases
from tests.oracle.world import World
from upload_progress.backends.redis import RedisPublisher, RedisStore

SHARES = 4
"""The sequences of a protocol are tested in so many parts, which may run in several processes."""
WITH_RACES = frozenset({"plain", "concatenation"})
"""The protocols of whose uploads two workers may get requests before they know of each other.

Of the others that is not yet true of all sequences: bytes may be counted twice, and a creation or a
rejection at one of the workers may be lost.
"""
FULL_EXAMPLES = 60
"""Sequences of each protocol in which everything varies, also with races."""
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
    dimensions = Dimensions(races=protocol in WITH_RACES, strays=True)
    return (random_scenario(protocol, seed, dimensions) for seed in seeds)


def fails(scenario: Scenario, backend: str = "asyncio") -> Failure | None:
    """Return what is wrong after the steps of *scenario*, with a store in memory."""
    return failure_of(lambda: nullcontext(World(scenario)), backend)


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true(protocol: str, seeds: range) -> None:
    judge(scenarios(protocol, seeds), fails)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reports_are_true_if_everything_varies(protocol: str) -> None:
    judge((random_scenario(protocol, seed) for seed in range(FULL_EXAMPLES)), fails)


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
    "upload at a new address, whose creation is not tracked, after a late piece": Scenario(
        "tus",
        steps=(
            Request(),
            Request(size=24, gap_seconds=0.3),
            Request(),
            Request(Kind.CREATE, authentication=NEVER),
            Request(),
        ),
    ),
    "next attempt after a late piece of the one before": Scenario(
        "range", steps=(Request(), Request(size=16, think_seconds=1.5), Request(start=8), Request())
    ),
    "OCI closing request that is refused before the bytes have come": Scenario(
        "oci", has_id=False, steps=(Request(), Request(Kind.FINISH, size=0, status=409), Request())
    ),
    "creation whose owner is known after those of the pieces": Scenario(
        "tus",
        steps=(
            Request(Kind.FINISH, size=12, breaks_after=8),
            Request(authentication=LATE),
            Request(think_seconds=0.4),
        ),
    ),
    "next upload under the same id while the owner of the one before is awaited": Scenario(
        "ietf",
        steps=(
            Request(Kind.FINISH, authentication=Authentication(after_seconds=0.06)),
            Request(size=0, think_seconds=0.05),
        ),
    ),
    "first piece whose owner is known after the exception of the second one": Scenario(
        "range",
        steps=(Request(authentication=Authentication(after_seconds=4.0)), Request(status=None)),
    ),
    "retry of a failed first piece, with late owners": Scenario(
        "range",
        has_id=False,
        steps=(
            Request(status=500, authentication=Authentication(after_seconds=2.0)),
            Request(authentication=Authentication(after_seconds=4.0)),
        ),
    ),
    "whole upload after an exception, with late owners": Scenario(
        "range",
        steps=(
            Request(status=None, authentication=LATE),
            Request(size=24, authentication=Authentication(after_seconds=2.0)),
        ),
    ),
    "DELETE that is refused after a rejection, with a late owner": Scenario(
        "tus",
        has_id=False,
        steps=(
            Request(),
            Request(status=413, authentication=Authentication(after_seconds=2.0)),
            Request(Kind.ABORT),
        ),
    ),
    "DELETE after the completion, with a late owner": Scenario(
        "tus",
        steps=(
            Request(),
            Request(authentication=LATE),
            Request(size=24),
            Request(Kind.ABORT),
        ),
    ),
    "piece that is rejected after others have completed the upload": Scenario(
        "range",
        steps=(
            Request(),
            Request(status=410, pace_seconds=0.05, gap_seconds=0.05),
            Request(size=24),
        ),
    ),
    "session after a smaller blob under the same id": Scenario(
        "oci", steps=(Request(Kind.FINISH, size=1), Request(), Request(), Request())
    ),
    "blob of another size after a late creation": Scenario(
        "oci",
        steps=(
            Request(Kind.FINISH, authentication=Authentication(1, 0.003)),
            Request(pace_seconds=2.2, authentication=Authentication(99, 0.0)),
            Request(status=403),
            Request(authentication=Authentication(after_seconds=2.0)),
            Request(Kind.FINISH, size=1),
        ),
    ),
    "accepted bytes while another request is in progress": Scenario(
        "oci",
        steps=(
            Request(),
            Request(think_seconds=1.5, gap_seconds=0.003),
            Request(cancelled_after=0.31, think_seconds=1.5),
            Request(size=1),
        ),
    ),
    "creation that has begun before the owner cancelled": Scenario(
        "concatenation",
        steps=(
            Request(think_seconds=0.4, gap_seconds=0.05),
            Request(gap_seconds=0.3),
            Cancel(),
            Request(),
        ),
    ),
    "part that is created after the owner cancelled, while an owner is awaited": Scenario(
        "concatenation",
        steps=(
            Request(),
            Request(part=2, authentication=Authentication(after_seconds=4.0)),
            Cancel(),
            Request(part=1),
        ),
    ),
    "answers without an offset among those with one": Scenario(
        "range",
        has_id=False,
        steps=(Request(start=4, size=24), Request(kept=0, gap_seconds=1.5), Request(kept=0)),
    ),
    "new beginning after pieces with late owners": Scenario(
        "range",
        steps=(
            Request(),
            Request(),
            Request(authentication=Authentication(1, 4.0)),
            Request(authentication=Authentication(after_seconds=4.0)),
        ),
    ),
    "creations while those before have late owners": Scenario(
        "ietf",
        steps=(
            Request(),
            Request(size=24, authentication=Authentication(1, 4.0)),
            Request(size=12, breaks_after=8),
            Request(think_seconds=0.05),
            Cancel(),
        ),
    ),
    "refused creations before one that is accepted, with late owners": Scenario(
        "ietf",
        steps=(
            Request(Kind.FINISH, status=307),
            Request(status=409, authentication=Authentication(after_seconds=4.0)),
            Request(status=None, gap_seconds=0.003),
            Request(Kind.FINISH, size=24, gap_seconds=0.05),
        ),
    ),
    "plain upload whose owner is known when a newer one is received": Scenario(
        steps=(
            Request(
                status=401, pace_seconds=1.0, authentication=Authentication(1, 0.4), gap_seconds=0.3
            ),
            Request(size=16, chunks=2, pace_seconds=1.0),
        ),
    ),
    "session whose completion is not known, before a rejection": Scenario(
        "oci",
        steps=(
            Request(authentication=NEVER),
            Request(status=413),
            Request(),
        ),
    ),
    "completion while the owner of a part is awaited": Scenario(
        "s3",
        has_id=False,
        load_seconds=0.7,
        steps=(
            Request(
                Kind.FINISH,
                think_seconds=1.5,
                authentication=Authentication(after_seconds=2.0),
                gap_seconds=0.05,
            ),
            Request(status=409),
            Request(),
        ),
    ),
    "piece of an attempt before, whose owner is known late at another worker": Scenario(
        "oci",
        workers=2,
        has_races=False,
        steps=(
            Request(),
            Request(Kind.ABORT, status=404, authentication=Authentication(after_seconds=4.0)),
            Request(worker=1),
            Request(),
            Request(worker=1, endpoint="fail", gap_seconds=0.3),
            Request(worker=1),
        ),
    ),
    "creation that is refused after a list has shown it": Scenario(
        "ietf",
        has_id=False,
        steps=(
            Request(think_seconds=0.05, gap_seconds=0.003),
            Watch(everything=True),
            Request(gap_seconds=0.0),
        ),
    ),
    "blob that is larger than a refused closing request": Scenario(
        "oci", steps=(Request(), Request(Kind.FINISH, status=409), Request(), Request(Kind.FINISH))
    ),
    "requests of the session before": Scenario(
        "tus",
        steps=(
            Request(),
            Request(size=24, pace_seconds=0.3, gap_seconds=0.003),
            Request(pace_seconds=0.3, breaks_after=1, keeps_broken=True, gap_seconds=0.003),
            Request(endpoint="fail"),
            Request(Kind.CREATE),
            Request(start=8),
        ),
    ),
    "plain uploads that begin at once at two workers": Scenario(
        workers=2, steps=(Request(worker=1, breaks_after=4), Request(gap_seconds=1.5))
    ),
    "plain uploads that begin at once at two workers, of which the newer one is slow": Scenario(
        workers=2,
        steps=(
            Watch(everything=True),
            Request(worker=1),
            Request(chunks=3, pace_seconds=1.0, gap_seconds=1.5),
        ),
    ),
    "plain upload that becomes the next attempt at the same time as another one": Scenario(
        workers=2,
        save_seconds=(0.2, 0.2),
        steps=(
            Watch(worker=1, everything=True),
            Request(worker=1, gap_seconds=0.05),
            Request(worker=1, think_seconds=0.05),
            Request(think_seconds=0.4),
        ),
    ),
    "plain upload before its worker knows how the one before has ended": Scenario(
        workers=2,
        steps=(
            Watch(everything=True),
            Request(),
            Request(worker=1, cancelled_after=0.02, think_seconds=0.05),
            Request(think_seconds=0.4),
            Request(),
        ),
    ),
    "rejection while an earlier version of the upload is being stored": Scenario(
        "concatenation",
        load_seconds=0.2,
        has_races=False,
        steps=(
            Request(Kind.FINISH),
            Request(),
            Wait(0.3),
            Request(status=410, pace_seconds=0.05, gap_seconds=0.0),
        ),
    ),
    "creation with bytes whose next ones go to another worker at once": Scenario(
        "tus", workers=2, steps=(Request(Kind.FINISH, pace_seconds=0.05), Request(worker=1))
    ),
    "question about an upload whose owner was not known": Scenario(
        "range", steps=(Request(size=24, authentication=NEVER), Request(Kind.ASK))
    ),
    "question without a range": Scenario("range", steps=(Request(), Request(start=24))),
    "rejection after the application has all bytes, while a repetition is in progress": Scenario(
        "range",
        steps=(
            Request(size=12),
            Request(status=413, pace_seconds=0.3, gap_seconds=0.0),
            Request(think_seconds=1.5, gap_seconds=0.05),
            Request(size=12),
        ),
    ),
    "completion after refused creations, of which one has a late owner": Scenario(
        "ietf",
        steps=(
            Request(pace_seconds=0.05, gap_seconds=0.0),
            Request(think_seconds=0.05, authentication=Authentication(0, 4.0), gap_seconds=0.0),
            Request(authentication=NEVER),
            Request(Kind.FINISH, think_seconds=0.4),
        ),
    ),
    "DELETE of an upload after a late request of the one before": Scenario(
        "tus",
        steps=(
            Request(),
            Request(status=413, authentication=Authentication(after_seconds=4.0)),
            Request(Kind.CREATE, think_seconds=0.05, gap_seconds=0.003),
            Request(gap_seconds=0.3),
            Request(Kind.ABORT),
        ),
    ),
    "part that is created at the moment at which the owner cancels": Scenario(
        "concatenation",
        steps=(
            Request(),
            Wait(),
            Request(part=2, pace_seconds=0.05, gap_seconds=0.0),
            Cancel(),
        ),
    ),
    "part of an upload whose concatenation has failed": Scenario(
        "concatenation",
        steps=(
            Request(part=1, authentication=NEVER),
            Request(Kind.FINISH, endpoint="fail"),
            Request(part=1, breaks_after=0),
        ),
    ),
    "creation that fails after an end at another worker, with a late owner": Scenario(
        "ietf",
        workers=2,
        has_races=False,
        steps=(
            Request(authentication=Authentication(1, 4.0)),
            Request(worker=1, size=24, breaks_after=1),
            Request(Kind.ABORT, worker=1),
            Request(status=409, endpoint="fail"),
        ),
    ),
    "piece of an unknown session after an end that is not stored yet": Scenario(
        "oci",
        steps=(
            Watch(everything=True),
            Request(endpoint="fail", authentication=Authentication(after_seconds=0.0)),
            Request(authentication=NEVER),
            Request(status=404),
        ),
    ),
    "creations that fail after a redirect, with a late owner": Scenario(
        "ietf",
        steps=(
            Request(endpoint="fail", authentication=Authentication(after_seconds=4.0)),
            Request(status=307),
            Request(status=460, endpoint="fail"),
        ),
    ),
    "rejection with a late owner while another worker receives the next creation": Scenario(
        "ietf",
        workers=2,
        has_races=False,
        steps=(
            Request(worker=1, authentication=Authentication(1, 4.0)),
            Request(worker=1, status=413),
            Request(Kind.FINISH, worker=1),
            Wait(2.5),
            Request(kept=0, think_seconds=1.5),
            Request(size=16, breaks_after=1),
        ),
    ),
    "piece of a superseded session after a refused creation that is not stored yet": Scenario(
        "ietf",
        save_seconds=(0.2, 0.2),
        steps=(
            Request(breaks_after=1),
            Request(think_seconds=0.05, gap_seconds=0.0),
            Request(pace_seconds=0.05),
            Request(status=410, pace_seconds=0.05),
        ),
    ),
    "piece that fails before its worker knows the upload of another one": Scenario(
        "range",
        has_id=False,
        workers=2,
        steps=(Request(worker=1), Request(status=None), Request(size=24)),
    ),
    "nothing after the end": Scenario("tus", stops_at_end=True, steps=(Request(size=24),) * 3),
}
"""Scenarios that random sequences seldom contain."""


REPAIRED = {
    "plain": [101300, 600527, 700135, 2802193],
    "tus": [
        *(100222, 100491, 101193, 101249, 102232),
        *(102275, 102324, 102472, 102546, 102666, 1100079),
        *(1300098, 1300588, 1300838, 1500117),
        *(102077, 1100040, 1300311, 1300429, 2000368),
        *(2100246, 2100310, 2100629, 2100957, 2200315, 2300024, 2400577),
        *(2600242, 2700138, 2800538, 2801657, 2700615, 3101365),
    ],
    "ietf": [
        *(1300141, 1300402, 1300425, 1500127, 1700422),
        *(2100028, 2300439, 2300442, 2300517, 2400644, 2600432, 3000470),
        *(2801872, 3000074, 3001014, 3001459, 3002129, 3101257, 4000094),
    ],
    "concatenation": [10257, 30588, 700103, 1101012],
    "range": [101952, 102260, 700666, 1100239, 2300343, 2600140, 3000071],
    "oci": [
        102595,
        700370,
        1100431,
        1300836,
        2200227,
        2200256,
        2200469,
        2300016,
        2300543,
        2400875,
        2600018,
        2801708,
        2801950,
        3002458,
    ],
    "s3": [100498, 101071, 500010, 600064, 700504, 1100128, 1101448, 2000664, 4000842],
}
"""Random sequences that have failed: each shows another fault of the tracker or of the model."""
REPAIRED_RACES = {
    "plain": [2802600, 3001784, 4000741],
    "tus": [290, 10351, 30071, 1400327],
    "concatenation": [
        *(2300469, 2300642, 2500165, 2500227),
        *(1601090, 2800452, 2801092, 2801148, 2801377, 2801903, 3001585),
    ],
    "ietf": [20197],
    "oci": [20079, 20227, 1100148],
    "range": [1600636],
    "s3": [20015, 20120, 20194],
}
"""Those that have failed because one worker did not know yet what the other one has done."""


REPAIRED_STRAYS = {
    "tus": [5000076, 5000094, 5000112, 5000133],
    "concatenation": [5000055],
    "oci": [5000103, 5000117, 5000438, 5000493],
    "s3": [5000002, 5000071, 5000116, 5000138, 5000162],
}
"""Those with a request to an address that does not exist."""


@pytest.mark.parametrize("protocol", REPAIRED_STRAYS)
def test_reports_are_true_in_sequences_with_strays_that_have_failed(protocol: str) -> None:
    dimensions = Dimensions(races=False, strays=True)
    judge(
        (random_scenario(protocol, seed, dimensions) for seed in REPAIRED_STRAYS[protocol]), fails
    )


@pytest.mark.parametrize("protocol", REPAIRED)
def test_reports_are_true_in_sequences_that_have_failed(protocol: str) -> None:
    dimensions = Dimensions(races=False)
    judge((random_scenario(protocol, seed, dimensions) for seed in REPAIRED[protocol]), fails)


@pytest.mark.parametrize("protocol", REPAIRED_RACES)
def test_reports_are_true_in_races_that_have_failed(protocol: str) -> None:
    judge((random_scenario(protocol, seed) for seed in REPAIRED_RACES[protocol]), fails)


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
            async with (
                PatientRedis.from_url(redis_url) as client,
                RedisPublisher(client) as publisher,
            ):
                await client.flushall()
                yield World(scenario, WithoutLeases(RedisStore(client)), publisher)

        return failure_of(opened, "asyncio", uses_sockets=True)

    judge(scenarios(protocol, range(REDIS_EXAMPLES)), fails)
