"""Real servers: uploads arrive unchanged, and responses are the same without the middleware."""

from __future__ import annotations

import hashlib
import json
import random
import select
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from attrs import define, frozen

from tests._support.asgi_servers import run_app, run_granian, run_server
from tests._support.scripted_server import ALICE
from tests.conftest import RequireProgram
from tests.servers.upload_app import UploadApp
from upload_progress import UploadState
from upload_progress._model.models import is_upload_id

SERVERS = ["uvicorn-httptools", "uvicorn-h11", "hypercorn", "hypercorn-trio", "granian"]
ADDED_HEADERS = {"upload-id", "link"}
SIDES = ("with", "without")
CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311  # the same bytes in every run
TIMEOUT_SECONDS = 15.0
IDLE_SECONDS = 0.4


@pytest.fixture(scope="module", params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the application on each server; return its URL."""
    name, _, http = request.param.partition("-")
    if name == "granian":
        with run_granian("tests.servers.upload_app:app") as address:
            yield address
    elif http == "trio":
        with run_app(UploadApp(), request.param) as address:
            yield address
    else:
        with run_app(UploadApp(), name, http) as address:
            yield address


# The client uses sockets, as an HTTP library would reject or correct invalid requests


@frozen
class Response:
    """A response, without the date and the headers that the middleware adds.

    Attributes:
        upload_id: Value of the added header ``Upload-Id``.
        interim: Status codes of the informational responses before it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes
    interim: tuple[int, ...]
    upload_id: str | None

    @property
    def comparable(self) -> tuple[object, ...]:
        """What must be the same with and without the middleware."""
        return (self.status, self.headers, self.content, self.interim)


@define
class HttpConnection:
    """A client connection, with the received bytes that are not read yet."""

    socket: socket.socket
    buffer: bytes = b""

    def read_response(self) -> Response:
        """Read one response, with the informational ones before it."""
        interim: list[int] = []
        while True:
            status, headers = self.read_head()
            if status >= 200:
                break
            interim.append(status)
        named = dict(headers)
        content = self._read_exactly(int(named["content-length"]))
        kept = tuple(pair for pair in headers if pair[0] not in ADDED_HEADERS | {"date"})
        return Response(status, kept, content, tuple(interim), named.get("upload-id"))

    def read_head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read a status line and the headers."""
        first, *lines = self._read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        return int(first.split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs]

    def _read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self._read_more()
        found, _, self.buffer = self.buffer.partition(end)
        return found

    def _read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._read_more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def _read_more(self) -> None:
        received = receive(self.socket)
        assert received, "the server has closed the connection"
        self.buffer += received

    def is_closed(self) -> bool:
        """Return whether the server closes the connection without sending more."""
        return not self.buffer and not receive(self.socket)


def receive(connection: socket.socket) -> bytes:
    """Return the next bytes; none if the connection is closed or reset."""
    received = b""
    with suppress(ConnectionResetError):
        received = connection.recv(65536)
    return received


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS)


def request_head(path: str, *headers: str, method: str = "PUT", version: str = "HTTP/1.1") -> bytes:
    lines = [f"{method} {path} {version}", "Host: example.org", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def random_chunks(content: bytes, seed: int) -> Iterator[bytes]:
    """Split *content* into chunks of random sizes."""
    generator, start = random.Random(seed), 0  # noqa: S311  # not used for secrets
    while start < len(content):
        size = generator.choice([1, 100, 5_000, 65_536, 200_000])
        yield content[start : start + size]
        start += size


def chunked(content: bytes, seed: int) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in random_chunks(content, seed)]
    return b"".join([*parts, b"0\r\n\r\n"])


def upload(url: str, side: str, framing: str, content: bytes, *headers: str) -> Response:
    """Upload *content* with a framing, in writes of random sizes; return the response."""
    path = f"/{side}/file"
    framed = chunked(content, len(content)) if framing == "chunked" else content
    length = f"Content-Length: {len(content)}"
    own = {
        "length": [length],
        "chunked": ["Transfer-Encoding: chunked"],
        "expect": [length, "Expect: 100-continue"],
    }[framing]
    with closing(connect(url)) as connection:
        client = HttpConnection(connection)
        connection.sendall(request_head(path, *own, *headers))
        if framing == "expect" and content:
            assert client.read_head()[0] == 100
        for chunk in random_chunks(framed, len(content) + 1):
            connection.sendall(chunk)
        return client.read_response()


def get_json(url: str, path: str) -> Any:  # noqa: ANN401  # any JSON
    with urllib.request.urlopen(f"{url}/{path}", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
        return json.load(response)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < TIMEOUT_SECONDS, "the condition did not hold in time"
        time.sleep(0.005)


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 65_537, 300_001, len(CONTENT)])
def test_upload_is_the_same_without_middleware(url: str, framing: str, size: int) -> None:
    """H01, H17: Content-Length, chunked, ``Expect: 100-continue``, and an empty body."""
    content = CONTENT[:size]

    tracked, plain = (upload(url, side, framing, content) for side in SIDES)

    assert tracked.comparable == plain.comparable
    assert json.loads(tracked.content)["sha256"] == hashlib.sha256(content).hexdigest()
    assert (tracked.upload_id is not None) is (size > 64 * 1024)
    assert plain.upload_id is None
    for upload_id in filter(None, [tracked.upload_id]):
        state = get_json(url, f"state/{upload_id}")
        assert (state["state"], state["bytes_transferred"]) == ("completed", size)
        assert state["total_bytes"] == (None if framing == "chunked" else size)


CURL_OPTIONS = {
    "length": ["-T", "{file}"],
    "stdin": ["-T", "-"],
    "expect": ["-T", "{file}", "-H", "Expect: 100-continue"],
    "1.0": ["--http1.0", "-T", "{file}"],
    "form": ["-F", "f=@{file}"],
    "h2c": ["--http2-prior-knowledge", "-T", "{file}"],
}


@pytest.mark.parametrize("mode", CURL_OPTIONS)
def test_curl_upload_is_the_same_without_middleware(
    url: str, mode: str, tmp_path: Path, require_program: RequireProgram
) -> None:
    """H01, H17: 64 MiB, and 8 MiB in several ways; with HTTP/2 if the server supports it."""
    curl = require_program("curl", install="apt install curl")
    file = tmp_path / "big.bin"
    file.write_bytes((CONTENT * 23)[: (64 if mode == "length" else 8) * 1024 * 1024])
    options = [option.format(file=file) for option in CURL_OPTIONS[mode]]
    own = [curl, "-s", "-S", "--max-time", "120", "-D", "-", "-H", f"Upload-Id: by-curl-{mode}"]
    responses = []

    for side in SIDES:
        with file.open("rb") as stdin:
            run = [*own, *options, f"{url}/{side}/file"]
            result = subprocess.run(run, stdin=stdin, capture_output=True, check=False)
        responses.append((result.returncode == 0, comparable_lines(result.stdout, mode)))

    assert responses[0] == responses[1]
    state = get_json(url, f"state/by-curl-{mode}")
    if responses[0][0]:
        assert state["state"] == "completed"
        assert state["bytes_transferred"] >= file.stat().st_size
        assert mode == "form" or sha256_of(file) in responses[0][1][-1]
    else:
        assert (mode, state) == ("h2c", None)
        assert "server: uvicorn" not in responses[0][1]


def comparable_lines(output: bytes, mode: str) -> list[str]:
    """Return the lines of a response that must be the same with and without the middleware."""
    lines = output.decode().splitlines()
    kept = [line for line in lines if line.split(":")[0].lower() not in {"date", *ADDED_HEADERS}]
    # The boundary of a form is random, so its hash differs.
    return kept[:-1] if mode == "form" else kept


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_http_1_0_upload(url: str) -> None:
    """H17: a client without chunked encoding and persistent connections."""
    responses = []
    for side in SIDES:
        with closing(connect(url)) as connection:
            head = request_head(f"/{side}/file", "Content-Length: 70000", version="HTTP/1.0")
            connection.sendall(head + CONTENT[:70_000])
            client = HttpConnection(connection)
            responses.append(client.read_response())
            assert client.is_closed()

    assert responses[0].comparable == responses[1].comparable
    assert json.loads(responses[0].content)["version"] in {"1.0", "1"}  # granian's


SMUGGLED = "GET /state/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
AMBIGUOUS_REQUESTS = {
    "CL.TE": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "CL.TE whole": f"Content-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "TE.CL": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n",
    "TE.TE": "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "TE odd": "Transfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "TE identity": "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "CL twice": "Content-Length: 3\r\nContent-Length: 6\r\n\r\nabcdef",
    "CL list": "Content-Length: 3, 3\r\n\r\nabc",
    "CL sign": "Content-Length: +3\r\n\r\nabc",
    "CL minus": "Content-Length: -1\r\n\r\nabc",
    "CL huge": "Content-Length: 99999999999999999999999999\r\n\r\nabc",
    "bare LF": "Content-Length: 3\n\nabc",
    "bare LF chunk": "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "bare CR": "X-One: a\rX-Two: b\r\nContent-Length: 3\r\n\r\nabc",
    "chunk extension": "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "chunk end": "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "chunk minus": "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk huge": "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "trailers": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nUpload-Id: other\r\n\r\n",
    "fold": "Upload-Id: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "NUL": "Upload-Id: a\x00b\r\nContent-Length: 3\r\n\r\nabc",
    "id twice": "Upload-Id: a\r\nUpload-Id: b\r\nContent-Length: 3\r\n\r\nabc",
    "two": f"Content-Length: 3\r\n\r\nabc{SMUGGLED}",
}


def exchange(url: str, requests: Sequence[bytes]) -> list[list[str]]:
    """Send each request on a connection of its own; return the lines that each receives.

    They are complete when all connections are silent and have received the same. If they are not
    the same, that may change: they are waited for as long as for any response.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(url))) for _ in requests]
        outputs, open_ones = dict.fromkeys(connections, b""), set(connections)
        for connection, data in zip(connections, requests, strict=True):
            connection.sendall(data)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        is_complete = False
        while not is_complete:
            readable, _, _ = select.select(list(open_ones), [], [], IDLE_SECONDS * bool(open_ones))
            for connection in readable:
                received = receive(connection)
                outputs[connection] += received
                open_ones -= set() if received else {connection}
            lines = [lines_of(outputs[each], each in open_ones) for each in connections]
            is_same = all(each == lines[0] for each in lines)
            is_complete = not readable and (is_same or time.monotonic() > deadline)
    return lines


