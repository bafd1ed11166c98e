"""The OpenAPI 3.1 document: the HTTP calls.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from importlib.metadata import version
from typing import Final

from upload_progress._model.api_types import (
    Announcement,
    SubscribeRequest,
    TaskReport,
    Ticket,
    TicketTargets,
)
from upload_progress._model.models import UploadPage, UploadProgress
from upload_progress._reading.lists import MAX_SUMMED
from upload_progress.openapi import parameters
from upload_progress.openapi.responses import (
    error_responses,
    response,
    snapshot_or_stream,
    static_responses,
)
from upload_progress.openapi.schemas import HTTP_TYPES, JsonObject, json_content, schemas_of

__all__ = ["openapi_document"]

_SECURITY_SCHEMES: Final[JsonObject] = {
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "handover": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "session"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
}
_SECURITY: Final[tuple[JsonObject, ...]] = ({"basic": []}, {"bearer": []}, {"cookie": []})
_PUBLIC: Final[list[JsonObject]] = []
_DESCRIPTION: Final = (
    "The application's `authenticate` authenticates users; the security schemes here are "
    "examples. Every response has `Cache-Control: no-store`, except the script and the API "
    "documents, which are the same for every user."
)


def openapi_document(*, mount_path: str = "/uploads") -> JsonObject:
    """Return the OpenAPI 3.1 document of ``progress_routes``.

    Example:
        ::

            document = openapi_document(mount_path="/api/uploads")
            Path("openapi.json").write_text(json.dumps(document))

    Args:
        mount_path: The path at which the routes are mounted, as clients see it. Default:
            ``/uploads``.

    Returns:
        The document, as JSON data.
    """
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "upload-progress",
            "version": version("upload-progress"),
            "summary": "Upload progress, measured at the server, for the owners of uploads.",
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {f"{mount_path}{path}": item for path, item in _paths().items()},
        "security": list(_SECURITY),
        "components": {
            "schemas": schemas_of(HTTP_TYPES),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _paths() -> JsonObject:
    upload_id, client_id = [parameters.UPLOAD_ID], [parameters.CLIENT_ID]
    return {
        "": {"post": _announce()},
        "/progress": {"get": _list()},
        "/tickets": {"post": _ticket()},
        "/upload-progress.js": {"get": _script("Get the script of the web component")},
        "/upload-progress/forms.js": {"get": _script("Get its uploads of forms", "Forms")},
        "/upload-progress/languages.js": {"get": _script("Get its texts", "Languages")},
        "/upload-progress/panel.js": {"get": _script("Get its panel for many uploads", "Panel")},
        "/upload-progress/parts.js": {"get": _script("Get its uploads in parts", "Parts")},
        "/upload-progress/streams.js": {"get": _script("Get its HTTP streams", "Streams")},
        "/openapi.json": {"get": _document("OpenAPI", "getOpenapi")},
        "/asyncapi.json": {"get": _document("AsyncAPI", "getAsyncapi")},
        "/{upload_id}": {
            "delete": _cancel(),
            "head": _offset(),
            "patch": _report(),
            "parameters": upload_id,
        },
        "/{upload_id}/progress": {"get": _progress(), "parameters": upload_id},
        "/{upload_id}/subscribe": {"post": _subscribe(), "parameters": upload_id},
        "/{client_id}/unsubscribe": {"delete": _unsubscribe(), "parameters": client_id},
    }


def _announce() -> JsonObject:
    headers = "Location ETag Retry-After"
    return {
        "operationId": "announceUpload",
        "summary": "Announce an upload and get an id for it",
        "requestBody": {"required": False, "content": json_content(Announcement)},
        "responses": {
            **response(201, "The pending snapshot.", json_content(UploadProgress), headers),
            **error_responses(400, 401, 403, 408, 413, 422, 429, 503),
        },
    }


def _progress() -> JsonObject:
    content = snapshot_or_stream(UploadProgress, event=UploadProgress)
    return {
        "operationId": "getProgress",
        "summary": "Get, wait for, or stream the progress of an upload",
        "description": "With `Accept: text/event-stream` the response is a stream of one event "
        "per snapshot, whose `id` is the `sequence`. The stream ends with the upload, and "
        "10 s after `worker_lost`, which a living worker may overrule.",
        "security": [*_SECURITY, {"ticket": []}],
        "parameters": [
            parameters.WAIT,
            parameters.PREFER,
            parameters.IF_NONE_MATCH,
            parameters.OWNER,
            parameters.LAST_EVENT_ID,
        ],
        "responses": {
            **response(200, "The snapshot.", content, "ETag"),
            **response(204, "The client has received the end: do not reopen the stream."),
            **response(
                304,
                "The client has the snapshot that `If-None-Match` names.",
                headers="ETag Retry-After",
            ),
            **error_responses(401, 403, 404, 422, 429, 503),
        },
    }


def _list() -> JsonObject:
    content = snapshot_or_stream(UploadPage, event=UploadProgress)
    return {
        "operationId": "listProgress",
        "summary": "List or stream all uploads of the user",
        "description": "With `Accept: text/event-stream` the response is a stream of one event "
        "per snapshot of any upload, including uploads that begin later. A page may have fewer "
        "uploads than `limit` although `next` is not null. The total covers the uploads that are "
        f"being received and the newest {MAX_SUMMED} others; `approximate` tells whether there are "
        "more.",
        "security": [*_SECURITY, {"ticket": []}],
        "parameters": [
            parameters.STATE,
            parameters.GROUP,
            parameters.LIMIT,
            parameters.CURSOR,
            parameters.OWNER,
            parameters.LAST_EVENT_ID,
        ],
        "responses": {
            **response(200, "One page, and the sum over all pages.", content),
            **error_responses(401, 403, 404, 422, 429, 503),
        },
    }


def _cancel() -> JsonObject:
    return {
        "operationId": "cancelUpload",
        "summary": "Cancel an upload; its running transfer is aborted",
        "parameters": [parameters.OWNER],
        "responses": {
            **response(202, "The cancelled snapshot.", json_content(UploadProgress)),
            **error_responses(401, 403, 404, 409, 503),
        },
    }


def _report() -> JsonObject:
    return {
        "operationId": "reportTask",
        "summary": "Report the work of a task, or end the upload that was handed over to it",
        "description": "For tasks in any language. The bearer token is the result of "
        "`hand_over()`. The next report is due within `lease_seconds`, by default those of the "
        "tracker (15); else the upload fails as `worker_lost`. A report after that begins the next "
        "attempt. 404 until the endpoint has answered; 409 when the upload has ended otherwise, "
        "with the code `upload_cancelled` if its owner has cancelled it.",
        "security": [{"handover": []}],
        "requestBody": {"required": False, "content": json_content(TaskReport)},
        "responses": {
            **response(200, "The snapshot.", json_content(UploadProgress)),
            **error_responses(400, 401, 404, 408, 409, 413, 422, 503),
        },
    }


def _offset() -> JsonObject:
    headers = "Upload-Offset Upload-Length Upload-Complete"
    return {
        "operationId": "getOffset",
        "summary": "Get the first byte of an upload that the application has not accepted",
        "parameters": [parameters.OWNER],
        "responses": {
            **response(200, "The headers hold the offset.", headers=headers),
            **{status: {"description": "As for `GET`."} for status in ("401", "404", "503")},
        },
    }


def _subscribe() -> JsonObject:
    return {
        "operationId": "subscribeSocket",
        "summary": "Add an upload to an open WebSocket",
        "parameters": [parameters.OWNER],
        "requestBody": {"required": True, "content": json_content(SubscribeRequest)},
        "responses": {
            **response(204, "The WebSocket is subscribed to the upload."),
            **error_responses(400, 401, 403, 404, 408, 413, 422, 429, 503),
        },
    }


def _unsubscribe() -> JsonObject:
    return {
        "operationId": "unsubscribeSocket",
        "summary": "Remove one upload, or all uploads, from an open WebSocket",
        "parameters": [parameters.SUBSCRIBED_UPLOAD, parameters.OWNER],
        "responses": {
            **response(204, "The subscription has ended."),
            **error_responses(401, 403, 404, 503),
        },
    }


def _ticket() -> JsonObject:
    return {
        "operationId": "createTicket",
        "summary": "Get a ticket for a WebSocket or an EventSource, which cannot set headers",
        "description": "With Centrifugo as the push server, also tokens for what the body names.",
        "requestBody": {"required": False, "content": json_content(TicketTargets)},
        "responses": {
            **response(201, "Valid once, for 30 seconds.", json_content(Ticket)),
            **error_responses(400, 401, 403, 404, 408, 413, 422, 503),
        },
    }


def _script(summary: str, name: str = "") -> JsonObject:
    content: JsonObject = {"text/javascript": {"schema": {"type": "string"}}}
    return {
        "operationId": f"getComponent{name}",
        "summary": summary,
        "security": _PUBLIC,
        "responses": static_responses("An ES module.", content),
    }


def _document(name: str, operation_id: str) -> JsonObject:
    content: JsonObject = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": operation_id,
        "summary": f"Get the {name} document of this API",
        "security": _PUBLIC,
        "responses": static_responses(f"The {name} 3.1 document.", content),
    }
