"""The order of versions: which of two records or snapshots of an upload is newer."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import RECORDS, snapshot_of
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.state import is_final
from upload_progress._model.version import Version, version_of

VERSIONS = st.builds(Version, st.integers(1, 3), st.booleans(), st.integers(1, 5))


@given(RECORDS)
def test_record_and_its_snapshot_have_the_same_version(record: TransferRecord) -> None:
    version = version_of(record)

    assert version == (record.attempt, is_final(record.state), record.sequence)
    assert version_of(snapshot_of(record)) == version


@given(st.lists(VERSIONS, min_size=1))
def test_newest_is_the_end_of_the_last_attempt(versions: list[Version]) -> None:
    newest = max(versions)
    last = [each for each in versions if each.attempt == max(each.attempt for each in versions)]
    ends = [each for each in last if each.is_final]

    assert newest.sequence == max(each.sequence for each in ends or last)
    assert newest in (ends or last)


@given(VERSIONS, VERSIONS)
def test_version_that_supersedes_another_is_greater(one: Version, other: Version) -> None:
    """The converse does not hold: no version follows an end, or one of the same sequence."""
    assert not one.supersedes(one)
    if one.supersedes(other):
        assert one > other
    elif one > other:
        assert one.attempt == other.attempt
        assert other.is_final or one.sequence <= other.sequence


@given(VERSIONS, VERSIONS, VERSIONS)
def test_supersedes_is_transitive(first: Version, second: Version, third: Version) -> None:
    if third.supersedes(second) and second.supersedes(first):
        assert third.supersedes(first)


@pytest.mark.parametrize(
    ("newer", "expected"),
    [
        (Version(1, False, 3), True),
        (Version(1, False, 2), False),
        (Version(1, True, 2), False),
        (Version(1, True, 3), True),
        (Version(2, False, 1), True),
    ],
)
def test_version_supersedes_an_open_one(newer: Version, expected: bool) -> None:
    assert newer.supersedes(Version(1, False, 2)) is expected


def test_only_the_next_attempt_supersedes_an_end() -> None:
    end = Version(1, True, 2)

    assert not Version(1, True, 9).supersedes(end)
    assert Version(2, False, 1).supersedes(end)


def test_final_states_are_ends() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.RECEIVING)

    assert not version_of(record).is_final
    assert version_of(evolve(record, state=UploadState.FAILED)).is_final
