"""The AsyncAPI 3.1 document: the WebSockets, and the events of brokers.

``send`` and ``receive`` are from the point of view of the server, as in the specification.
Source: https://www.asyncapi.com/docs/reference/specification/v3.1.0
"""

from collections.abc import Sequence
from importlib.metadata import version
from inspect import getdoc
from typing import Final

from upload_progress._model.api_types import CLIENT_MESSAGES, SERVER_MESSAGES
from upload_progress._model.cloudevents import ATTRIBUTES, CloudEvent
from upload_progress._model.models import UploadProgress
from upload_progress.openapi.schemas import EVENT_TYPES, JsonObject, schema_reference, schemas_of

__all__ = ["asyncapi_document"]

_EVENT_NAME: Final = "UploadProgressUpdated"
_BINARY_PREFIXES: Final = {
    "UploadProgressUpdatedRabbitMQ": "ce-",
    "UploadProgressUpdatedKafka": "ce_",
}
"""The event in binary mode, and what the names of its headers begin with."""
_BINDINGS: Final[JsonObject] = {
    "ws": {
        "method": "GET",
        "query": {"type": "object", "properties": {"ticket": {"type": "string"}}},
        "bindingVersion": "0.1.0",
    }
}


def asyncapi_document(*, mount_path: str = "/uploads") -> JsonObject:
    """Return the AsyncAPI 3.1 document of the WebSockets of ``progress_routes`` and the events.

    Example:
        ::

            document = asyncapi_document(mount_path="/api/uploads")
            Path("asyncapi.json").write_text(json.dumps(document))

    Args:
        mount_path: The path at which the routes are mounted, as clients see it. Default:
            ``/uploads``.

    Returns:
        The document, as JSON data.
    """
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "upload-progress",
            "version": version("upload-progress"),
            "description": "Upload progress, measured at the server, for the owners of uploads.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(mount_path),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": schemas_of(EVENT_TYPES)},
    }


def _channels(mount_path: str) -> JsonObject:
    upload_id = {"upload_id": {"description": "The id of the upload, unique within its owner."}}
    return {
        "uploads": {
            "address": f"{mount_path}/progress",
            "title": "A WebSocket for many uploads",
            "messages": _references([*SERVER_MESSAGES, *CLIENT_MESSAGES]),
            "bindings": _BINDINGS,
        },
        "upload": {
            "address": f"{mount_path}/{{upload_id}}/progress",
            "parameters": upload_id,
            "title": "A WebSocket for one upload; it closes with code 1000 after the end",
            "messages": _references([*SERVER_MESSAGES, *CLIENT_MESSAGES]),
            "bindings": _BINDINGS,
        },
        "events": {
            "address": None,
            "title": "The channel of a broker, as configured for the publisher",
            "messages": _references([CloudEvent]) | _event_references(),
        },
    }


def _operations() -> JsonObject:
    sockets = [
        _operation(action, channel, list(map(_name, messages)))
        for channel in ("uploads", "upload")
        for action, messages in (("send", SERVER_MESSAGES), ("receive", CLIENT_MESSAGES))
    ]
    events = _operation("send", "events", [_EVENT_NAME, *_BINARY_PREFIXES])
    return dict([*sockets, events])


def _operation(action: str, channel: str, names: Sequence[str]) -> tuple[str, JsonObject]:
    path = f"#/channels/{channel}"
    messages = [{"$ref": f"{path}/messages/{name}"} for name in names]
    operation: JsonObject = {"action": action, "channel": {"$ref": path}, "messages": messages}
    return f"{action}-{channel}", operation


def _messages() -> JsonObject:
    messages: JsonObject = {_name(kind): _message(kind) for kind in EVENT_TYPES}
    for name, prefix in _BINARY_PREFIXES.items():
        messages[name] = _binary_message(name, prefix)
    return messages


def _binary_message(name: str, prefix: str) -> JsonObject:
    """Return the event in binary mode: attributes as headers, the snapshot as payload."""
    headers = {f"{prefix}{attribute}": {"type": "string"} for attribute in ATTRIBUTES}
    return {
        "name": name,
        "summary": f"The event in binary mode: its attributes are headers ``{prefix}…``.",
        "contentType": "application/json",
        "headers": {"type": "object", "properties": headers, "required": list(headers)},
        "payload": schema_reference(UploadProgress),
    }


def _event_references() -> JsonObject:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in _BINARY_PREFIXES}


def _message(kind: type) -> JsonObject:
    media_type = "application/cloudevents+json" if kind is CloudEvent else "application/json"
    summary = (getdoc(kind) or "").partition("\n")[0]
    return {
        "name": _name(kind),
        "summary": summary,
        "contentType": media_type,
        "payload": schema_reference(kind),
    }


def _name(kind: type) -> str:
    return _EVENT_NAME if kind is CloudEvent else kind.__name__


def _references(messages: Sequence[type]) -> JsonObject:
    return {_name(kind): {"$ref": f"#/components/messages/{_name(kind)}"} for kind in messages}
