"""Round trips, tolerance for the newer, and any bytes at all."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._fanout.update import Update
from upload_progress._model.cloudevents import EVENT_TYPE, event_of
from upload_progress._model.codec import (
    decode_json,
    decode_progress,
    encode_json,
    pack_record,
    unpack_record,
)
from upload_progress._model.fold import fold
from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    Stage,
    TransferRecord,
    UploadError,
    UploadProgress,
    UploadState,
)
from upload_progress._model.validation import MAX_METADATA_DEPTH, validate_metadata
from upload_progress.exceptions import InvalidValue

texts = st.text(max_size=20)
counts = st.integers(0, 2**53 - 1)
times = st.integers(0, 2**32).map(float)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.builds(
    TransferRecord,
    owner=texts,
    upload_id=texts,
    transfer_id=texts,
    attempt=counts,
    sequence=counts,
    state=st.sampled_from(UploadState),
    received_bytes=counts,
    total_bytes=st.none() | counts,
    bytes_per_second=st.none() | st.floats(0, 1e12),
    stalled=st.booleans(),
    arrival=st.none() | st.sampled_from(Arrival),
    stage=st.none() | st.builds(Stage, texts, counts, st.none() | counts),
    error=st.none()
    | st.builds(UploadError, st.sampled_from(ErrorCode), texts, st.none() | st.integers(100, 599)),
    group=st.none() | texts,
    filename=st.none() | texts,
    content_type=st.none() | texts,
    metadata=st.none() | st.dictionaries(texts, json_values, max_size=3),
    created_at=times,
    started_at=st.none() | times,
    updated_at=times,
    last_byte_at=st.none() | times,
    finished_at=st.none() | times,
    worker=st.none() | texts,
)


def snapshot(record: TransferRecord) -> UploadProgress:
    progress = fold([record], now=0.0)
    assert progress is not None
    return progress


@given(records)
def test_a_packed_record_comes_back(record: TransferRecord) -> None:
    assert unpack_record(record.owner, record.upload_id, pack_record(record)) == record


@given(records, st.integers(0, 40))
def test_records_of_other_releases_are_read(record: TransferRecord, count: int) -> None:
    """An older release knew fewer fields, a newer one appends its own."""
    several = evolve(record, protocol="s3", byte_ranges=(("1", 0, 9, True),), confirmed_bytes=9)
    values = [*msgspec.msgpack.decode(pack_record(several)), *[["new"]] * 20]
    least = len(msgspec.msgpack.decode(pack_record(evolve(record, metadata=None)))) - 5

    read = unpack_record("a", "u", msgspec.msgpack.encode(values[: least + count]))

    assert (read.transfer_id, read.received_bytes) == (record.transfer_id, record.received_bytes)
    assert read.confirmed_bytes in {0, 9}
    assert read.protocol in {None, "s3"}


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\xdc\x00\x19", b"\xc0\x00\x00", b"\x91\xa1x", b"\x90"]
)
def test_what_is_no_record_says_so(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        unpack_record("a", "u", data)


@given(records)
def test_a_snapshot_comes_back(record: TransferRecord) -> None:
    progress = snapshot(record)

    assert decode_progress(encode_json(progress)) == progress


@given(records, st.dictionaries(st.text(min_size=20, max_size=30), json_values, max_size=3))
def test_what_a_newer_process_adds_is_ignored(
    record: TransferRecord, more: dict[str, object]
) -> None:
    progress = snapshot(record)
    newer = json.loads(encode_json(progress)) | more
    newer["links"] |= more

    assert decode_progress(json.dumps(newer)) == progress


@given(records)
def test_an_event_stream_has_one_event_whatever_is_in_it(record: TransferRecord) -> None:
    """W09: no text breaks a line, and every frame holds the same snapshot."""
    progress = snapshot(evolve(record, filename=f"\r\n\ndata: x\u2028{record.filename}"))
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


def test_each_encoding_is_made_once() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.PENDING)
    update = Update("ann", snapshot(record))

    assert update.topic == ("ann", "up")
    assert update.json is update.json
    assert update.sse is update.sse
    assert update.websocket_text is update.websocket_text


def test_times_are_rfc_3339_in_utc() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.PENDING, created_at=0.5)

    assert json.loads(encode_json(snapshot(record)))["created_at"] == "1970-01-01T00:00:00.500000Z"


def test_an_event_is_a_cloud_event() -> None:
    record = TransferRecord("ann", "up", "t", 2, 7, UploadState.RECEIVING, updated_at=9.0)
    event = json.loads(encode_json(event_of("ann", snapshot(record), "/here")))

    assert event.pop("data")["upload_id"] == "up"
    assert event == {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": "/here",
        "id": "up/2/7",
        "subject": "up",
        "time": datetime.fromtimestamp(9, UTC).isoformat().replace("+00:00", "Z"),
        "owner": "ann",
        "datacontenttype": "application/json",
    }


@given(st.binary(max_size=100) | st.text(st.characters(codec=None), max_size=50))
def test_any_bytes_are_refused_politely(data: bytes | str) -> None:
    """I13: nothing else is ever raised."""
    for decode in (decode_progress, lambda each: decode_json(each, "body")):
        with suppress(InvalidValue):
            assert decode(data) is not None


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"5", b"", b"\xff"])
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="is not a JSON object"):
        decode_json(data, "body")


@given(st.dictionaries(texts, json_values, max_size=4))
def test_metadata_is_kept_as_json(metadata: dict[str, object]) -> None:
    kept = validate_metadata(metadata, "set.metadata", 10**6)

    assert kept == metadata
    record = TransferRecord("a", "u", "t", 1, 1, UploadState.PENDING, metadata=kept)
    assert unpack_record("a", "u", pack_record(record)) == record


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": object()},
        {"a": 2**70},
        {"a": "\ud800"},
        {"\ud800": 1},
        {"a": "x" * 4096},
        nested(MAX_METADATA_DEPTH),
        nested(100_000),
        {"a": {1, 2}.__iter__()},
        ["a"],
        "a",
    ],
)
def test_what_could_not_be_kept_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match=r"set\.metadata"):
        validate_metadata(metadata, "set.metadata", 4096)
