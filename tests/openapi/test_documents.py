"""The OpenAPI and AsyncAPI documents: valid, complete, and consistent with the types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs
import pytest
from attrs import fields
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from docs import diagram
from docs.generate import generated
from tests._support.asgi_client import build_app, open_socket
from tests._support.paths import ROOT
from tests._support.records import record
from upload_progress import ProgressTracker
from upload_progress._fanout.update import Update
from upload_progress._model.api_types import CLIENT_MESSAGES, SERVER_MESSAGES, ProgressMessage
from upload_progress._model.cloudevents import attributes_of, event_of
from upload_progress._model.codec import encode_json
from upload_progress._model.fold import fold
from upload_progress._model.models import RESERVED_IDS, UploadProgress, UploadState, is_upload_id
from upload_progress._model.state import TRANSITIONS
from upload_progress.backends import rabbitmq
from upload_progress.backends.kafka import publisher as kafka_publisher
from upload_progress.openapi import asyncapi_document, openapi_document, parameters, schemas
from upload_progress.openapi.descriptions import FIELD_DESCRIPTIONS
from upload_progress.starlette import capability, progress_routes
from upload_progress.starlette.context import Resource

DOCS = ROOT / "docs"
Json = dict[str, Any]


def openapi() -> Json:
    return openapi_document()


def asyncapi() -> Json:
    return asyncapi_document()


def test_openapi_document_is_valid() -> None:
    OpenAPIV31SpecValidator(cast("Any", openapi())).validate()


def test_openapi_document_contains_every_call() -> None:
    calls = {
        f"{method.upper()} {path}"
        for path, item in openapi()["paths"].items()
        for method in item.keys() - {"parameters"}
    }

    assert calls == {
        "POST /uploads",
        "GET /uploads/progress",
        "GET /uploads/{upload_id}/progress",
        "POST /uploads/{upload_id}/subscribe",
        "DELETE /uploads/{client_id}/unsubscribe",
        "DELETE /uploads/{upload_id}",
        "HEAD /uploads/{upload_id}",
        "PATCH /uploads/{upload_id}",
        "POST /uploads/tickets",
        "GET /uploads/upload-progress.js",
        "GET /uploads/upload-progress/forms.js",
        "GET /uploads/upload-progress/languages.js",
        "GET /uploads/upload-progress/panel.js",
        "GET /uploads/upload-progress/parts.js",
        "GET /uploads/upload-progress/streams.js",
        "GET /uploads/openapi.json",
        "GET /uploads/asyncapi.json",
    }


def test_openapi_document_contains_every_route() -> None:
    tracker = ProgressTracker()
    routes = [
        (route.path.removesuffix("/"), route.endpoint.handlers)
        for route in progress_routes(tracker, authenticate=capability())
        if isinstance(route, Route) and isinstance(route.endpoint, Resource)
    ]
    served = {
        (f"{tracker.config.mount_path}{path}", method.lower())
        for path, handlers in routes
        for method in handlers
        if not (method == "HEAD" and "GET" in handlers)
    }

    validate_description = {
        (path, method)
        for path, item in openapi()["paths"].items()
        for method in item.keys() - {"parameters"}
    }
    assert validate_description == served


def test_every_error_response_is_a_problem_document() -> None:
    for item in openapi()["paths"].values():
        for method in item.keys() - {"parameters", "head"}:
            for status, response in item[method]["responses"].items():
                is_problem = "application/problem+json" in response.get("content", {})
                assert is_problem is (int(status) >= 400)


def test_documents_use_the_given_mount_path() -> None:
    paths = cast("Json", openapi_document(mount_path="/api/up")["paths"])
    channels = cast("Json", asyncapi_document(mount_path="/api/up")["channels"])

    assert all(path.startswith("/api/up") for path in paths)
    assert channels["uploads"]["address"] == "/api/up/progress"
    assert channels["upload"]["address"] == "/api/up/{upload_id}/progress"


# AsyncAPI: PyPI has no validator for 3.1, so the important rules are checked here


def references(value: object) -> Iterator[str]:
    """Yield every ``$ref`` in *value*."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document: Json, reference: str) -> object:
    """Return the value to which a local reference points."""
    target: Any = document
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return target


@pytest.mark.parametrize("document", [openapi(), asyncapi()], ids=["openapi", "asyncapi"])
def test_every_reference_resolves(document: Json) -> None:
    found = list(references(document))

    assert found
    assert all(resolve(document, reference) for reference in found)


def test_asyncapi_document_has_the_required_parts() -> None:
    document = asyncapi()

    assert document["asyncapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    assert document.keys() <= {
        "asyncapi",
        "id",
        "info",
        "servers",
        "defaultContentType",
        "channels",
        "operations",
        "components",
    }
    for channel in document["channels"].values():
        assert channel.keys() <= {"address", "title", "messages", "parameters", "bindings"}
        names = {part[1:-1] for part in (channel["address"] or "").split("/") if part[:1] == "{"}
        assert channel.get("parameters", {}).keys() == names


