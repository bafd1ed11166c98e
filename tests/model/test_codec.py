"""Encodings of records and snapshots: round trips, other releases, and arbitrary bytes."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import JSON_VALUES, RECORDS, snapshot_of
from upload_progress._model.cloudevents import EVENT_TYPE, event_of
from upload_progress._model.codec import (
    decode_json,
    decode_page,
    decode_progress,
    encode_json,
    pack_record,
    unpack_record,
)
from upload_progress._model.fold import sum_of
from upload_progress._model.models import TransferRecord, UploadPage, UploadState
from upload_progress.exceptions import InvalidValue


@given(RECORDS)
def test_record_is_unpacked_as_it_was_packed(record: TransferRecord) -> None:
    assert unpack_record(record.owner, record.upload_id, pack_record(record)) == record


@given(RECORDS, st.integers(0, 40))
def test_records_of_other_releases_are_unpacked(record: TransferRecord, count: int) -> None:
    """An older release has fewer fields, a newer one appends its own."""
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
def test_invalid_record_is_rejected(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        unpack_record("a", "u", data)


@given(RECORDS)
def test_snapshot_is_decoded_as_it_was_encoded(record: TransferRecord) -> None:
    progress = snapshot_of(record)

    assert decode_progress(encode_json(progress)) == progress


@given(RECORDS, st.dictionaries(st.text(min_size=20, max_size=30), JSON_VALUES, max_size=3))
def test_unknown_fields_of_newer_versions_are_ignored(
    record: TransferRecord, more: dict[str, object]
) -> None:
    progress = snapshot_of(record)
    newer = json.loads(encode_json(progress)) | more
    newer["links"] |= more

    assert decode_progress(json.dumps(newer)) == progress


@given(st.lists(RECORDS, max_size=3))
def test_page_is_decoded_as_it_was_encoded(records: list[TransferRecord]) -> None:
    uploads = tuple(snapshot_of(record) for record in records)
    page = UploadPage(uploads, sum_of(uploads), "cursor")

    assert decode_page(encode_json(page)) == page


def test_times_are_in_utc_as_in_rfc_3339() -> None:
    record = TransferRecord("ann", "up", "t", 1, 1, UploadState.PENDING, created_at=0.5)

    assert (
        json.loads(encode_json(snapshot_of(record)))["created_at"] == "1970-01-01T00:00:00.500000Z"
    )


def test_event_has_the_attributes_of_cloudevents() -> None:
    record = TransferRecord("ann", "up", "t", 2, 7, UploadState.RECEIVING, updated_at=9.0)
    event = json.loads(encode_json(event_of("ann", snapshot_of(record), "/here")))

    assert event.pop("data")["upload_id"] == "up"
    assert event == {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "source": "/here",
        "id": "up/2/7",
        "subject": "up",
        "time": datetime.fromtimestamp(9, UTC).isoformat().replace("+00:00", "Z"),
        "owner": "ann",
        "namespace": "upload-progress",
        "datacontenttype": "application/json",
    }


@given(st.binary(max_size=100) | st.text(st.characters(codec=None), max_size=50))
def test_arbitrary_bytes_raise_no_other_error(data: bytes | str) -> None:
    for decode in (decode_progress, decode_page, lambda each: decode_json(each, "body")):
        with suppress(InvalidValue):
            assert decode(data) is not None


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"5", b"", b"\xff"])
def test_json_that_is_not_an_object_is_rejected(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="is not a JSON object"):
        decode_json(data, "body")
