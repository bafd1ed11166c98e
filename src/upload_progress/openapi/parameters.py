"""Parameter objects of the OpenAPI document: path, query and headers."""

from typing import Final

from upload_progress._model.api_types import CLIENT_ID_PATTERN
from upload_progress._model.models import UploadState
from upload_progress.openapi.schemas import UPLOAD_ID_SCHEMA, JsonObject

__all__ = [
    "CLIENT_ID",
    "CURSOR",
    "GROUP",
    "IF_NONE_MATCH",
    "LAST_EVENT_ID",
    "LIMIT",
    "OWNER",
    "PREFER",
    "STATE",
    "SUBSCRIBED_UPLOAD",
    "UPLOAD_ID",
    "WAIT",
]


def _parameter(location: str, name: str, description: str, **schema: object) -> JsonObject:
    return {
        "name": name,
        "in": location,
        "required": location == "path",
        "description": description,
        "schema": schema,
    }


UPLOAD_ID: Final = _parameter("path", "upload_id", "The upload.", **UPLOAD_ID_SCHEMA)
CLIENT_ID: Final = _parameter(
    "path",
    "client_id",
    "The WebSocket, as named in its `welcome` message.",
    type="string",
    pattern=CLIENT_ID_PATTERN,
)
SUBSCRIBED_UPLOAD: Final = _parameter(
    "query", "upload_id", "Only this upload. Default: all uploads.", **UPLOAD_ID_SCHEMA
)
STATE: Final[dict[str, object]] = {
    **_parameter(
        "query",
        "state",
        "Only uploads in these states, separated by commas. Default: open uploads, and those "
        "that ended in the last minutes.",
        type="array",
        items={"enum": [state.value for state in UploadState]},
    ),
    "style": "form",
    "explode": False,
}
GROUP: Final = _parameter("query", "group", "Only uploads of this group.", type="string")
LIMIT: Final = _parameter(
    "query",
    "limit",
    "Maximum number of uploads on a page.",
    type="integer",
    minimum=1,
    maximum=1000,
    default=100,
)
CURSOR: Final = _parameter("query", "cursor", "The `next` of the previous page.", type="string")
OWNER: Final = _parameter(
    "query",
    "owner",
    "Only for operators: the owner of the uploads. For everybody else it changes nothing.",
    type="string",
)
WAIT: Final = _parameter(
    "query",
    "wait",
    "With `If-None-Match`: wait for a newer snapshot, at most that many seconds and at most 60.",
    type="integer",
    minimum=0,
    maximum=999_999_999,
)
PREFER: Final = _parameter(
    "header", "Prefer", "`wait=25` has the effect of `?wait=25` (RFC 7240).", type="string"
)
IF_NONE_MATCH: Final = _parameter(
    "header", "If-None-Match", "The `ETag` of the snapshot that the client has.", type="string"
)
LAST_EVENT_ID: Final = _parameter(
    "header", "Last-Event-ID", "The id of the last event that the client received.", type="string"
)
