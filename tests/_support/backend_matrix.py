"""Pytest plugin that compares the passed contract tests of backends with the documentation.

Loaded by ``tests/conftest.py``. After a class such as ``TestRedisStore``, the capabilities shown by
its tests are compared with the table in the documentation. If there are more, the class fails, and
they are written to ``build/backends.json`` for ``python -m docs.backends``. A class of which some
tests did not run, or failed, is ignored.
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

__all__ = ["ClassResults", "compare_with_documentation", "pytest_runtest_makereport"]

CLASS_NAME: Final = re.compile(r"Test([A-Z][a-z]+)(Store|Publisher|Transport|Faults)$")
CAPABILITY_TESTS: Final = {
    test for topic in CAPABILITIES.values() for tests in topic.values() for test in tests
}


@define
class ClassResults:
    """Results of the tests of one class.

    Attributes:
        passed: Names of the tests that passed.
        failed: Names of the tests that failed or were skipped, with any parameters.
    """

    passed: set[str] = field(factory=set)
    failed: set[str] = field(factory=set)

    def add(self, test: str, outcome: str) -> None:
        """Add the outcome of one run of a test."""
        (self.passed if outcome == "passed" else self.failed).add(test)

    def is_complete(self, cls: type) -> bool:
        """Return whether all tests of capabilities in the class have run."""
        return CAPABILITY_TESTS & set(dir(cls)) <= self.passed | self.failed

    def capabilities(self) -> list[str]:
        """Return the capabilities that the class has shown."""
        return capabilities_shown_by(self.passed - self.failed)


RESULTS_KEY: Final = pytest.StashKey[dict[type, ClassResults]]()
DOCUMENTED_KEY: Final = pytest.StashKey[Results]()


def results_of(config: pytest.Config, cls: type) -> ClassResults:
    return config.stash.setdefault(RESULTS_KEY, {}).setdefault(cls, ClassResults())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record the outcome of a test of a class."""
    report = yield
    if isinstance(item, pytest.Function) and item.cls is not None and report.when == "call":
        results_of(item.config, item.cls).add(item.originalname, report.outcome)
    return report


@pytest.fixture(scope="class", autouse=True)
def compare_with_documentation(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a class, compare its capabilities with the documentation."""
    yield
    name = CLASS_NAME.match(request.cls.__name__) if request.cls else None
    if name is None:
        return
    results = results_of(request.config, request.cls)
    if results.is_complete(request.cls) and not results.failed:
        compare(request.config, name[1], results.capabilities())


def compare(config: pytest.Config, backend: str, shown: list[str]) -> None:
    """Fail if *shown* contains undocumented capabilities; write them to ``LAST_RUN``."""
    documented = config.stash.setdefault(DOCUMENTED_KEY, read_results(DOCUMENTED))
    known = documented.get(backend, [])
    if not set(shown) <= set(known):
        documented[backend] = in_order({*known, *shown})
        LAST_RUN.parent.mkdir(exist_ok=True)
        LAST_RUN.write_text(to_json(documented), encoding="utf-8")
        pytest.fail(f"{backend} has undocumented capabilities; run: python -m docs.backends")


def in_order(shown: set[str]) -> list[str]:
    return [each for topic in CAPABILITIES.values() for each in topic if each in shown]
