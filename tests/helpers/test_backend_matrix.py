"""The table of what each backend can do is that of the last run, and leaves nothing out."""

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

    class TestOwlPost:
        @pytest.mark.parametrize("number", [1, 2])
        def test_message_size_is_limited(self, number):
            assert number < LIMIT

        def test_messages_arrive_in_order_at_their_worker_only(self):
            pass

        def test_message_without_an_inbox_is_lost(self):
            pass

        def test_something_of_its_own(self):
            pass

    class TestSomethingElse:
        def test_message_size_is_limited(self):
            pass

    def test_nothing_in_a_class():
        pass
"""


def test_every_test_of_a_contract_is_part_of_a_capability() -> None:
    contracts = (StoreContract, PublisherContract, MessageTransportContract)
    tests = {name for each in contracts for name in dir(each) if name.startswith("test_")}

    assert tests - matrix.TESTS == set()


def test_every_test_of_a_capability_exists() -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in [*TESTS.rglob("*.py"), *TESTS.parent.glob("src/upload_progress/testing/*.py")]
    )

    assert [name for name in matrix.TESTS if f"def {name}(" not in text] == []


def test_every_backend_of_the_table_is_tested() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))

    assert {"Memory", "Redis", "Postgres", "Rabbit"} <= set(read_results(DOCUMENTED))
    assert [name for name in read_results(DOCUMENTED) if f"\nclass Test{name}P" not in text] == []


def test_the_table_has_a_column_for_each_and_a_row_for_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "DOCUMENTED", tmp_path / "seen.json")
    everything = capabilities_shown_by(matrix.TESTS)
    (tmp_path / "seen.json").write_text(
        to_json({"Owl": list(MESSAGES), "Redis": everything}), encoding="utf-8"
    )

    header, _, *rows = [line.strip("| ").split(" | ") for line in backends_table().splitlines()]

    assert header[-2:] == ["Redis", "Owl"]
    assert [row[-3] for row in rows] == everything
    assert [row[-1] for row in rows] == ["✓" if name in MESSAGES else "–" for name in everything]


@pytest.fixture
def kept(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let accounts be kept in a folder of the test; return what would be taken over."""
    folder = pytester.path / "build"
    monkeypatch.setattr(matrix, "DOCUMENTED", pytester.path / "seen.json")
    monkeypatch.setattr(matrix, "LAST_RUN", folder / "run.json")
    return folder / "run.json"


def test_what_is_new_is_written_and_said(pytester: pytest.Pytester, kept: Path) -> None:
    pytester.makepyfile(MODULE.replace("LIMIT", "9"))
    result = pytester.runpytest_inprocess("-p", "tests._support.backend_matrix")

    result.assert_outcomes(passed=7, errors=1)
    result.stdout.fnmatch_lines(["*Owl can do more than is documented: python -m docs.backends"])
    assert read_results(kept) == {"Owl": list(MESSAGES)}


def test_what_is_known_is_not_said_again(pytester: pytest.Pytester, kept: Path) -> None:
    (pytester.path / "seen.json").write_text(to_json({"Owl": list(MESSAGES)}), encoding="utf-8")
    pytester.makepyfile(MODULE.replace("LIMIT", "9"))
    result = pytester.runpytest_inprocess("-p", "tests._support.backend_matrix")

    result.assert_outcomes(passed=7)
    assert not kept.exists()


@pytest.mark.parametrize(("limit", "only"), [("2", ""), ("9", "small")])
def test_of_a_part_and_of_a_failure_nothing_is_said(
    pytester: pytest.Pytester, kept: Path, limit: str, only: str
) -> None:
    pytester.makepyfile(MODULE.replace("LIMIT", limit))
    result = pytester.runpytest_inprocess("-p", "tests._support.backend_matrix", "-k", only)

    assert "errors" not in result.parseoutcomes()
    assert not kept.exists()
