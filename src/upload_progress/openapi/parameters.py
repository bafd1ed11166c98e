"""What the HTTP calls can be told in path, query and headers, as OpenAPI parameter objects."""

from typing import Final

from upload_progress._model.models import UploadState
from upload_progress.openapi.schemas import UPLOAD_ID_SCHEMA, JsonObject

__all__ = [
    "CLIENT_ID",
    "CURSOR",
    "FOLLOWED_UPLOAD",
    "GROUP",
    "IF_NONE_MATCH",
    "LAST_EVENT_ID",
    "LIMIT",
    "PREFER",
    "STATE",
    "UPLOAD_ID",
    "WAIT",
]


def _parameter(place: str, name: str, description: str, **schema: object) -> JsonObject:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
    }


UPLOAD_ID: Final = _parameter("path", "upload_id", "The upload.", **UPLOAD_ID_SCHEMA)
CLIENT_ID: Final = _parameter(
    "path",
    "client_id",
    "The socket, as its `welcome` named it.",
    type="string",
    pattern="^[A-Za-z0-9_-]+$",
)
FOLLOWED_UPLOAD: Final = _parameter(
    "query", "upload_id", "Only this upload; all of them without.", **UPLOAD_ID_SCHEMA
)
STATE: Final[dict[str, object]] = {
    **_parameter(
        "query",
        "state",
        "Only uploads in these states, separated by commas. Without: the open ones, and those "
        "that ended in the last minutes.",
        type="array",
        items={"enum": [state.value for state in UploadState]},
    ),
    "style": "form",
    "explode": False,
}
GROUP: Final = _parameter("query", "group", "Only uploads of this group.", type="string")
LIMIT: Final = _parameter(
    "query", "limit", "How many to a page.", type="integer", minimum=1, maximum=1000, default=100
)
CURSOR: Final = _parameter("query", "cursor", "`next` of the page before.", type="string")
WAIT: Final = _parameter(
    "query",
    "wait",
    "With `If-None-Match`: wait up to that many seconds, at most a minute, for a change.",
    type="integer",
    minimum=0,
    maximum=999_999_999,
)
PREFER: Final = _parameter(
    "header", "Prefer", "`wait=25` means the same as the query (RFC 7240).", type="string"
)
IF_NONE_MATCH: Final = _parameter(
    "header", "If-None-Match", "The `ETag` that is known already.", type="string"
)
LAST_EVENT_ID: Final = _parameter(
    "header", "Last-Event-ID", "Where a stream of events was left.", type="string"
)
