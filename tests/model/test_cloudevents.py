"""CloudEvents: round trips in both content modes, unknown fields, and invalid events."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sample_snapshot import sample_snapshot
from upload_progress._model.cloudevents import (
    MAX_EVENT_BYTES,
    CloudEvent,
    EventStub,
    attributes_of,
    decode_binary,
    decode_structured,
    encode_data,
    encode_structured,
    encode_stub,
    event_of,
)
from upload_progress.exceptions import InvalidValue

WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
EVENTS = st.builds(
    lambda owner, sequence, filename: event_of(
        owner, evolve(sample_snapshot(), sequence=sequence, filename=filename), "/tests"
    ),
    WORDS,
    st.integers(1, 2**53),
    WORDS | st.none(),
)


@given(EVENTS)
def test_event_is_decoded_as_it_was_encoded(event: CloudEvent) -> None:
    attributes = attributes_of(event)

    assert decode_structured(encode_structured(event)) == event
    assert decode_binary(attributes, encode_data(event)) == event
    stub = decode_structured(encode_stub(event))
    assert isinstance(stub, EventStub)
    assert (stub.owner, stub.subject, stub.id) == (event.owner, event.subject, event.id)


@given(EVENTS)
def test_unknown_fields_of_newer_versions_are_ignored(event: CloudEvent) -> None:
    newer = json.loads(encode_structured(event))
    newer |= {"traceparent": "00-1", "data": newer["data"] | {"colour": "blue"}}

    assert decode_structured(json.dumps(newer)) == event
    newer_attributes = attributes_of(event) | {"traceparent": "00-1"}
    assert decode_binary(newer_attributes, json.dumps(newer["data"]).encode()) == event


@given(st.binary() | st.text().map(lambda text: json.dumps(text).encode()))
def test_arbitrary_data_is_rejected(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_structured(data)
    with pytest.raises(InvalidValue):
        decode_binary({}, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("specversion", "2.0"), ("type", "other"), ("subject", "another"), ("time", "yesterday")],
)
def test_invalid_attribute_is_rejected(field: str, value: str) -> None:
    event = event_of("ann", sample_snapshot(), "/tests")

    with pytest.raises(InvalidValue):
        decode_structured(json.dumps(json.loads(encode_structured(event)) | {field: value}))
    with pytest.raises(InvalidValue):
        decode_binary(attributes_of(event) | {field: value}, encode_data(event))


def test_oversized_event_is_rejected_without_decoding() -> None:
    with pytest.raises(InvalidValue, match="are read"):
        decode_structured(bytes(MAX_EVENT_BYTES + 1))
    with pytest.raises(InvalidValue, match="snapshot"):
        decode_binary({}, b"[" * MAX_EVENT_BYTES)
