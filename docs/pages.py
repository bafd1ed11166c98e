"""Reference pages, rendered from the OpenAPI and AsyncAPI documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

Json = Mapping[str, Any]

HTTP_HEAD = """\
# HTTP

The calls of `progress_mount(tracker, authenticate=…)`, or of `progress_routes` under a mount at
`/uploads`.

This page is generated from the [OpenAPI 3.1 document](openapi.json). The server returns the
document for its own mount path at `GET /uploads/openapi.json`, and
`upload_progress.openapi.openapi_document(mount_path="/api/uploads")` returns it in Python.

Errors are `application/problem+json` (RFC 9457). Responses have `Cache-Control: no-store`, except
the script and the API documents: these are the same for every user and need no authentication.
"""
EVENTS_HEAD = """\
# Events

The messages of the WebSockets, and the event that is published to brokers.

This page is generated from the [AsyncAPI 3.1 document](asyncapi.json). The server returns the
document for its own mount path at `GET /uploads/asyncapi.json`, and
`upload_progress.openapi.asyncapi_document(mount_path="/api/uploads")` returns it in Python.
"""
CLOSE_CODES = """\
## Close codes

| code | reason |
| --- | --- |
| 1000 | the upload of this socket has ended |
| 1003 | a message was not text |
| 1009 | a message was larger than `Limits.message_bytes` |
| 1012 | the server restarts: reconnect; the current snapshots are sent first |
| 1013 | the store or the authentication is unavailable: try again later |
| 4401 | no valid credentials, or they are no longer valid |
| 4403 | the `Origin` is not allowed |
| 4404 | the upload does not exist, or belongs to another user |
| 4422 | too many invalid messages; each was answered with an error message |
| 4429 | a limit is reached |

If the server supports denial responses, a refused handshake gets an HTTP response instead: a
problem document, as for any call.
"""


def http_page(document: Mapping[str, object]) -> str:
    """Return the reference page of the HTTP calls."""
    api = cast("Json", document)
    parts = [HTTP_HEAD]
    for path, item in api["paths"].items():
        shared = item.get("parameters", [])
        parts += [
            _call(method.upper(), path, item[method], shared)
            for method in ("get", "head", "post", "delete")
            if method in item
        ]
    return "\n".join([*parts, "## Schemas\n", *_schemas(api)])


def events_page(document: Mapping[str, object]) -> str:
    """Return the reference page of the messages."""
    api = cast("Json", document)
    parts = [EVENTS_HEAD]
    for name, channel in api["channels"].items():
        address = f"`WS {channel['address']}`" if channel["address"] else "`UploadProgressUpdated`"
        parts += [f"## {address}\n", f"{channel['title']}.\n"]
        for action, verb in (("send", "The server sends"), ("receive", "The client sends")):
            if operation := api["operations"].get(f"{action}-{name}"):
                parts.append(_message_table(verb, operation, api))
    return "\n".join([*parts, CLOSE_CODES, "## Schemas\n", *_schemas(api)])


def _call(method: str, path: str, call: Json, shared: list[Json]) -> str:
    lines = [f"## `{method} {path}`\n", f"{call['summary']}.\n"]
    if "description" in call:
        lines.append(f"{call['description']}\n")
    if parameters := [*shared, *call.get("parameters", [])]:
        rows = [(f"`{one['name']}`", one["in"], one["description"]) for one in parameters]
        lines.append(_table(("parameter", "in", "meaning"), rows))
    if "requestBody" in call:
        requirement = "Required" if call["requestBody"]["required"] else "Optional"
        lines.append(f"{requirement} body: {_content(call['requestBody'])}\n")
    responses = [
        (status, response["description"], _content(response), _headers(response))
        for status, response in call["responses"].items()
    ]
    return "\n".join([*lines, _table(("status", "meaning", "body", "headers"), responses)])


def _content(holder: Json) -> str:
    return ", ".join(
        f"{_kind(content.get('x-event-data', content['schema']))} as `{media}`"
        for media, content in holder.get("content", {}).items()
    )


def _headers(response: Json) -> str:
    names = [name for name in response.get("headers", {}) if name != "Cache-Control"]
    return ", ".join(f"`{name}`" for name in names)


def _message_table(verb: str, operation: Json, api: Json) -> str:
    rows = []
    for message in operation["messages"]:
        known = api["components"]["messages"][message["$ref"].rpartition("/")[2]]
        rows.append((_kind(known["payload"]), known["summary"]))
    return _table((verb, "meaning"), rows)


def _schemas(api: Json) -> Iterator[str]:
    for name, schema in api["components"]["schemas"].items():
        yield f"### {name} {{ #{name.lower()} }}\n"
        yield f"{schema.get('description', '')}\n".replace("``", "`")
        if "enum" in schema:
            yield " · ".join(f"`{value}`" for value in schema["enum"]) + "\n"
        elif schema.get("properties"):
            yield _fields(schema)


def _fields(schema: Json) -> str:
    rows = []
    for name, field in schema["properties"].items():
        optional = "" if name in schema["required"] else " (optional)"
        meaning = field.get("description", "") + optional
        rows.append((f"`{name}`", _kind(field), meaning.strip()))
    return _table(("field", "type", "meaning"), rows)


def _kind(schema: Json) -> str:
    """Return the type of a schema as text, with a link if the page describes it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    return str(schema.get("format", schema.get("type", "any")))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
