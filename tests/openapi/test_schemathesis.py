"""A running server conforms to its OpenAPI and AsyncAPI documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from websockets.sync.client import connect

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from upload_progress._model.api_types import SERVER_MESSAGES, Heartbeat
from upload_progress._model.codec import encode_json
from upload_progress.openapi import asyncapi_document, openapi_document

ALICE = {"Authorization": "Basic " + base64.b64encode(b"alice:alice").decode()}
KNOWN = "known-to-the-server"

schema = schemathesis.openapi.from_dict(openapi_document())
known_upload = schema.include(path_regex=r"/\{upload_id\}").exclude(method="DELETE")
# A few fixed examples: the test finds errors of the document, not rare bugs.
few_examples = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run an example application with one completed upload."""
    with run_python_server("examples/fastapi_app.py", "--port", "0", cwd=ROOT) as url:
        headers = {**ALICE, "Upload-Id": KNOWN}
        httpx2.put(f"{url}/files/a", content=b"a", headers=headers).raise_for_status()
        yield url


def checks_to_skip(case: Case[Any]) -> list[Any]:
    """Return the check that valid data is accepted, where no schema can define validity.

    Cursors are opaque, the size of metadata as JSON is limited, Unicode defines which characters
    of a group are printable, and 1.0 is an integer to JSON Schema.
    """
    body = case.body if isinstance(case.body, dict) else {}
    is_undecidable = (
        "cursor" in (case.query or {})
        or bool(body.get("group") or body.get("metadata"))
        or isinstance(body.get("total_bytes"), float)
    )
    return [positive_data_acceptance] if is_undecidable else []


@schema.parametrize()
@few_examples
def test_every_call_responds_as_described(case: Case[Any], server: str) -> None:
    case.call_and_validate(base_url=server, headers=ALICE, excluded_checks=checks_to_skip(case))


@known_upload.parametrize()
@few_examples
def test_calls_for_an_existing_upload_respond_as_described(case: Case[Any], server: str) -> None:
    case.path_parameters["upload_id"] = KNOWN
    # With ``wait``, the response would wait for a change that never comes. Without the header, an
    # invalid case may have become valid, so rejection is left to the other test.
    case.headers.pop("If-None-Match", None)

    answer = case.call_and_validate(
        base_url=server, headers=ALICE, excluded_checks=[negative_data_rejection]
    )

    # A POST names a socket that does not exist.
    assert answer.status_code != 404 or case.method == "POST"


# WebSockets


def validator(message: str) -> jsonschema_rs.Validator:
    """Return a validator for the payload of a message of the AsyncAPI document."""
    components = {"schemas": asyncapi_document()["components"]["schemas"]}  # type: ignore[index]  # JSON
    reference = {"$ref": f"#/components/schemas/{message}", "components": components}
    return jsonschema_rs.validator_for(reference, validate_formats=True)


VALIDATORS = {str(kind.__struct_config__.tag): validator(kind.__name__) for kind in SERVER_MESSAGES}
TARGETS: list[dict[str, object]] = [{"upload_id": KNOWN}, {"group": "g"}, {"all": True}]


def converse(server: str, path: str, *commands: dict[str, object]) -> set[str]:
    """Send *commands*; return the types of the messages up to the close or an error."""
    kinds = set()
    url = f"ws{server.removeprefix('http')}{path}"
    with connect(url, additional_headers=ALICE) as socket:
        for command in commands:
            socket.send(json.dumps(command))
        for text in socket:
            message = json.loads(text)
            VALIDATORS[message["type"]].validate(message)
            kinds.add(message["type"])
            if message["type"] == "error":
                break
    return kinds


def test_socket_for_many_uploads_sends_described_messages(server: str) -> None:
    commands = [{"type": kind, **to} for kind in ("subscribe", "unsubscribe") for to in TARGETS]

    assert converse(server, "/uploads/progress", *commands, {"type": "nonsense"}) >= {
        "welcome",
        "subscribed",
        "unsubscribed",
        "error",
    }


def test_socket_for_one_upload_sends_described_messages(server: str) -> None:
    kinds = converse(server, f"/uploads/{KNOWN}/progress")

    assert kinds == {"welcome", "subscribed", "progress"}


def test_heartbeat_is_as_described() -> None:
    validator("Heartbeat").validate(json.loads(encode_json(Heartbeat())))
