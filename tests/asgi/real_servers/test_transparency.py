"""Server and application see the same with and without the middleware, on real servers.

For each protocol and each way in which an application behaves, both sides of the middleware are
compared with those of the bare application: scope, messages, their order, and the end of the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from typing import Any

import httpx2
import pytest

from tests._support.asgi_servers import run_app, run_daphne, run_granian
from tests.servers.probe_app import BEHAVIOURS, ProbeApp

HAS_ZTTP = find_spec("uvicorn.protocols.http.auto_zttp_impl") is not None
"""Older versions of uvicorn have neither this parser nor HTTP/2."""

# Hypercorn is missing with HTTP/2: it closes the connection if a body is not read.
SERVERS = [
    "uvicorn-httptools",
    "uvicorn-h11",
    *(["uvicorn-zttp", "uvicorn-zttp-http2"] if HAS_ZTTP else []),
    "hypercorn-h11",
    "hypercorn-trio",
    "granian",
    "daphne",
]
# Daphne looks for exceptions once per second, and never answers for an application that does not.
SLOW_ON_DAPHNE = {"fail", "fail-late", "say-nothing"}
TIMEOUT_SECONDS = 20
ADDED_HEADERS = {"upload-id", "link"}
LARGE = bytes(range(256)) * 300
PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
FORM = PART + LARGE + b"\r\n--x--\r\n"
TUS = {"Tus-Resumable": "1.0.0"}
PROTOCOLS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "large": ("PUT", "/a.bin?x=%C3%BC", {}, LARGE),
    "plain": ("PUT", "/a.bin", {"Upload-Id": "plain"}, b"abc"),
    "small": ("PUT", "/a.bin", {}, b"abc"),
    "form": ("POST", "/form", {"Content-Type": "multipart/form-data; boundary=x"}, FORM),
    "tus creation": ("POST", "/files", {**TUS, "Upload-Length": "9"}, b""),
    "tus": ("PATCH", "/files/1", {**TUS, "Upload-Offset": "0"}, b"abc"),
    "IETF": (
        "POST",
        "/files",
        {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"},
        b"abc",
    ),
    "OCI creation": ("POST", "/v2/a/blobs/uploads/", {}, b""),
    "OCI": ("PATCH", "/v2/a/blobs/uploads/1", {"Content-Range": "0-2"}, b"abc"),
    "S3": ("PUT", "/bucket/key?partNumber=1&uploadId=u", {}, b"abc"),
    "Content-Range": ("PUT", "/a.bin", {"Content-Range": "bytes 0-2/9"}, b"abc"),
}
# Applications behave in each way with some protocols, and in two ways with the others.
CASES = [
    (protocol, behaviour)
    for protocol in PROTOCOLS
    for behaviour in BEHAVIOURS
    if protocol in {"large", "small", "tus"} or behaviour in {"accept", "fail"}
]
numbers = count()


@pytest.fixture(scope="module", params=SERVERS)
def client(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """Serve the application with its probes."""
    name, _, http = request.param.removesuffix("-http2").partition("-")
    is_http2 = request.param.endswith("-http2")
    if name == "granian":
        server = run_granian("tests.servers.probe_app:app")
    elif name == "daphne":
        server = run_daphne("tests.servers.probe_app:app")
    elif http == "trio":
        server = run_app(ProbeApp(), "hypercorn-trio")
    else:
        server = run_app(ProbeApp(), name, http, **({"http2": True} if is_http2 else {}))
    with (
        server as url,
        httpx2.Client(
            base_url=url, http1=not is_http2, http2=is_http2, timeout=TIMEOUT_SECONDS
        ) as client,
    ):
        yield client


def probe(
    client: httpx2.Client,
    side: str,
    behaviour: str,
    request: tuple[str, str, dict[str, str], bytes],
) -> tuple[object, dict[str, Any]]:
    """Send a request; return what the client, the server and the application saw."""
    method, target, headers, body = request
    name = f"{side}-{next(numbers)}"
    # A body that is not read can cost the client its response.
    content = b"" if behaviour == "refuse" else body
    own = {"X-Side": side, "X-Record": name, "X-Behaviour": behaviour}
    try:
        response = client.request(method, target, headers={**headers, **own}, content=content)
    except httpx2.TransportError:
        seen: object = "no response"
    else:
        kept = [pair for pair in response.headers.multi_items() if pair[0] not in ADDED_HEADERS]
        kept = [pair for pair in kept if pair[0] not in {"date", "connection"}]
        seen = (response.status_code, response.http_version, sorted(kept), response.content)
    return seen, client.get(f"/record/{name}").json()


def runs_daphne(client: httpx2.Client) -> bool:
    """Return whether the server is daphne."""
    return client.get("/record/none").headers["server"] == "daphne"


@pytest.mark.parametrize(("protocol", "behaviour"), CASES)
def test_both_sides_see_the_same(client: httpx2.Client, protocol: str, behaviour: str) -> None:
    if behaviour in SLOW_ON_DAPHNE and runs_daphne(client):
        return
    bare, tracked = (
        probe(client, side, behaviour, PROTOCOLS[protocol]) for side in ("bare", "tracked")
    )
    for event in tracked[1]["server"]:
        if event[0] == "http.response.start":
            event[2] = [pair for pair in event[2] if pair[0] not in ADDED_HEADERS]

    assert tracked[1]["application"] == bare[1]["application"]
    assert tracked[1]["server"] == bare[1]["server"]
    assert bare[1]["server"][-1] == ["scope is unchanged", True]
    assert tracked[0] == bare[0]