def lines_of(output: bytes, is_open: bool) -> list[str]:
    """Return the lines of *output* that must be the same, and whether the connection is open."""
    lines = [*output.decode("latin-1").split("\r\n"), "(silent)" if is_open else "(closed)"]
    return [line for line in lines if line.split(":")[0].lower() not in {"date", *ADDED_HEADERS}]


def test_ambiguous_requests_get_the_same_response_without_middleware(url: str) -> None:
    """H23, A12: the server interprets framing; status and bytes do not depend on the middleware."""

    def both(tail: str) -> list[list[str]]:
        heads = [f"POST /{side}/file HTTP/1.1\r\nHost: x\r\n" for side in SIDES]
        return exchange(url, [(head + tail).encode("latin-1") for head in heads])

    with ThreadPoolExecutor(8) as pool:
        responses = dict(
            zip(AMBIGUOUS_REQUESTS, pool.map(both, AMBIGUOUS_REQUESTS.values()), strict=True)
        )

    assert {name: both[0] for name, both in responses.items()} == {
        name: both[1] for name, both in responses.items()
    }
    assert responses["two"][0][0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize("pipelined", [True, False])
def test_uploads_on_one_connection_are_separate(url: str, pipelined: bool) -> None:
    """H22: each has its own id, size and hash, sent one by one or pipelined."""
    names = [f"on-one-{pipelined}-{number}" for number in range(6)]
    requests = []
    for number, name in enumerate(names):
        content = CONTENT[: 10_000 * (number + 1)]
        own = [f"Upload-Id: {name}"] if number % 3 else []
        framing = (
            ["Transfer-Encoding: chunked"] if number % 2 else [f"Content-Length: {len(content)}"]
        )
        framed = chunked(content, number) if number % 2 else content
        requests.append((request_head("/with/file", *own, *framing) + framed, content, own))

    responses = []
    with closing(connect(url)) as connection:
        client = HttpConnection(connection)
        if pipelined:
            with ThreadPoolExecutor(1) as sender:
                sending = sender.submit(connection.sendall, b"".join(r[0] for r in requests))
                responses = [client.read_response() for _ in requests]
                sending.result()
        else:
            for data, _, _ in requests:
                connection.sendall(data)
                responses.append(client.read_response())

    for number, (response, (_, content, own)) in enumerate(zip(responses, requests, strict=True)):
        assert json.loads(response.content)["sha256"] == hashlib.sha256(content).hexdigest()
        assert response.upload_id == (names[number] if own else None)
        state = get_json(url, f"state/{names[number]}")
        assert state is None or state["bytes_transferred"] == len(content)
        assert (state is not None) is bool(own)


def reset_connection(connection: socket.socket) -> None:
    """Close *connection* with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_reset_fails_the_upload(url: str) -> None:
    """H07: the application receives a disconnect; bytes received before it count.

    Nothing else ends this upload: without an end of the connection it would wait for bytes.
    """
    before = get_json(url, "statistics")["disconnects"]
    connection = connect(url)
    head = request_head("/with/file", "Upload-Id: reset", "Content-Length: 200000")
    connection.sendall(head + CONTENT[:100_000])
    wait_until(lambda: (get_json(url, "state/reset") or {}).get("bytes_transferred") == 100_000)

    reset_connection(connection)
    wait_until(lambda: get_json(url, "state/reset")["state"] == "failed")

    state = get_json(url, "state/reset")
    assert (state["error"]["code"], state["percent"]) == ("client_disconnected", 50.0)
    wait_until(lambda: get_json(url, "statistics")["disconnects"] == before + 1)


# Granian sends "connection: close" depending on a race between its threads, also without the
# middleware: one sends the head, another one discards the unread body.
NONDETERMINISTIC_HEADERS = {"uvicorn": (), "hypercorn-h11": (), "granian": ("connection",)}


@pytest.mark.parametrize("kind", ["refuse", "ignore"])
@pytest.mark.parametrize("expect", [True, False])
def test_response_without_reading_is_the_same(url: str, kind: str, expect: bool) -> None:
    """H05: no ``100 Continue`` if the application does not read; its 413 arrives."""
    responses = []
    for side in SIDES:
        with closing(connect(url)) as connection:
            own = ["Upload-Id: unread", "Content-Length: 100000"]
            own += ["Expect: 100-continue"] if expect else []
            connection.sendall(request_head(f"/{side}/{kind}", *own))
            responses.append(HttpConnection(connection).read_response())

    server = dict(responses[0].headers)["server"]
    kept = [
        [pair for pair in each.headers if pair[0] not in NONDETERMINISTIC_HEADERS[server]]
        for each in responses
    ]
    assert kept[0] == kept[1]
    assert responses[0].content == responses[1].content
    # Hypercorn sends 100 Continue itself.
    interim = (100,) if expect and server.startswith("hypercorn") else ()
    assert responses[0].interim == responses[1].interim == interim
    assert responses[0].status == (413 if kind == "refuse" else 200)
    state = get_json(url, "state/unread")
    assert state["state"] == ("failed" if kind == "refuse" else "completed")
    assert state["bytes_transferred"] == 0


@pytest.mark.parametrize("kind", ["file", "stay"], ids=["stalled", "processing"])
def test_cancelled_upload_gets_409_and_is_closed(url: str, kind: str) -> None:
    """409 and the end of the connection, a second after the cancellation.

    Not later: `test_application_is_cancelled_after_a_second` shows that, where no time passes.
    """
    name = f"cancelled-{kind}"
    size = 100_000 if kind == "stay" else 200_000
    expected = ("processing" if kind == "stay" else "receiving", 100_000)

    def has_arrived() -> bool:
        state = get_json(url, f"state/{name}") or {"state": None, "bytes_transferred": 0}
        return (state["state"], state["bytes_transferred"]) == expected

    with closing(connect(url)) as connection:
        own = [f"Upload-Id: {name}", f"Content-Length: {size}"]
        connection.sendall(request_head(f"/with/{kind}", *own) + CONTENT[:100_000])
        wait_until(has_arrived)
        start = time.monotonic()
        assert get_json(url, f"cancel/{name}")["state"] == "cancelled"
        client = HttpConnection(connection)
        response = client.read_response()
        elapsed = time.monotonic() - start

        assert (response.status, response.upload_id) == (409, name)
        assert dict(response.headers)["connection"] == "close"
        assert elapsed > 0.9
        # Granian may keep a connection open whose ``receive()`` was cancelled.
        assert dict(response.headers)["server"] == "granian" or client.is_closed()


def test_cancelled_upload_can_be_sent_to_its_end(url: str) -> None:
    """A client that reads no response before it has sent everything gets the 409, not a reset."""
    content, name = CONTENT * 7, "sent-to-its-end"
    with closing(connect(url)) as connection:
        own = [f"Upload-Id: {name}", f"Content-Length: {len(content)}"]
        connection.sendall(request_head("/with/file", *own) + content[:100_000])
        wait_until(lambda: get_json(url, f"state/{name}"))
        assert get_json(url, f"cancel/{name}")["state"] == "cancelled"
        connection.sendall(content[100_000:])
        client = HttpConnection(connection)
        response = client.read_response()

        assert (response.status, response.upload_id) == (409, name)
        assert client.is_closed()


def test_curl_shows_the_response_to_a_cancelled_upload(
    url: str, tmp_path: Path, require_program: RequireProgram
) -> None:
    """With HTTP/2, too, if the server supports it."""
    curl = require_program("curl", install="apt install curl")
    file = tmp_path / "big.bin"
    file.write_bytes(CONTENT * 4)
    has_http2 = "uvicorn" not in server_name(url)
    for version in ("--http1.1", "--http2-prior-knowledge")[: 1 + has_http2]:
        name = f"cut{version}"
        command = [curl, "-s", "-S", "-w", "%{http_code}", "--limit-rate", "20M", version]
        command += ["-H", f"Upload-Id: {name}", "-T", str(file), f"{url}/with/file"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            wait_until(partial(get_json, url, f"state/{name}"))
            get_json(url, f"cancel/{name}")
            output = process.communicate(timeout=TIMEOUT_SECONDS)[0]

        assert process.returncode == 0
        assert output.endswith(b"}409")


def server_name(url: str) -> str:
    """Return the value of the header ``Server``."""
    with urllib.request.urlopen(f"{url}/statistics", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
        return str(response.headers["server"])


def test_concurrent_uploads_are_separate(url: str) -> None:
    """H01, H22: 32 connections, each with another body."""

    def send(number: int) -> tuple[Response, str]:
        content = CONTENT[number : number + 70_000 + 100 * number]
        framing = ["length", "chunked", "expect"][number % 3]
        return upload(url, "with", framing, content), hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(send, range(32)))

    assert all(json.loads(response.content)["sha256"] == digest for response, digest in responses)
    named = {response.upload_id for response, _ in responses}
    assert len(named) == 32
    assert all(name and is_upload_id(name) for name in named)
    wait_until(lambda: get_json(url, "statistics")["live_uploads"] == 0)


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_connection_limit_leaves_no_upload_open(http: str) -> None:
    """R06: uvicorn's own 503 never reaches the middleware, and no upload stays open."""
    app = UploadApp()

    with run_server(app, "uvicorn", http, limit_concurrency=5) as server, ExitStack() as stack:

        def send(number: int) -> socket.socket:
            """Send no body yet: unread bytes can cost the client its response."""
            name = f"Upload-Id: one-of-{number}"
            connection = stack.enter_context(closing(connect(server.url)))
            connection.sendall(request_head("/with/file", name, "Content-Length: 80000"))
            return connection

        def refused() -> list[socket.socket]:
            return select.select(connections, [], [], 0)[0]

        # Two are accepted first: of twelve at once, the server may refuse all.
        connections = [send(number) for number in range(2)]
        wait_until(lambda: app.tracker.statistics().live_uploads == 2)
        connections += [send(number) for number in range(2, 12)]
        wait_until(lambda: app.tracker.statistics().live_uploads + len(refused()) == 12)
        for connection in set(connections) - set(refused()):
            connection.sendall(CONTENT[:80_000])
        statuses = [HttpConnection(each).read_response().status for each in connections]
        wait_until(lambda: app.tracker.statistics().live_uploads == 0)

    assert set(statuses) == {200, 503}
    assert app.tracker.statistics().live_uploads == 0


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_server_shutdown_leaves_no_upload_open(http: str) -> None:
    """H10, P02: after the grace period the task is cancelled; the end is stored before the exit."""
    app = UploadApp()
    head = request_head("/with/file", "Upload-Id: stopped", "Content-Length: 200000")
    with (
        run_server(app, "uvicorn", http, timeout_graceful_shutdown=1) as server,
        closing(connect(server.url)) as connection,
    ):
        connection.sendall(head + CONTENT[:100_000])
        wait_until(lambda: app.tracker.statistics().live_uploads == 1)
        server.stop()

    progress = anyio.run(lambda: app.tracker.get("stopped", owner=ALICE))
    assert progress.state in {UploadState.CANCELLED, UploadState.FAILED}
    assert progress.finished_at is not None
