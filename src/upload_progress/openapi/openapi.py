"""The HTTP calls as an OpenAPI 3.1 document.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from importlib.metadata import version
from typing import Final

from upload_progress._model.models import UploadPage, UploadProgress
from upload_progress.openapi import parameters
from upload_progress.openapi.messages import Announcement, SubscriptionRequest, Ticket
from upload_progress.openapi.responses import answered, refused, streamed
from upload_progress.openapi.schemas import HTTP_TYPES, JsonObject, json_content, schemas_of

__all__ = [
    "openapi_document",
]

_SCHEMES: Final[JsonObject] = {
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "session"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
}
_SECURITY: Final[tuple[JsonObject, ...]] = ({"basic": []}, {"bearer": []}, {"cookie": []})
_ANNOUNCED: Final = "Location ETag Retry-After"
_INTRODUCTION: Final = (
    "Who is asking is decided by the application's `authenticate`; the security schemes here are "
    "examples. Every answer says `Cache-Control: no-store`, except the script."
)


def openapi_document(*, mount_path: str = "/uploads") -> JsonObject:
    """Return the OpenAPI document of ``progress_routes``.

    Args:
        mount_path: Where they are mounted, as clients see it.
    """
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "upload-progress",
            "version": version("upload-progress"),
            "summary": "How far uploads are, told to whoever sent them.",
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {f"{mount_path}{path}": item for path, item in _paths().items()},
        "security": list(_SECURITY),
        "components": {"schemas": schemas_of(HTTP_TYPES), "securitySchemes": _SCHEMES},
    }


def _paths() -> JsonObject:
    one, client = [parameters.UPLOAD_ID], [parameters.CLIENT_ID]
    return {
        "": {"post": _announce()},
        "/progress": {"get": _list()},
        "/tickets": {"post": _ticket()},
        "/upload-progress.js": {"get": _script()},
        "/{upload_id}": {"delete": _cancel(), "head": _offset(), "parameters": one},
        "/{upload_id}/progress": {"get": _progress(), "parameters": one},
        "/{upload_id}/subscribe": {"post": _subscribe(), "parameters": one},
        "/{client_id}/unsubscribe": {"delete": _unsubscribe(), "parameters": client},
    }


def _announce() -> JsonObject:
    return {
        "operationId": "announceUpload",
        "summary": "Announce an upload, and get an id for it",
        "requestBody": {"required": False, "content": json_content(Announcement)},
        "responses": {
            **answered(201, "The pending snapshot.", json_content(UploadProgress), _ANNOUNCED),
            **refused(400, 401, 403, 408, 413, 422, 429, 503),
        },
    }


def _progress() -> JsonObject:
    return {
        "operationId": "getProgress",
        "summary": "Ask, wait, or listen for the progress of an upload",
        "description": "With `Accept: text/event-stream` the answer is a stream: one event per "
        "snapshot, whose `id` is the `sequence`, and which ends with the upload.",
        "security": [*_SECURITY, {"ticket": []}],
        "parameters": [
            parameters.WAIT,
            parameters.PREFER,
            parameters.IF_NONE_MATCH,
            parameters.LAST_EVENT_ID,
        ],
        "responses": {
            **answered(
                200, "The snapshot.", streamed(UploadProgress, event=UploadProgress), "ETag"
            ),
            **answered(204, "Nothing more will come: a stream need not be opened again."),
            **answered(304, "It is what `If-None-Match` names.", headers="ETag Retry-After"),
            **refused(401, 403, 404, 422, 429, 503),
        },
    }


def _list() -> JsonObject:
    return {
        "operationId": "listProgress",
        "summary": "Ask for, or listen to, all of the caller's uploads",
        "description": "With `Accept: text/event-stream` the answer is a stream: one event per "
        "snapshot of any of them, also of those to come.",
        "security": [*_SECURITY, {"ticket": []}],
        "parameters": [
            parameters.STATE,
            parameters.GROUP,
            parameters.LIMIT,
            parameters.CURSOR,
            parameters.LAST_EVENT_ID,
        ],
        "responses": {
            **answered(
                200, "A page, and the sum of all pages.", streamed(UploadPage, event=UploadProgress)
            ),
            **refused(401, 403, 404, 422, 429, 503),
        },
    }


def _cancel() -> JsonObject:
    return {
        "operationId": "cancelUpload",
        "summary": "Cancel an upload; its running transfer is cut",
        "responses": {
            **answered(202, "The cancelled snapshot.", json_content(UploadProgress)),
            **refused(401, 403, 404, 409, 503),
        },
    }


def _offset() -> JsonObject:
    names = "Upload-Offset Upload-Length Upload-Complete"
    return {
        "operationId": "getOffset",
        "summary": "Ask how many bytes of an upload are here",
        "responses": {
            **answered(200, "In the headers.", headers=names),
            **{status: {"description": "As for GET."} for status in ("401", "404", "503")},
        },
    }


def _subscribe() -> JsonObject:
    return {
        "operationId": "subscribeSocket",
        "summary": "Add an upload to an open WebSocket",
        "requestBody": {"required": True, "content": json_content(SubscriptionRequest)},
        "responses": {
            **answered(204, "The socket follows it."),
            **refused(400, 401, 403, 404, 408, 413, 422, 429, 503),
        },
    }


def _unsubscribe() -> JsonObject:
    return {
        "operationId": "unsubscribeSocket",
        "summary": "Take one upload, or all, off an open WebSocket",
        "parameters": [parameters.FOLLOWED_UPLOAD],
        "responses": {
            **answered(204, "The socket follows it no more."),
            **refused(401, 403, 404, 503),
        },
    }


def _ticket() -> JsonObject:
    return {
        "operationId": "makeTicket",
        "summary": "Get a ticket for a WebSocket or an EventSource, which cannot set headers",
        "responses": {
            **answered(201, "Good once, for half a minute.", json_content(Ticket)),
            **refused(401, 403, 503),
        },
    }


def _script() -> JsonObject:
    content: JsonObject = {"text/javascript": {"schema": {"type": "string"}}}
    return {
        "operationId": "getComponent",
        "summary": "The web component",
        "security": [],
        "responses": {
            "200": {"description": "An ES module.", "content": content},
            "304": {"description": "It is what `If-None-Match` names."},
        },
    }
