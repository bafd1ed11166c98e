"""The table of backends in the documentation is complete and up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import backends
from docs.backends import (
    CAPABILITIES,
    DOCUMENTED,
    backends_table,
    capabilities_shown_by,
    read_results,
    to_json,
)
from tests._support import backend_matrix as matrix
from upload_progress.testing import MessageTransportContract, PublisherContract, StoreContract

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parents[1]
MESSAGES = tuple(CAPABILITIES["messages"])
MODULE = """
    import pytest

    class TestOwlTransport:
        @pytest.mark.parametrize("number", [1, 2])
        def test_message_size_is_limited(self, number):
            assert number < LIMIT

        def test_messages_arrive_in_order_at_their_worker_only(self):
            pass

        def test_message_without_an_inbox_is_lost(self):
            pass

        def test_outside_the_contract(self):
            pass

    class TestSomethingElse:
        def test_message_size_is_limited(self):
            pass

    def test_outside_a_class():
        pass
"""


def test_every_contract_test_belongs_to_a_capability() -> None:
    contracts = (StoreContract, PublisherContract, MessageTransportContract)
    tests = {name for each in contracts for name in dir(each) if name.startswith("test_")}

    assert tests - matrix.CAPABILITY_TESTS == set()


def test_every_test_of_a_capability_exists() -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in [*TESTS.rglob("*.py"), *TESTS.parent.glob("src/upload_progress/testing/*.py")]
    )

    assert [name for name in matrix.CAPABILITY_TESTS if f"def {name}(" not in text] == []


def test_every_documented_backend_is_tested() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))

    assert {"Memory", "Redis", "Postgres", "Rabbit"} <= set(read_results(DOCUMENTED))
    assert [name for name in read_results(DOCUMENTED) if f"\nclass Test{name}P" not in text] == []


def test_table_has_all_backends_and_capabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "DOCUMENTED", tmp_path / "seen.json")
    everything = capabilities_shown_by(matrix.CAPABILITY_TESTS)
    (tmp_path / "seen.json").write_text(
        to_json({"Owl": list(MESSAGES), "Redis": everything}), encoding="utf-8"
    )

    header, _, *rows = [line.strip("| ").split(" | ") for line in backends_table().splitlines()]

    assert header[-2:] == ["Redis", "Owl"]
    assert [row[-3] for row in rows] == everything
    assert [row[-1] for row in rows] == ["✓" if name in MESSAGES else "–" for name in everything]


@pytest.fixture
def last_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write results to a folder of the test; return the file with those of the last run."""
    folder = pytester.path / "build"
    monkeypatch.setattr(matrix, "DOCUMENTED", pytester.path / "seen.json")
    monkeypatch.setattr(matrix, "LAST_RUN", folder / "run.json")
    return folder / "run.json"


def test_new_capabilities_are_written_and_fail(pytester: pytest.Pytester, last_run: Path) -> None:
    pytester.makepyfile(MODULE.replace("LIMIT", "9"))
    result = pytester.runpytest_inprocess("-p", "tests._support.backend_matrix")

    result.assert_outcomes(passed=7, errors=1)
    result.stdout.fnmatch_lines(
        ["*Owl has undocumented capabilities; run: python -m docs.backends"]
    )
    assert read_results(last_run) == {"Owl": list(MESSAGES)}


def test_documented_capabilities_pass(pytester: pytest.Pytester, last_run: Path) -> None:
    (pytester.path / "seen.json").write_text(to_json({"Owl": list(MESSAGES)}), encoding="utf-8")
    pytester.makepyfile(MODULE.replace("LIMIT", "9"))
    result = pytester.runpytest_inprocess("-p", "tests._support.backend_matrix")

    result.assert_outcomes(passed=7)
    assert not last_run.exists()


@pytest.mark.parametrize(("limit", "selected_tests"), [("2", ""), ("9", "size_is_limited")])
def test_incomplete_or_failed_class_is_ignored(
    pytester: pytest.Pytester, last_run: Path, limit: str, selected_tests: str
) -> None:
    pytester.makepyfile(MODULE.replace("LIMIT", limit))
    result = pytester.runpytest_inprocess(
        "-p", "tests._support.backend_matrix", "-k", selected_tests
    )

    assert "errors" not in result.parseoutcomes()
    assert not last_run.exists()
