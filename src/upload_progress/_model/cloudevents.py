"""``UploadProgressUpdated`` as CloudEvents 1.0: encoding and decoding for all brokers.

*Structured* mode: one JSON object, whose ``data`` is the snapshot; on channels that only this
library uses. *Binary* mode: the attributes as headers of the broker, the snapshot as JSON body; on
channels that other programs read. An event that is too large for its broker is sent as a *stub*:
all attributes and no data, so that the receiver reads the upload from the store.

Events are validated when they are decoded, because anyone with access to the broker can write to
it. Unknown attributes and fields are ignored.

Sources: CloudEvents 1.0.2, its JSON format, and its bindings for AMQP and Kafka.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from attrs import evolve, frozen

from upload_progress._model.codec import decode_progress, encode_json
from upload_progress._model.models import UploadProgress
from upload_progress.exceptions import InvalidValue

__all__ = [
    "ATTRIBUTES",
    "DEFAULT_NAMESPACE",
    "EVENT_TYPE",
    "MAX_EVENT_BYTES",
    "CloudEvent",
    "EventStub",
    "attributes_of",
    "decode_binary",
    "decode_structured",
    "encode_data",
    "encode_structured",
    "encode_stub",
    "event_of",
]

EVENT_TYPE: Final = "upload-progress.UploadProgressUpdated.v1"
DEFAULT_NAMESPACE: Final = "upload-progress"


@frozen(slots=False)
class CloudEvent:
    """``UploadProgressUpdated`` as a CloudEvents 1.0 event in structured JSON.

    Attributes:
        id: ``{upload_id}/{attempt}/{sequence}``: the same for every copy of one event.
        owner: Extension attribute: the owner of the upload.
        namespace: Extension attribute: the system that the owner belongs to.
    """

    id: str
    source: str
    subject: str
    time: datetime
    owner: str
    namespace: str
    data: UploadProgress
    type: str = EVENT_TYPE
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


def event_of(
    owner: str, progress: UploadProgress, source: str, *, namespace: str = DEFAULT_NAMESPACE
) -> CloudEvent:
    """Return the event for a snapshot."""
    return CloudEvent(
        id=f"{progress.upload_id}/{progress.attempt}/{progress.sequence}",
        source=source,
        subject=progress.upload_id,
        time=progress.updated_at,
        owner=owner,
        namespace=namespace,
        data=progress,
    )


MAX_EVENT_BYTES: Final = 1_048_576
"""Larger messages are refused without decoding."""

ATTRIBUTES: Final = (
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "owner",
    "namespace",
)


@frozen(slots=False)
class EventStub:
    """The attributes of an event whose data was too large for its broker."""

    id: str
    source: str
    subject: str
    time: datetime
    owner: str
    namespace: str
    type: str
    specversion: str


@frozen(slots=False)
class _Envelope(EventStub):
    data: UploadProgress | None = None


_envelopes: Final = msgspec.json.Decoder(_Envelope)


def encode_structured(event: CloudEvent) -> bytes:
    """Return *event* in one piece: ``application/cloudevents+json``."""
    return encode_json(event)


def encode_stub(event: CloudEvent) -> bytes:
    """Return the attributes of *event* in one piece, without its data."""
    return encode_json(attributes_of(event))


def attributes_of(event: CloudEvent) -> dict[str, str]:
    """Return what goes into the headers of a message whose body is ``encode_data``."""
    return {name: str(msgspec.to_builtins(getattr(event, name))) for name in ATTRIBUTES}


def encode_data(event: CloudEvent) -> bytes:
    """Return the snapshot that *event* carries, as JSON."""
    return encode_json(event.data)


def decode_structured(data: bytes | str) -> CloudEvent | EventStub:
    """Decode what ``encode_structured`` or ``encode_stub`` made.

    Raises:
        InvalidValue: It is no such event.
    """
    _bound(data)
    try:
        found = _envelopes.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("event", str(error)) from None
    return _checked(found)


def decode_binary(attributes: Mapping[str, object], data: bytes) -> CloudEvent:
    """Decode a message whose headers, without their prefix, are *attributes*.

    Raises:
        InvalidValue: It is no such event.
    """
    _bound(data)
    progress = decode_progress(data)
    try:
        head = msgspec.convert(dict(attributes), type=_Envelope)
    except msgspec.ValidationError as error:
        raise InvalidValue("event", str(error)) from None
    event = _checked(evolve(head, data=progress))
    assert isinstance(event, CloudEvent)  # noqa: S101  # of our own making: it has data
    return event


def _bound(data: bytes | str) -> None:
    if len(data) > MAX_EVENT_BYTES:
        raise InvalidValue("event", f"has {len(data)} bytes; {MAX_EVENT_BYTES} are read")


def _checked(found: _Envelope) -> CloudEvent | EventStub:
    if (found.specversion, found.type) != ("1.0", EVENT_TYPE):
        raise InvalidValue("event.type", f"is not {EVENT_TYPE} of CloudEvents 1.0")
    if found.data is None:
        return found
    if found.subject != found.data.upload_id:
        raise InvalidValue("event.subject", "is not the upload that its data tells of")
    known = (found.id, found.source, found.subject, found.time, found.owner, found.namespace)
    return CloudEvent(*known, found.data)
