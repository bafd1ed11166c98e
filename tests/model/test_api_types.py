"""Types of the HTTP and WebSocket API: what is accepted, and what is rejected."""

from __future__ import annotations

import msgspec
import pytest

from upload_progress._model.api_types import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    Announcement,
    Cancel,
    ClientMessage,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from upload_progress._model.codec import encode_json


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"type":"subscribe","upload_id":"up"}', Subscribe(upload_id="up")),
        (b'{"type":"subscribe","all":true}', Subscribe(all=True)),
        (b'{"type":"unsubscribe","group":"g","more":1}', Unsubscribe(group="g")),
        (b'{"type":"cancel","upload_id":"up"}', Cancel("up")),
    ],
)
def test_client_message_is_decoded(data: bytes, message: ClientMessage) -> None:
    assert msgspec.json.decode(data, type=ClientMessage) == message


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"subscribe"}',
        b'{"type":"subscribe","upload_id":"up","group":"g"}',
        b'{"type":"subscribe","all":false}',
        b'{"type":"subscribe","upload_id":""}',
        b'{"type":"other"}',
        b"[]",
    ],
)
def test_invalid_client_message_is_rejected(data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=ClientMessage)


def test_group_of_an_announcement_must_be_printable() -> None:
    assert msgspec.json.decode(b'{"group":"g"}', type=Announcement).group == "g"
    with pytest.raises(msgspec.ValidationError, match="printable"):
        msgspec.json.decode(b'{"group":"a\\nb"}', type=Announcement)


def test_absent_targets_are_not_encoded() -> None:
    assert encode_json(Subscribed(group="g")) == b'{"type":"subscribed","group":"g"}'


def test_each_message_has_a_type_of_its_own() -> None:
    for messages in (SERVER_MESSAGES, CLIENT_MESSAGES):
        tags = [each.__struct_config__.tag for each in messages]
        assert len(set(tags)) == len(messages)
