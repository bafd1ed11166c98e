"""JSON Schemas of everything on the wire, as msgspec reads them from the types."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import (
    RESERVED_IDS,
    Links,
    Parts,
    Stage,
    UploadError,
    UploadPage,
    UploadProgress,
    UploadTotal,
)
from upload_progress.openapi.descriptions import MEANINGS
from upload_progress.openapi.messages import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    Announcement,
    Problem,
    SubscriptionRequest,
    Ticket,
)

__all__ = [
    "EVENT_TYPES",
    "HTTP_TYPES",
    "JsonObject",
    "UPLOAD_ID_SCHEMA",
    "json_content",
    "reference",
    "schemas_of",
]

JsonObject = dict[str, object]

HTTP_TYPES: Final = (
    UploadProgress,
    UploadPage,
    Announcement,
    SubscriptionRequest,
    Ticket,
    Problem,
)
EVENT_TYPES: Final = (CloudEvent, *SERVER_MESSAGES, *CLIENT_MESSAGES)

_RESERVED: Final = "|".join(re.escape(word) for word in sorted({".", "..", *RESERVED_IDS}))
UPLOAD_ID_SCHEMA: Final[Mapping[str, object]] = {
    "type": "string",
    "pattern": f"^(?!({_RESERVED})$)[A-Za-z0-9._~-]{{1,128}}$",
    "minLength": 1,
    "maxLength": 128,
}
"""What ``model.is_upload_id`` accepts, for those who read schemas and not Python."""


def schemas_of(types: Iterable[type]) -> JsonObject:
    """Return the schema of each of *types* and of what they are made of, by name."""
    _, components = msgspec.json.schema_components(
        types, schema_hook=_anything, ref_template="#/components/schemas/{name}"
    )
    return {name: _complete(schema) for name, schema in sorted(components.items())}


def reference(of: type) -> JsonObject:
    """Return a reference to the schema of a type."""
    return {"$ref": f"#/components/schemas/{of.__name__}"}


def json_content(of: type, media_type: str = "application/json") -> JsonObject:
    """Return the content of a body that holds a type's JSON."""
    return {media_type: {"schema": reference(of)}}


def _anything(kind: type) -> JsonObject:
    if kind is not object:
        raise TypeError(f"{kind} has no JSON Schema")
    return {"description": "Any JSON value."}


def _complete(schema: JsonObject) -> JsonObject:
    """Say of a value of the core what msgspec cannot know.

    Every field is there, though their constructors have defaults, and each moment is RFC 3339.
    """
    fields = schema.get("properties")
    if not isinstance(fields, dict) or schema["title"] not in _WHOLE:
        return schema
    return {
        **schema,
        "properties": {
            name: _sent(name, field) | _meaning(schema, name) for name, field in fields.items()
        },
        "required": list(fields),
    }


def _sent(name: str, field: JsonObject) -> JsonObject:
    if name == "time" or name.endswith("_at"):
        moment: JsonObject = {"type": "string", "format": "date-time"}
        return {"anyOf": [moment, {"type": "null"}]} if "anyOf" in field else moment
    return {key: value for key, value in field.items() if key != "default"}


def _meaning(schema: JsonObject, name: str) -> JsonObject:
    if schema["title"] != UploadProgress.__name__:
        return {}
    return {"description": MEANINGS[name]}


_WHOLE: Final = frozenset(
    kind.__name__
    for kind in (
        CloudEvent,
        Links,
        Parts,
        Stage,
        UploadError,
        UploadPage,
        UploadProgress,
        UploadTotal,
    )
)