def test_operations_use_messages_of_their_own_channel() -> None:
    document = asyncapi()

    for operation in document["operations"].values():
        assert operation["action"] in {"send", "receive"}
        echo_path = operation["channel"]["$ref"] + "/messages/"
        assert operation["messages"]
        assert all(message["$ref"].startswith(echo_path) for message in operation["messages"])


def test_both_sockets_and_the_event_are_described() -> None:
    document = asyncapi()
    messages = document["components"]["messages"]

    assert {channel["address"] for channel in document["channels"].values()} == {
        "/uploads/progress",
        "/uploads/{upload_id}/progress",
        None,
    }
    assert messages.keys() == {
        "UploadProgressUpdated",
        "UploadProgressUpdatedKafka",
        "UploadProgressUpdatedRabbitMQ",
        *(kind.__name__ for kind in (*SERVER_MESSAGES, *CLIENT_MESSAGES)),
    }
    assert messages["UploadProgressUpdated"]["contentType"] == "application/cloudevents+json"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("RabbitMQ", rabbitmq.ATTRIBUTE_PREFIX), ("Kafka", kafka_publisher.ATTRIBUTE_PREFIX)],
)
def test_event_in_binary_mode_is_described_as_it_is_sent(name: str, prefix: str) -> None:
    progress = fold([record()], now=0.0)
    assert progress is not None
    event = event_of("ann", progress, "/tests")
    message = asyncapi()["components"]["messages"][f"UploadProgressUpdated{name}"]
    headers = {f"{prefix}{each}": value for each, value in attributes_of(event).items()}

    assert jsonschema_rs.validator_for(message["headers"]).is_valid(headers)
    assert message["headers"]["required"] == list(headers)
    assert message["payload"] == {"$ref": "#/components/schemas/UploadProgress"}
    assert message["contentType"] == event.datacontenttype


# Schemas


@pytest.mark.parametrize(
    "text",
    [
        *("a", "a.b_c~d-e", "x" * 128, "..", ".", "", "x" * 129, "a b", "é", "...", "progressive"),
        *sorted(RESERVED_IDS),
    ],
)
def test_schema_of_upload_ids_agrees_with_is_upload_id(text: str) -> None:
    validator = jsonschema_rs.validator_for(dict(schemas.UPLOAD_ID_SCHEMA))

    assert validator.is_valid(text) is is_upload_id(text)


@pytest.mark.anyio
async def test_client_id_parameter_accepts_the_id_of_an_open_socket() -> None:
    validator = jsonschema_rs.validator_for(cast("Json", parameters.CLIENT_ID["schema"]))
    async with open_socket(build_app()) as connection:
        client_id = (await connection.receive_json())["client_id"]

    assert validator.is_valid(client_id)
    assert not validator.is_valid(client_id.partition(".")[2])


def test_progress_message_is_sent_as_described() -> None:
    progress = fold([record()], now=1.0)
    assert progress is not None

    assert Update("alice", progress).websocket_text.encode() == encode_json(
        ProgressMessage(progress)
    )


def test_each_field_of_a_snapshot_is_described_and_required() -> None:
    names = [attribute.name for attribute in fields(UploadProgress)]
    schema = openapi()["components"]["schemas"]["UploadProgress"]

    assert list(FIELD_DESCRIPTIONS) == names == list(schema["properties"])
    # Only operators see the owner.
    assert [*schema["required"], "owner"] == names
    assert all(field["description"] for field in schema["properties"].values())


def test_type_without_a_schema_raises_an_error() -> None:
    class Strange:
        pass

    with pytest.raises(TypeError, match="Strange"):
        schemas.schemas_of([Strange])


# Generated files


@pytest.mark.parametrize("path", generated())
def test_generated_files_are_current(path: str) -> None:
    """If this fails, run ``python -m docs.generate``."""
    assert (DOCS / path).read_text(encoding="utf-8") == generated()[path]


def test_json_documents_can_be_parsed() -> None:
    for name in ("openapi", "asyncapi"):
        assert json.loads((DOCS / f"reference/{name}.json").read_text(encoding="utf-8"))


def test_diagram_contains_every_state_and_transition() -> None:
    picture, transitions = diagram.states_svg(), diagram.transitions()

    assert all(f">{state}</text>" in picture for state in UploadState)
    assert picture.count('class="line"') == len(transitions)
    assert {
        (state, signal) for (state, _), signals in transitions.items() for signal in signals
    } == set(TRANSITIONS)


def test_path_without_a_transition_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (UploadState.COMPLETED, UploadState.PENDING)
    monkeypatch.setitem(diagram.PATHS, pair, ("M0,0 L1,1", 0, 0))

    with pytest.raises(LookupError, match="completed"):
        diagram.states_svg()
