"""The WebSockets and the broker's events as an AsyncAPI 3.1 document.

``send`` and ``receive`` are the server's point of view, as the specification has it.
Source: https://www.asyncapi.com/docs/reference/specification/v3.1.0
"""

from collections.abc import Sequence
from importlib.metadata import version
from inspect import getdoc
from typing import Final

from upload_progress._model.cloudevents import CloudEvent
from upload_progress.openapi.messages import CLIENT_MESSAGES, SERVER_MESSAGES
from upload_progress.openapi.schemas import EVENT_TYPES, JsonObject, reference, schemas_of

__all__ = [
    "asyncapi_document",
]

_EVENT: Final = "UploadProgressUpdated"
_BINDINGS: Final[JsonObject] = {
    "ws": {
        "method": "GET",
        "query": {"type": "object", "properties": {"ticket": {"type": "string"}}},
        "bindingVersion": "0.1.0",
    }
}


def asyncapi_document(*, mount_path: str = "/uploads") -> JsonObject:
    """Return the AsyncAPI document of the sockets of ``progress_routes``, and of the events.

    Args:
        mount_path: Where they are mounted, as clients see it.
    """
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "upload-progress",
            "version": version("upload-progress"),
            "description": "How far uploads are, told to whoever sent them.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(mount_path),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": schemas_of(EVENT_TYPES)},
    }


def _channels(mount_path: str) -> JsonObject:
    upload_id = {"upload_id": {"description": "The upload, in its owner's namespace."}}
    one = {"address": f"{mount_path}/{{upload_id}}/progress", "parameters": upload_id}
    return {
        "uploads": {
            "address": f"{mount_path}/progress",
            "title": "One socket for many uploads",
            "messages": _references([*SERVER_MESSAGES, *CLIENT_MESSAGES]),
            "bindings": _BINDINGS,
        },
        "upload": {
            **one,
            "title": "One socket for one upload; it closes with 1000 after the end",
            "messages": _references([*SERVER_MESSAGES, *CLIENT_MESSAGES]),
            "bindings": _BINDINGS,
        },
        "events": {
            "address": None,
            "title": "A broker's topic, as the publisher is configured",
            "messages": _references([CloudEvent]),
        },
    }


def _operations() -> JsonObject:
    sockets = [
        _operation(action, channel, messages)
        for channel in ("uploads", "upload")
        for action, messages in (("send", SERVER_MESSAGES), ("receive", CLIENT_MESSAGES))
    ]
    return dict([*sockets, _operation("send", "events", [CloudEvent])])


def _operation(action: str, channel: str, messages: Sequence[type]) -> tuple[str, JsonObject]:
    path = f"#/channels/{channel}"
    names = [{"$ref": f"{path}/messages/{_name(message)}"} for message in messages]
    operation: JsonObject = {"action": action, "channel": {"$ref": path}, "messages": names}
    return f"{action}-{channel}", operation


def _messages() -> JsonObject:
    return {_name(kind): _message(kind) for kind in EVENT_TYPES}


def _message(kind: type) -> JsonObject:
    media = "application/cloudevents+json" if kind is CloudEvent else "application/json"
    summary = (getdoc(kind) or "").partition("\n")[0]
    return {
        "name": _name(kind),
        "summary": summary,
        "contentType": media,
        "payload": reference(kind),
    }


def _name(kind: type) -> str:
    return _EVENT if kind is CloudEvent else kind.__name__


def _references(messages: Sequence[type]) -> JsonObject:
    return {_name(kind): {"$ref": f"#/components/messages/{_name(kind)}"} for kind in messages}
