"""Requests that ask how many bytes the server has: they carry none, and their answer is used."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests._support.scripted_server import (
    Receive,
    Scope,
    ScriptedServer,
    Send,
    authenticate_alice,
    upload_scope,
)
from upload_progress import ProgressTracker
from upload_progress.asgi import UploadProgressMiddleware

pytestmark = pytest.mark.anyio

TUS = (b"tus-resumable", b"1.0.0")
INTEROP = (b"upload-draft-interop-version", b"8")


async def head(scope: Scope, tracker: ProgressTracker) -> tuple[Scope, ScriptedServer]:
    """Send a ``HEAD`` request; return the scope that the application sees, and the server."""
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    server = ScriptedServer([{"type": "http.request", "body": b"", "more_body": False}])
    middleware = UploadProgressMiddleware(app, tracker=tracker, authenticate=authenticate_alice)
    await middleware(scope, server.receive, server.send)
    return seen[0], server


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"example.org"), (b"upload-offset", b"3")],
        iter([TUS]),
        [("tus-resumable", "1.0.0")],
        [(b"tus-resumable",)],
        [([], b"")],
        None,
    ],
)
async def test_other_head_request_is_untouched(headers: Iterable[object] | None) -> None:
    scope = upload_scope(None, method="HEAD", path="/files/1", length=None)
    scope["headers"] = headers
    if headers is None:
        del scope["headers"]
    before = dict(scope)
    seen, server = await head(scope, ProgressTracker())

    assert seen is scope
    assert scope == before
    assert not isinstance(headers, list) or scope["headers"] is headers
    assert [message.get("headers") for message in server.sent] == [[], None]


@pytest.mark.parametrize("header", [TUS, INTEROP])
async def test_query_of_a_protocol_is_passed_on(header: tuple[bytes, bytes]) -> None:
    scope = upload_scope(None, method="HEAD", path="/files/1", length=None, headers=[header])
    before = dict(scope)
    seen, server = await head(scope, ProgressTracker())

    assert scope == before
    assert {key: seen[key] for key in before} == before
    assert server.status == 204


async def test_query_below_the_mount_point_is_untouched() -> None:
    scope = upload_scope(None, method="HEAD", path="/uploads/a", length=None, headers=[TUS])
    seen, _server = await head(scope, ProgressTracker())

    assert seen is scope
