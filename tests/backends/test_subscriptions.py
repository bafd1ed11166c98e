"""Streams and inboxes: hashed names, the newest event of each upload, bounds."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.cloudevents import (
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
from upload_progress._model.codec import decode_json, encode_json
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress.backends.subscriptions import (
    ALL_OWNERS_CHANNEL,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    Channel,
    EventQueue,
    SubscriptionTable,
    check_message_size,
    key_of,
)
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS, ConnectionLost, EventsMissed


def event(sequence: int = 1, owner: str = "ann", upload_id: str = "up") -> CloudEvent:
    record = TransferRecord(owner, upload_id, "t", 1, sequence, UploadState.RECEIVING)
    progress = fold([record], now=0.0)
    assert progress is not None
    return event_of(owner, progress, "/tests")


# --- subscriptions --------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_names_are_hashed_to_what_every_broker_accepts(one: str, other: str) -> None:
    assert len(key_of(one)) == 22
    assert set(key_of(one)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )
    assert (key_of(one) == key_of(other)) == (one == other)


def test_message_size_is_limited() -> None:
    assert check_message_size(bytes(MAX_MESSAGE_BYTES))
    with pytest.raises(InvalidValue, match="4097 bytes"):
        check_message_size(bytes(MAX_MESSAGE_BYTES + 1))


async def waiting(stream: EventQueue) -> list[CloudEvent | EventsMissed | ConnectionLost]:
    """Return all that waits."""
    items = []
    while stream._urgent or len(stream):
        items.append(await anext(stream))
    return items


@pytest.mark.anyio
async def test_stream_keeps_the_newest_event_of_its_owners() -> None:
    table = SubscriptionTable()
    channel = Channel.of_owner("ann")
    with closing(EventQueue(table)) as stream:
        await stream.subscribe("ann")
        for sequence in (1, 3, 2):
            table.deliver_event(event(sequence), channel)
        table.deliver_event(event(9, "bob"), channel)
        assert await waiting(stream) == [event(3)]
        stub = decode_structured(encode_stub(event(4)))
        table.deliver_event(stub, channel)
        assert await waiting(stream) == [EventsMissed()]


@pytest.mark.anyio
async def test_event_is_delivered_once_to_a_stream_of_its_owner_and_all_owners() -> None:
    table = SubscriptionTable()
    with closing(EventQueue(table)) as stream:
        await stream.subscribe("ann", ALL_OWNERS)
        table.deliver_event(event(1), Channel.of_owner("ann"), ALL_OWNERS_CHANNEL)
        table.deliver_event(event(1, "bob"), Channel.of_owner("bob"), ALL_OWNERS_CHANNEL)
        assert await waiting(stream) == [event(1), event(1, "bob")]
        await stream.unsubscribe("ann")
        table.deliver_event(event(2), Channel.of_owner("ann"), ALL_OWNERS_CHANNEL)
        assert await waiting(stream) == [event(2)]
    assert not table.channels


@pytest.mark.anyio
async def test_newer_notice_replaces_one_that_waits() -> None:
    table = SubscriptionTable()
    with closing(EventQueue(table)) as stream:
        await stream.subscribe("ann")
        table.notify(ConnectionLost())
        table.notify(EventsMissed())
        assert await waiting(stream) == [EventsMissed()]


@pytest.mark.anyio
async def test_of_too_many_messages_the_oldest_are_missed() -> None:
    table = SubscriptionTable()
    with table.inbox("w") as inbox, table.inbox("w"):
        await table.changed()
        for number in range(MAX_MESSAGES + 1):
            table.deliver_message(str(number).encode(), Channel.of_worker("w"))
        assert await anext(inbox) == EventsMissed()
        assert await anext(inbox) == b"1"
        table.notify(EventsMissed())
        assert await anext(inbox) == EventsMissed()
        assert table.channels == {Channel.of_worker("w")}
    await table.changed()
    table.deliver_message(b"late", Channel.of_worker("w"))
    assert table.messages == MAX_MESSAGES + 1
    assert not table.channels


@pytest.mark.anyio
async def test_event_without_subscription_is_not_decoded() -> None:
    table = SubscriptionTable()

    def decode() -> CloudEvent:
        decoded.append(1)
        return event()

    decoded: list[int] = []
    table.deliver_encoded_event(decode, Channel.of_owner("ann"), ALL_OWNERS_CHANNEL)
    assert not decoded
    with closing(EventQueue(table)) as stream:
        await stream.subscribe(ALL_OWNERS)
        table.deliver_encoded_event(decode, Channel.of_owner("ann"), ALL_OWNERS_CHANNEL)
    assert decoded
    assert table.events == 1


# --- encoded events -------------------------------------------------------------------------------


@given(st.integers(1, 2**53), st.text(min_size=1, max_size=20))
def test_event_is_decoded_as_it_was_encoded(sequence: int, owner: str) -> None:
    sent = event(sequence, owner)

    assert decode_structured(encode_structured(sent)) == sent
    assert decode_binary(attributes_of(sent), encode_data(sent)) == sent


def test_stub_names_the_upload() -> None:
    stub = decode_structured(encode_stub(event(7)))

    assert isinstance(stub, EventStub)
    assert (stub.owner, stub.subject, stub.id) == ("ann", "up", "up/1/7")


def test_fields_of_a_newer_release_are_ignored() -> None:
    newer = decode_json(encode_structured(event()), "event")
    assert isinstance(newer, dict)
    newer["more"] = newer["data"]["more"] = {"deep": [1]}

    assert decode_structured(encode_json(newer)) == event()


@given(st.binary())
def test_data_that_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_structured(data)
    with pytest.raises(InvalidValue):
        decode_binary(attributes_of(event()), data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "another"},
        {"specversion": "0.3"},
        {"subject": "another"},
        {"time": "yesterday"},
        {"owner": 5},
    ],
)
def test_invalid_attributes_are_refused(wrong: dict[str, object]) -> None:
    attributes = {**attributes_of(event()), **wrong}
    with pytest.raises(InvalidValue):
        decode_binary(attributes, encode_data(event()))


def test_event_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidValue, match="1048576 are read"):
        decode_structured(b" " * 1_048_577)
