"""The words on the wire: JSON snapshots, CloudEvents, frames, and packed records.

A reader ignores fields that it does not know, so that an older process understands a newer
one. What is sent to many watchers is encoded once: see ``Update``.

Sources: RFC 8259 (JSON), RFC 3339 (times), CloudEvents 1.0 JSON format, the HTML standard's
event stream format (section 9.2).
"""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from types import GenericAlias
from typing import Final, get_type_hints

import msgspec
from attrs import NOTHING, define, field, fields, frozen

from upload_progress.errors import InvalidValue
from upload_progress.lifecycle import is_final
from upload_progress.model import Metadata, TransferRecord, UploadPage, UploadProgress

__all__ = [
    "DEEPEST_METADATA",
    "EVENT_TYPE",
    "CloudEvent",
    "Mark",
    "Update",
    "bounded_metadata",
    "decode_json",
    "decode_page",
    "decode_progress",
    "encode_json",
    "event_of",
    "pack_record",
    "unpack_record",
]

EVENT_TYPE: Final = "upload-progress.UploadProgressUpdated.v1"

DEEPEST_METADATA: Final = 32

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


@frozen(slots=False)
class CloudEvent:
    """``UploadProgressUpdated`` as a CloudEvents 1.0 event in structured JSON.

    Attributes:
        id: ``{upload_id}/{attempt}/{sequence}``: the same for every copy of one event.
        owner: Extension attribute: in whose namespace the upload lives.
    """

    id: str
    source: str
    subject: str
    time: datetime
    owner: str
    data: UploadProgress
    type: str = EVENT_TYPE
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


def event_of(owner: str, progress: UploadProgress, source: str) -> CloudEvent:
    """Return the event that tells of *progress*."""
    return CloudEvent(
        id=f"{progress.upload_id}/{progress.attempt}/{progress.sequence}",
        source=source,
        subject=progress.upload_id,
        time=progress.updated_at,
        owner=owner,
        data=progress,
    )


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


def bounded_metadata(metadata: Mapping[str, object], where: str, size_bytes: int) -> Metadata:
    """Return a copy of *metadata* that is JSON and no larger than *size_bytes*.

    Raises:
        InvalidValue: It is not, or it is.
    """
    try:
        encoded = _encoder.encode(metadata)
        _packer.encode(metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(where, f"is nothing that can be kept as JSON: {error}") from None
    if _is_deeper(metadata, DEEPEST_METADATA):
        raise InvalidValue(where, f"is nested more than {DEEPEST_METADATA} levels deep")
    if len(encoded) > size_bytes:
        raise InvalidValue(where, f"has {len(encoded)} bytes as JSON; {size_bytes} are allowed")
    return decode_json(encoded, where)


def _is_deeper(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in value)


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


@frozen
class Mark:
    """Of a snapshot, what decides whether another one is news."""

    sequence: int
    attempt: int
    received_bytes: int
    is_end: bool

    def is_before(self, other: "Mark") -> bool:
        """Tell whether *other* is news: events may come twice, late, or from a stranger.

        Nothing follows an end but the next attempt, and bytes never fall, unless it ends.
        """
        if other.sequence <= self.sequence or other.attempt < self.attempt:
            return False
        if other.attempt > self.attempt:
            return True
        return not self.is_end and (other.received_bytes >= self.received_bytes or other.is_end)


@define(eq=False, repr=False)
class Update:
    """A snapshot on its way to watchers.

    Each encoding, and what watchers remember of it, is made once, when first asked for: a
    thousand of them share it.
    """

    owner: str
    progress: UploadProgress
    topic: tuple[str, str] = field(init=False)
    _mark: Mark | None = field(default=None, init=False)
    _json: bytes | None = field(default=None, init=False)
    _websocket_text: str | None = field(default=None, init=False)
    _sse: bytes | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Name the upload, as watchers look it up."""
        self.topic = (self.owner, self.progress.upload_id)

    @property
    def mark(self) -> Mark:
        """What a watcher remembers of the snapshot that it was shown last."""
        if self._mark is None:
            shown = self.progress
            self._mark = Mark(
                shown.sequence, shown.attempt, shown.bytes_transferred, is_final(shown.state)
            )
        return self._mark

    @property
    def is_end(self) -> bool:
        """Whether the upload has ended with it."""
        return self.mark.is_end

    @property
    def json(self) -> bytes:
        """The snapshot as JSON."""
        if self._json is None:
            self._json = _encoder.encode(self.progress)
        return self._json

    @property
    def websocket_text(self) -> str:
        """The snapshot as the text of a WebSocket message."""
        if self._websocket_text is None:
            self._websocket_text = f'{{"type":"progress","upload":{self.json.decode()}}}'
        return self._websocket_text

    @property
    def sse(self) -> bytes:
        """The snapshot as an event of a stream; its id is the sequence."""
        if self._sse is None:
            self._sse = b"id: %d\ndata: %b\n\n" % (self.progress.sequence, self.json)
        return self._sse
