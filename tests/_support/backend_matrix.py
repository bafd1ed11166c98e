"""Keeps account of which backend passed which of the tests that are the same for all of them.

Loaded by ``tests/conftest.py``. When a class such as ``TestRedisStore`` has run, what it has shown
is compared with the table in the documentation, and written to ``build/backends.json`` for
``python -m docs.backends``. Of a class that did not run as a whole nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Final

import pytest
from attrs import define, field

from docs.backends import (
    CAPABILITIES,
    DOCUMENTED,
    LAST_RUN,
    Results,
    capabilities_shown_by,
    read_results,
    to_json,
)

__all__ = ["Account", "contract_run", "pytest_runtest_makereport"]

NAME: Final = re.compile(r"Test([A-Z][a-z]+)(Store|Publisher|Post|Faults)$")
TESTS: Final = {
    test for about in CAPABILITIES.values() for tests in about.values() for test in tests
}


@define
class Account:
    """What became of the tests of one class."""

    passed: set[str] = field(factory=set)
    failed: set[str] = field(factory=set)

    def note(self, test: str, outcome: str) -> None:
        """Take note of one run of a test, which may have several, with other parameters."""
        (self.passed if outcome == "passed" else self.failed).add(test)

    def is_whole(self, cls: type) -> bool:
        """Whether each test of the class that counts was run, and none was skipped."""
        return TESTS & set(dir(cls)) <= self.passed | self.failed

    def seen(self) -> list[str]:
        """Return what the class has shown."""
        return capabilities_shown_by(self.passed - self.failed)


KEY: Final = pytest.StashKey[dict[type, Account]]()
TOLD: Final = pytest.StashKey[Results]()


def account_of(config: pytest.Config, cls: type) -> Account:
    return config.stash.setdefault(KEY, {}).setdefault(cls, Account())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take note of what became of a test."""
    report = yield
    if isinstance(item, pytest.Function) and item.cls is not None and report.when == "call":
        account_of(item.config, item.cls).note(item.originalname, report.outcome)
    return report


@pytest.fixture(scope="class", autouse=True)
def contract_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """When a class has run, compare what it has shown with what the documentation says."""
    yield
    name = NAME.match(request.cls.__name__) if request.cls else None
    if name is None:
        return
    account = account_of(request.config, request.cls)
    if account.is_whole(request.cls) and not account.failed:
        compare(request.config, name[1], account.seen())


def compare(config: pytest.Config, backend: str, shown: list[str]) -> None:
    """Write what was shown, in addition to what is known, and demand that it is nothing new."""
    seen = config.stash.setdefault(TOLD, read_results(DOCUMENTED))
    known = seen.get(backend, [])
    if not set(shown) <= set(known):
        seen[backend] = shown_in_order({*known, *shown})
        LAST_RUN.parent.mkdir(exist_ok=True)
        LAST_RUN.write_text(to_json(seen), encoding="utf-8")
        pytest.fail(f"{backend} can do more than is documented: python -m docs.backends")


def shown_in_order(shown: set[str]) -> list[str]:
    return [each for about in CAPABILITIES.values() for each in about if each in shown]
