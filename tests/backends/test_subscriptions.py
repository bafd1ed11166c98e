"""Who listens to what: hashed names, slots, bounds."""

from __future__ import annotations

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
    ALL_OWNERS,
    MAX_LETTER_BYTES,
    MAX_LETTERS,
    Address,
    EventQueue,
    SubscriptionTable,
    checked_letter,
    key_of,
)
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventsMissed


def event(sequence: int = 1, owner: str = "ann", upload_id: str = "up") -> CloudEvent:
    record = TransferRecord(owner, upload_id, "t", 1, sequence, UploadState.RECEIVING)
    progress = fold([record], now=0.0)
    assert progress is not None
    return event_of(owner, progress, "/tests")


# --- the switchboard ------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_names_are_hashed_to_what_every_broker_takes(one: str, other: str) -> None:
    assert len(key_of(one)) == 22
    assert set(key_of(one)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )
    assert (key_of(one) == key_of(other)) == (one == other)


def test_a_letter_has_a_bound() -> None:
    assert checked_letter(bytes(MAX_LETTER_BYTES))
    with pytest.raises(InvalidValue, match="4097 bytes"):
        checked_letter(bytes(MAX_LETTER_BYTES + 1))


async def taken(listener: EventQueue) -> list[CloudEvent | EventsMissed]:
    """Return all that waits."""
    found = []
    while listener._has_missed or listener._waiting:
        found.append(await anext(listener))
    return found


@pytest.mark.anyio
async def test_a_listener_keeps_the_newest_of_its_owner() -> None:
    board = SubscriptionTable()
    address = Address.of_owner("ann")
    with board.listening("ann") as listener:
        for sequence in (1, 3, 2):
            board.deliver(event(sequence), address)
        board.deliver(event(9, "bob"), address)
        assert await taken(listener) == [event(3)]
        stub = decode_structured(encode_stub(event(4)))
        board.deliver(stub, address)
        assert await taken(listener) == [EventsMissed()]


@pytest.mark.anyio
async def test_of_too_many_letters_the_oldest_are_missed() -> None:
    board = SubscriptionTable()
    changes: list[int] = []
    board.on_change = lambda: changes.append(1)
    with board.emptying("w") as box, board.emptying("w"):
        for number in range(MAX_LETTERS + 1):
            board.bring_letter(str(number).encode(), Address.of_worker("w"))
        assert await anext(box) == EventsMissed()
        assert await anext(box) == b"1"
        board.miss()
        assert await anext(box) == EventsMissed()
    board.bring_letter(b"late", Address.of_worker("w"))
    assert board.letters == MAX_LETTERS + 1
    assert len(changes) == 2
    assert not board.addresses


def test_what_nobody_listens_to_is_not_even_decoded() -> None:
    board = SubscriptionTable()

    def decode() -> CloudEvent:
        decoded.append(1)
        return event()

    decoded: list[int] = []
    board.bring_event(decode, Address.of_owner("ann"), ALL_OWNERS)
    assert not decoded
    with board.listening(None):
        board.bring_event(decode, Address.of_owner("ann"), ALL_OWNERS)
    assert decoded
    assert board.events == 1


# --- events on the wire ---------------------------------------------------------------------------


@given(st.integers(1, 2**53), st.text(min_size=1, max_size=20))
def test_events_come_back_as_they_were(sequence: int, owner: str) -> None:
    sent = event(sequence, owner)

    assert decode_structured(encode_structured(sent)) == sent
    assert decode_binary(attributes_of(sent), encode_data(sent)) == sent


def test_a_stub_says_what_it_is_about() -> None:
    stub = decode_structured(encode_stub(event(7)))

    assert isinstance(stub, EventStub)
    assert (stub.owner, stub.subject, stub.id) == ("ann", "up", "up/1/7")


def test_what_a_newer_release_added_is_ignored() -> None:
    newer = decode_json(encode_structured(event()), "event")
    assert isinstance(newer, dict)
    newer["more"] = newer["data"]["more"] = {"deep": [1]}

    assert decode_structured(encode_json(newer)) == event()


@given(st.binary())
def test_what_is_no_event_is_refused(data: bytes) -> None:
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
def test_attributes_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    attributes = {**attributes_of(event()), **wrong}
    with pytest.raises(InvalidValue):
        decode_binary(attributes, encode_data(event()))


def test_what_is_too_large_is_not_looked_at() -> None:
    with pytest.raises(InvalidValue, match="1048576 are read"):
        decode_structured(b" " * 1_048_577)
