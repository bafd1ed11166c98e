"""Updates: their encodings, and which snapshot may follow another."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import RECORDS, snapshot_of
from tests._support.records import record
from upload_progress._fanout.update import SnapshotVersion, Update
from upload_progress._model.codec import decode_progress
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._model.version import Version

SNAPSHOTS = st.builds(
    SnapshotVersion,
    st.builds(Version, st.integers(1, 3), st.booleans(), st.integers(1, 6)),
    st.integers(0, 3),
)


@given(RECORDS)
def test_frames_contain_the_snapshot_and_no_line_breaks(record: TransferRecord) -> None:
    progress = snapshot_of(evolve(record, filename=f"\r\n\ndata: x\u2028{record.filename}"))
    update = Update(record.owner, progress)
    sse = update.sse.decode()

    assert sse.endswith("\n\n")
    assert sse.count("\n") == 3
    assert "\r" not in sse
    first, second, *_ = sse.split("\n")
    assert first == f"id: {progress.sequence}"
    assert decode_progress(second.removeprefix("data: ")) == progress
    message = json.loads(update.websocket_text)
    assert message == {"type": "progress", "upload": json.loads(update.json)}


def test_each_encoding_is_computed_once() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.PENDING)
    update = Update("ann", snapshot_of(record))

    assert update.topic == ("ann", "up")
    assert update.version is update.version
    assert not update.is_end
    assert update.json is update.json
    assert update.sse is update.sse
    assert update.websocket_text is update.websocket_text


@given(SNAPSHOTS, SNAPSHOTS)
def test_at_most_one_of_two_snapshots_supersedes_the_other(
    one: SnapshotVersion, other: SnapshotVersion
) -> None:
    assert not (one.supersedes(other) and other.supersedes(one))
    assert not one.supersedes(one)
    if one.supersedes(other):
        is_same = one.version.attempt == other.version.attempt
        assert one.is_end or not is_same or one.version.sequence > other.version.sequence
        assert one.version.attempt >= other.version.attempt


@pytest.mark.parametrize(
    ("newer", "received_bytes", "waits", "expected"),
    [
        pytest.param(Version(1, False, 6), 50, False, True, id="same bytes"),
        pytest.param(Version(1, False, 6), 49, False, False, id="fewer bytes"),
        pytest.param(Version(1, False, 6), 49, True, True, id="fewer bytes, waiting"),
        pytest.param(Version(1, False, 5), 50, True, False, id="same sequence, waiting"),
        pytest.param(Version(1, True, 6), 49, False, True, id="end"),
        pytest.param(Version(1, False, 5), 50, False, False, id="same sequence"),
        pytest.param(Version(1, True, 4), 49, False, True, id="end, when events were ahead"),
        pytest.param(Version(0, True, 6), 50, False, False, id="end of the attempt before"),
        pytest.param(Version(2, False, 6), 0, False, True, id="next attempt"),
        pytest.param(Version(2, False, 4), 0, False, True, id="next attempt, lower sequence"),
    ],
)
def test_snapshot_follows_another(
    newer: Version, received_bytes: int, waits: bool, expected: bool
) -> None:
    moment = datetime.fromtimestamp(0, UTC)
    known = SnapshotVersion(Version(1, False, 5), 50, is_waiting=False, updated_at=moment)
    snapshot = SnapshotVersion(newer, received_bytes, is_waiting=waits, updated_at=moment)

    assert snapshot.supersedes(known) is expected
    assert snapshot.is_end is newer.is_final


def test_operators_see_the_owner() -> None:
    """The encodings for them are made once, too."""
    update = Update("ann", snapshot_of(record()))

    assert json.loads(update.with_owner.json)["owner"] == "ann"
    assert update.with_owner is update.with_owner
    assert "owner" not in json.loads(update.json)
