"""The running server does what the documents say, whatever it is sent."""

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
# The same few examples each time: this finds what is wrong with the document, not rare bugs.
few = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run an example, with one upload that has ended."""
    with run_python_server("examples/fastapi_app.py", "--port", "0", cwd=ROOT) as url:
        headers = {**ALICE, "Upload-Id": KNOWN}
        httpx2.put(f"{url}/files/a", content=b"a", headers=headers).raise_for_status()
        yield url


def checks_to_skip(case: Case[Any]) -> list[Any]:
    """Return the check of what must be accepted, where no schema can say what that is.

    Cursors are opaque, metadata has a size as JSON, which characters of a group are printable is
    for Unicode to say, and 1.0 is an integer to JSON Schema.
    """
    body = case.body if isinstance(case.body, dict) else {}
    is_undecidable = (
        "cursor" in (case.query or {})
        or bool(body.get("group") or body.get("metadata"))
        or isinstance(body.get("total_bytes"), float)
    )
    return [positive_data_acceptance] if is_undecidable else []


@schema.parametrize()
@few
def test_every_call_answers_as_described(case: Case[Any], server: str) -> None:
    case.call_and_validate(base_url=server, headers=ALICE, excluded_checks=checks_to_skip(case))


@known_upload.parametrize()
@few
def test_calls_for_an_upload_that_is_there_answer_as_described(
    case: Case[Any], server: str
) -> None:
    case.path_parameters["upload_id"] = KNOWN
    # With ``wait`` it means: answer when there is news. There will be none. And without it a case
    # that was malformed may be none any more; the other test has those.
    case.headers.pop("If-None-Match", None)

    answer = case.call_and_validate(
        base_url=server, headers=ALICE, excluded_checks=[negative_data_rejection]
    )

    # A POST is for a socket that is not there.
    assert answer.status_code != 404 or case.method == "POST"


# --- the sockets ----------------------------------------------------------------------------------


def validator(message: str) -> jsonschema_rs.Validator:
    """Return what judges the payload of a message of the AsyncAPI document."""
    components = {"schemas": asyncapi_document()["components"]["schemas"]}  # type: ignore[index]  # JSON
    reference = {"$ref": f"#/components/schemas/{message}", "components": components}
    return jsonschema_rs.validator_for(reference, validate_formats=True)


JUDGES = {str(kind.__struct_config__.tag): validator(kind.__name__) for kind in SERVER_MESSAGES}
TARGETS: list[dict[str, object]] = [{"upload_id": KNOWN}, {"group": "g"}, {"all": True}]


def talk(server: str, path: str, *commands: dict[str, object]) -> set[str]:
    """Say *commands*, listen until the server closes or complains; return the kinds of messages."""
    kinds = set()
    url = f"ws{server.removeprefix('http')}{path}"
    with connect(url, additional_headers=ALICE) as socket:
        for command in commands:
            socket.send(json.dumps(command))
        for text in socket:
            message = json.loads(text)
            JUDGES[message["type"]].validate(message)
            kinds.add(message["type"])
            if message["type"] == "error":
                break
    return kinds


def test_a_socket_for_many_uploads_says_what_is_described(server: str) -> None:
    commands = [{"type": kind, **to} for kind in ("subscribe", "unsubscribe") for to in TARGETS]

    assert talk(server, "/uploads/progress", *commands, {"type": "nonsense"}) >= {
        "welcome",
        "subscribed",
        "unsubscribed",
        "error",
    }


def test_a_socket_for_one_upload_says_what_is_described(server: str) -> None:
    kinds = talk(server, f"/uploads/{KNOWN}/progress")

    assert kinds == {"welcome", "subscribed", "progress"}


def test_heartbeats_are_as_described() -> None:
    validator("Heartbeat").validate(json.loads(encode_json(Heartbeat())))
