"""Judge scenarios; of the first that fails, tell the shortest one that fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from traceback import format_exception

from attrs import frozen

from tests._support.virtual_time import run_in_virtual_time
from tests.oracle.generation import shorten
from tests.oracle.steps import Scenario
from tests.oracle.world import World

__all__ = ["Failure", "failure_of", "judge"]

LINES = 80
"""How many of the last lines of what happened are told."""


@frozen
class Failure:
    """What is wrong after the steps of a scenario.

    Attributes:
        message: What is wrong.
        lines: What has happened.
    """

    message: str
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What failures of the same cause have in common: the message without its numbers."""
        return re.sub(r"[0-9]+", "", self.message)[:60]


def failure_of(
    opened: Callable[[], AbstractAsyncContextManager[World]],
    backend: str,
    *,
    uses_sockets: bool = False,
) -> Failure | None:
    """Run a world in virtual time; return what is wrong, None if nothing is.

    Args:
        opened: Opens the world, on the running loop.
        backend: The event loop.
        uses_sockets: Whether its store is a server.
    """
    worlds: list[World] = []

    async def run() -> None:
        async with opened() as world:
            worlds.append(world)
            await world.run()

    try:
        run_in_virtual_time(run, backend, uses_sockets=uses_sockets)
    except Exception as error:  # noqa: BLE001  # each is a failure of the scenario
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        lines = [line for world in worlds for line in world.lines]
        if not isinstance(cause, AssertionError):
            lines += format_exception(cause)
        return Failure(str(cause).partition("\n")[0] or repr(cause), tuple(lines))
    return None


def judge(scenarios: Iterable[Scenario], fails: Callable[[Scenario], Failure | None]) -> None:
    """Fail with the first of *scenarios* that fails, shortened.

    Args:
        scenarios: The scenarios.
        fails: Does the steps of one; returns what is wrong.

    Raises:
        AssertionError: What is wrong, the steps, and what has happened.
    """
    for scenario in scenarios:
        failure = fails(scenario)
        if failure is not None:
            raise AssertionError(_report(scenario, failure, fails))


def _report(
    scenario: Scenario, failure: Failure, fails: Callable[[Scenario], Failure | None]
) -> str:
    kind, last = failure.kind, failure

    def fails_alike(shorter: Scenario) -> bool:
        nonlocal last
        found = fails(shorter)
        if found is None or found.kind != kind:
            return False
        last = found
        return True

    shortest = shorten(scenario, fails_alike)
    return "\n".join([last.message, repr(shortest), *last.lines[-LINES:]])
