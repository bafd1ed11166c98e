"""Real servers: uploads arrive byte for byte, and are answered as without the middleware."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from attrs import define, frozen

from tests._support.asgi_servers import run_app, run_granian, run_server
from tests._support.scripted_server import ALICE
from tests.conftest import RequireProgram
from tests.servers.upload_app import Served
from upload_progress import UploadState
from upload_progress._model.models import is_upload_id

UNDER_TEST = ["uvicorn-httptools", "uvicorn-h11", "hypercorn", "hypercorn-trio", "granian"]
OURS = {"upload-id", "link"}
SIDES = ("with", "without")
CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311  # the same bytes in every run
TIMEOUT_SECONDS = 15.0
IDLE_SECONDS = 0.4


@pytest.fixture(scope="module", params=UNDER_TEST)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve the application with each server; give its address."""
    name, _, http = request.param.partition("-")
    if name == "granian":
        with run_granian("tests.servers.upload_app:app") as address:
            yield address
    elif http == "trio":
        with run_app(Served(), request.param) as address:
            yield address
    else:
        with run_app(Served(), name, http) as address:
            yield address


# The client: sockets, so that nothing corrects what is sent


@frozen
class Answer:
    """A response as it came; what the middleware adds is apart."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes
    interim: tuple[int, ...]
    upload_id: str | None

    @property
    def comparable(self) -> tuple[object, ...]:
        """All but what may differ: the date, and the two headers."""
        return (self.status, self.headers, self.content, self.interim)


@define
class BrokerConnection:
    """A connection, with what came on it and is not read yet."""

    socket: socket.socket
    rest: bytes = b""

    def answer(self) -> Answer:
        """Read one response, and the interim ones before it."""
        interim: list[int] = []
        while True:
            status, headers = self.head()
            if status >= 200:
                break
            interim.append(status)
        named = dict(headers)
        content = self._exactly(int(named["content-length"]))
        kept = tuple(pair for pair in headers if pair[0] not in OURS | {"date"})
        return Answer(status, kept, content, tuple(interim), named.get("upload-id"))

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Read one status line and its headers."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        return int(first.split()[1]), [(name.lower(), value.strip()) for name, _, value in pairs]

    def _until(self, end: bytes) -> bytes:
        while end not in self.rest:
            self._more()
        found, _, self.rest = self.rest.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self.rest) < size:
            self._more()
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def _more(self) -> None:
        received = receive(self.socket)
        assert received, "the server has closed the connection"
        self.rest += received

    def is_closed(self) -> bool:
        """Tell whether the server closes the connection, with nothing more to say."""
        return not self.rest and not receive(self.socket)


def receive(connection: socket.socket) -> bytes:
    """Return what comes next; nothing when the connection is closed, in whatever way."""
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


def pieces(content: bytes, seed: int) -> Iterator[bytes]:
    """Cut *content* at random."""
    cuts, start = random.Random(seed), 0  # noqa: S311  # no secret is made of it
    while start < len(content):
        size = cuts.choice([1, 100, 5_000, 65_536, 200_000])
        yield content[start : start + size]
        start += size


def chunked(content: bytes, seed: int) -> bytes:
    parts = [
        b"%x\r\n%b\r\n" % (len(transfer_head), transfer_head)
        for transfer_head in pieces(content, seed)
    ]
    return b"".join([*parts, b"0\r\n\r\n"])


def upload(url: str, side: str, framing: str, content: bytes, *headers: str) -> Answer:
    """Send *content* in one of three framings, in random writes; return what came back."""
    path = f"/{side}/file"
    framed = chunked(content, len(content)) if framing == "chunked" else content
    length = f"Content-Length: {len(content)}"
    own = {
        "length": [length],
        "chunked": ["Transfer-Encoding: chunked"],
        "expect": [length, "Expect: 100-continue"],
    }[framing]
    with closing(connect(url)) as connection:
        wire = BrokerConnection(connection)
        connection.sendall(request_head(path, *own, *headers))
        if framing == "expect" and content:
            assert wire.head()[0] == 100
        for transfer_head in pieces(framed, len(content) + 1):
            connection.sendall(transfer_head)
        return wire.answer()


def told(url: str, what: str) -> Any:  # noqa: ANN401  # whatever JSON it is
    with urllib.request.urlopen(f"{url}/{what}", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
        return json.load(response)


def eventually(ask: Callable[[], object], seconds: float = 5.0) -> float:
    """Ask until it is true; return how long that took, in seconds."""
    begun = time.monotonic()
    while not ask():
        assert time.monotonic() - begun < seconds, "it did not come to pass"
        time.sleep(0.005)
    return time.monotonic() - begun


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 65_537, 300_001, len(CONTENT)])
def test_uploads_arrive_as_without_the_middleware(url: str, framing: str, size: int) -> None:
    """H01, H17: Content-Length, chunked, ``Expect: 100-continue``, and nothing at all."""
    content = CONTENT[:size]

    tracked, plain = (upload(url, side, framing, content) for side in SIDES)

    assert tracked.comparable == plain.comparable
    assert json.loads(tracked.content)["sha256"] == hashlib.sha256(content).hexdigest()
    assert (tracked.upload_id is not None) is (size > 64 * 1024)
    assert plain.upload_id is None
    for upload_id in filter(None, [tracked.upload_id]):
        state = told(url, f"state/{upload_id}")
        assert (state["state"], state["bytes_transferred"]) == ("completed", size)
        assert state["total_bytes"] == (None if framing == "chunked" else size)


CURLS = {
    "length": ["-T", "{file}"],
    "stdin": ["-T", "-"],
    "expect": ["-T", "{file}", "-H", "Expect: 100-continue"],
    "1.0": ["--http1.0", "-T", "{file}"],
    "form": ["-F", "f=@{file}"],
    "h2c": ["--http2-prior-knowledge", "-T", "{file}"],
}


@pytest.mark.parametrize("way", CURLS)
def test_curl_uploads_as_without_the_middleware(
    url: str, way: str, tmp_path: Path, require_program: RequireProgram
) -> None:
    """H01, H17: 64 MiB, as people send it; with HTTP/2, where the server has it."""
    curl = require_program("curl", install="apt install curl")
    file = tmp_path / "big.bin"
    file.write_bytes((CONTENT * 23)[: 64 * 1024 * 1024])
    options = [option.format(file=file) for option in CURLS[way]]
    own = [curl, "-s", "-S", "--max-time", "60", "-D", "-", "-H", f"Upload-Id: by-curl-{way}"]
    answers = []

    for side in SIDES:
        with file.open("rb") as stdin:
            run = [*own, *options, f"{url}/{side}/file"]
            said = subprocess.run(run, stdin=stdin, capture_output=True, check=False)
        answers.append((said.returncode == 0, comparable(said.stdout, way)))

    assert answers[0] == answers[1]
    state = told(url, f"state/by-curl-{way}")
    if answers[0][0]:
        assert state["state"] == "completed"
        assert state["bytes_transferred"] >= file.stat().st_size
        assert way == "form" or hashed(file) in answers[0][1][-1]
    else:
        assert (way, state) == ("h2c", None)
        assert "server: uvicorn" not in answers[0][1]


def comparable(said: bytes, way: str) -> list[str]:
    """Return the lines of a response that must be the same."""
    lines = said.decode().splitlines()
    kept = [line for line in lines if line.split(":")[0].lower() not in {"date", *OURS}]
    # The boundary of a form is random, and so is its hash.
    return kept[:-1] if way == "form" else kept


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_http_1_0_by_hand(url: str) -> None:
    """H17: a client that knows nothing of chunks or of keeping a connection."""
    answers = []
    for side in SIDES:
        with closing(connect(url)) as connection:
            head = request_head(f"/{side}/file", "Content-Length: 70000", version="HTTP/1.0")
            connection.sendall(head + CONTENT[:70_000])
            wire = BrokerConnection(connection)
            answers.append(wire.answer())
            assert wire.is_closed()

    assert answers[0].comparable == answers[1].comparable
    assert json.loads(answers[0].content)["version"] in {"1.0", "1"}  # granian's


SMUGGLED = "GET /state/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
STRINGS = {
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


def everything(url: str, data: bytes) -> list[str]:
    """Send *data*; return the lines that come until the server is silent or closes."""
    said = b""
    with closing(connect(url)) as connection:
        connection.sendall(data)
        connection.settimeout(IDLE_SECONDS)
        end = "(silent)"
        with suppress(TimeoutError):
            while received := receive(connection):
                said += received
            end = "(closed)"
    lines = [*said.decode("latin-1").split("\r\n"), end]
    return [line for line in lines if line.split(":")[0].lower() not in {"date", *OURS}]


def test_smuggled_requests_are_answered_as_without_the_middleware(url: str) -> None:
    """H23, A12: framing is the server's; status and bytes are the same, whatever it makes of it."""

    def both(tail: str) -> tuple[list[str], list[str]]:
        heads = [f"POST /{side}/file HTTP/1.1\r\nHost: x\r\n" for side in SIDES]
        tracked, plain = (everything(url, (head + tail).encode("latin-1")) for head in heads)
        return tracked, plain

    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(STRINGS, pool.map(both, STRINGS.values()), strict=True))

    assert {name: both[0] for name, both in answers.items()} == {
        name: both[1] for name, both in answers.items()
    }
    assert answers["two"][0][0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize("pipelined", [True, False])
def test_uploads_on_one_connection_do_not_mix(url: str, pipelined: bool) -> None:
    """H22: each has its own id, size and hash, whether sent one by one or all at once."""
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

    answers = []
    with closing(connect(url)) as connection:
        wire = BrokerConnection(connection)
        if pipelined:
            with ThreadPoolExecutor(1) as sender:
                sending = sender.submit(connection.sendall, b"".join(r[0] for r in requests))
                answers = [wire.answer() for _ in requests]
                sending.result()
        else:
            for data, _, _ in requests:
                connection.sendall(data)
                answers.append(wire.answer())

    for number, (answer, (_, content, own)) in enumerate(zip(answers, requests, strict=True)):
        assert json.loads(answer.content)["sha256"] == hashlib.sha256(content).hexdigest()
        assert answer.upload_id == (names[number] if own else None)
        state = told(url, f"state/{names[number]}")
        assert state is None or state["bytes_transferred"] == len(content)
        assert (state is not None) is bool(own)


def reset(connection: socket.socket) -> None:
    """Close *connection* with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_client_that_resets_fails_its_upload_within_a_second(url: str) -> None:
    """H07: the application gets its disconnect, and the figure is what had come."""
    before = told(url, "facts")["disconnects"]
    connection = connect(url)
    head = request_head("/with/file", "Upload-Id: reset", "Content-Length: 200000")
    connection.sendall(head + CONTENT[:100_000])
    eventually(lambda: (told(url, "state/reset") or {}).get("bytes_transferred") == 100_000)

    reset(connection)
    lasted = eventually(lambda: told(url, "state/reset")["state"] == "failed")

    state = told(url, "state/reset")
    assert lasted < 1.0
    assert (state["error"]["code"], state["percent"]) == ("client_disconnected", 50.0)
    eventually(lambda: told(url, "facts")["disconnects"] == before + 1)


# Whether granian says "connection: close" is decided, with and without us, by which of its threads
# is first: the one that sends the head, or the one that drops the body nobody read.
RACED = {"uvicorn": (), "hypercorn-h11": (), "granian": ("connection",)}


@pytest.mark.parametrize("kind", ["refuse", "ignore"])
@pytest.mark.parametrize("expect", [True, False])
def test_an_answer_without_reading_is_the_same(url: str, kind: str, expect: bool) -> None:
    """H05: no ``100 Continue`` for an application that does not read, and its 413 arrives."""
    answers = []
    for side in SIDES:
        with closing(connect(url)) as connection:
            own = ["Upload-Id: unread", "Content-Length: 100000"]
            own += ["Expect: 100-continue"] if expect else []
            connection.sendall(request_head(f"/{side}/{kind}", *own))
            answers.append(BrokerConnection(connection).answer())

    server = dict(answers[0].headers)["server"]
    kept = [[pair for pair in each.headers if pair[0] not in RACED[server]] for each in answers]
    assert kept[0] == kept[1]
    assert answers[0].content == answers[1].content
    # Hypercorn continues by itself, whoever reads.
    interim = (100,) if expect and server.startswith("hypercorn") else ()
    assert answers[0].interim == answers[1].interim == interim
    assert answers[0].status == (413 if kind == "refuse" else 200)
    state = told(url, "state/unread")
    assert state["state"] == ("failed" if kind == "refuse" else "completed")
    assert state["bytes_transferred"] == 0


@pytest.mark.parametrize("kind", ["file", "stay"], ids=["stalled", "processing"])
def test_a_cancelled_upload_is_told_and_closed(url: str, kind: str) -> None:
    """The contract's section 3: 409 and the end of the connection, about a second after DELETE."""
    name = f"cancelled-{kind}"
    size = 100_000 if kind == "stay" else 200_000
    expected = ("processing" if kind == "stay" else "receiving", 100_000)

    def here() -> bool:
        state = told(url, f"state/{name}") or {"state": None, "bytes_transferred": 0}
        return (state["state"], state["bytes_transferred"]) == expected

    with closing(connect(url)) as connection:
        own = [f"Upload-Id: {name}", f"Content-Length: {size}"]
        connection.sendall(request_head(f"/with/{kind}", *own) + CONTENT[:100_000])
        eventually(here)
        begun = time.monotonic()
        assert told(url, f"cancel/{name}")["state"] == "cancelled"
        wire = BrokerConnection(connection)
        answer = wire.answer()
        lasted = time.monotonic() - begun

        assert (answer.status, answer.upload_id) == (409, name)
        assert dict(answer.headers)["connection"] == "close"
        assert 0.9 < lasted < 3
        # Granian may keep the connection of a ``receive()`` that was cancelled, whoever did it.
        assert dict(answer.headers)["server"] == "granian" or wire.is_closed()


def test_many_uploads_at_once_are_all_told_apart(url: str) -> None:
    """H01, H22: 32 connections, each with its own body."""

    def one(number: int) -> tuple[Answer, str]:
        content = CONTENT[number : number + 70_000 + 100 * number]
        framing = ["length", "chunked", "expect"][number % 3]
        return upload(url, "with", framing, content), hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(one, range(32)))

    assert all(json.loads(answer.content)["sha256"] == digest for answer, digest in answers)
    named = {answer.upload_id for answer, _ in answers}
    assert len(named) == 32
    assert all(name and is_upload_id(name) for name in named)
    eventually(lambda: told(url, "facts")["live_uploads"] == 0)


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_limit_of_connections_leaks_nothing(http: str) -> None:
    """R06: what uvicorn answers with 503 by itself never reaches us, and nothing stays."""
    served = Served()

    def one(number: int) -> int:
        head = request_head("/with/file", f"Upload-Id: one-of-{number}", "Content-Length: 80000")
        with closing(connect(url)) as connection:
            # No body yet: what a server leaves unread can cost the client its answer.
            connection.sendall(head)
            everyone.wait(TIMEOUT_SECONDS)
            connection.settimeout(IDLE_SECONDS)
            with suppress(TimeoutError):
                return BrokerConnection(connection).answer().status
            connection.settimeout(TIMEOUT_SECONDS)
            connection.sendall(CONTENT[:80_000])
            return BrokerConnection(connection).answer().status

    everyone = threading.Barrier(12)
    with run_server(served, "uvicorn", http, limit_concurrency=5) as server:
        url = server.url
        with ThreadPoolExecutor(12) as pool:
            # Two are let in before the crowd comes: of twelve at once it may refuse every one.
            early = [pool.submit(one, number) for number in range(2)]
            eventually(lambda: served.tracker.statistics().live_uploads == 2)
            late = [pool.submit(one, number) for number in range(2, 12)]
            statuses = [each.result() for each in (*early, *late)]
        eventually(lambda: served.tracker.statistics().live_uploads == 0)

    assert set(statuses) == {200, 503}
    assert served.tracker.statistics().live_uploads == 0


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_server_that_stops_leaves_no_upload_open(http: str) -> None:
    """H10, P02: after the grace the task is cancelled; its end is written before the exit."""
    served = Served()
    head = request_head("/with/file", "Upload-Id: stopped", "Content-Length: 200000")
    with (
        run_server(served, "uvicorn", http, timeout_graceful_shutdown=1) as server,
        closing(connect(server.url)) as connection,
    ):
        connection.sendall(head + CONTENT[:100_000])
        eventually(lambda: served.tracker.statistics().live_uploads == 1)
        server.stop()

    progress = anyio.run(lambda: served.tracker.get("stopped", owner=ALICE))
    assert progress.state in {UploadState.CANCELLED, UploadState.FAILED}
    assert progress.finished_at is not None
