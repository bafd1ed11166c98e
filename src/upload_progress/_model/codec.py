"""The words on the wire: JSON snapshots, CloudEvents, frames, and packed records.

A reader ignores fields that it does not know, so that an older process understands a newer
one. What is sent to many watchers is encoded once: see ``Update``.

Sources: RFC 8259 (JSON), RFC 3339 (times), CloudEvents 1.0 JSON format, the HTML standard's
event stream format (section 9.2).
"""

from collections.abc import Mapping
from operator import attrgetter
from types import GenericAlias
from typing import Final, get_type_hints

import msgspec
from attrs import NOTHING, fields

from upload_progress._model.models import TransferRecord, UploadPage, UploadProgress
from upload_progress.exceptions import InvalidValue

__all__ = [
    "decode_json",
    "decode_page",
    "decode_progress",
    "encode_json",
    "pack_record",
    "unpack_record",
]

_encoder: Final = msgspec.json.Encoder()
_packer: Final = msgspec.msgpack.Encoder()
_record_fields: Final = tuple(attribute.name for attribute in fields(TransferRecord))[2:]
_hints: Final = get_type_hints(TransferRecord)
_PLAIN: Final = _record_fields.index("protocol")
"""How many fields a record has of an upload that is one request; what follows is of many."""
_LEAST: Final = sum(each.default is NOTHING for each in fields(TransferRecord)) - 2
_plain_values: Final = attrgetter(*_record_fields[:_PLAIN])
_record_values: Final = attrgetter(*_record_fields)


def _types_of(count: int) -> GenericAlias:
    return tuple.__class_getitem__(tuple(_hints[name] for name in _record_fields[:count]))


_unpackers: Final = {
    count: msgspec.msgpack.Decoder(_types_of(count)) for count in (_PLAIN, len(_record_fields))
}


def encode_json(value: object) -> bytes:
    """Encode one of this library's values, or plain JSON data, as UTF-8 JSON."""
    return _encoder.encode(value)


def decode_json(data: bytes | str, where: str) -> Mapping[str, object]:
    """Decode a JSON object.

    Raises:
        InvalidValue: It is no JSON object (also when it nests too deeply).
    """
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue(where, f"is no JSON object: {error}") from None


def decode_progress(data: bytes | str) -> UploadProgress:
    """Decode a snapshot; fields it does not know are ignored.

    Raises:
        InvalidValue: It is no snapshot.
    """
    try:
        return msgspec.json.decode(data, type=UploadProgress)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("snapshot", str(error)) from None


def decode_page(data: bytes | str) -> UploadPage:
    """Decode a page of a list; fields it does not know are ignored.

    Raises:
        InvalidValue: It is none.
    """
    try:
        return msgspec.json.decode(data, type=UploadPage)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("page", str(error)) from None


def pack_record(record: TransferRecord) -> bytes:
    """Encode *record* as compactly as it goes: MessagePack, values only, without its key."""
    values = _plain_values if record.protocol is None else _record_values
    return _packer.encode(values(record))


def unpack_record(owner: str, upload_id: str, data: bytes) -> TransferRecord:
    """Decode what ``pack_record`` made of a record of that upload, here or in another version.

    Raises:
        msgspec.MsgspecError: It is nothing of that kind.
    """
    unpacker = _unpackers.get(int.from_bytes(data[1:3], "big"))
    if unpacker is not None:
        return TransferRecord(owner, upload_id, *unpacker.decode(data))
    known = msgspec.msgpack.decode(data, type=list)[: len(_record_fields)]
    if len(known) < _LEAST:
        raise msgspec.ValidationError("a record lacks fields")
    values = msgspec.convert(known, _types_of(len(known)))
    return TransferRecord(owner, upload_id, *values)
