"""What sequences of requests come to on real servers: in a snapshot, in lists and on a stream.

With Redis, each request of a sequence reaches another server, and all show the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest
from attrs import define, field, frozen

from tests._support.asgi_servers import run_app, run_granian
from tests.servers.answer_app import STORE, answer_app

pytestmark = pytest.mark.anyio

SERVERS = ["uvicorn-httptools", "uvicorn-h11", "hypercorn-h11", "hypercorn-trio", "granian"]
WITH_REDIS = ("uvicorn-httptools", "hypercorn-h11", "granian")
SECONDS = 20.0
RAISES = 0
OPEN = "open"
ENDS = {"completed", "failed", "cancelled"}
REFUSES = (410, 413)
REFUSED = (409, 460, 507, RAISES, *REFUSES)
"""Each status is tested in tests/asgi/test_refused_transfers.py."""


@frozen
class Request:
    """A request, and what the application answers.

    Attributes:
        target: Path and query; ``{id}`` stands for the id of the only upload.
        answer: The status, 0 for an exception; None if the progress API answers.
        expected: The status that the client gets, if it is another one.
    """

    method: str
    target: str
    headers: dict[str, str] = field(factory=dict)
    size: int = 0
    answer: int | None = 200
    answer_headers: dict[str, str] = field(factory=dict)
    answer_body: str = ""
    expected: int | None = None

    @property
    def status(self) -> int | None:
        """The status that the client gets."""
        if self.expected is not None:
            return self.expected
        return 500 if self.answer == RAISES else self.answer


Shown = tuple[str, int, int | None, int | None]
"""State (``open`` for both that an upload has between its ends), bytes, total, status."""

OTHER: Shown = ("", 0, 0, 0)
"""No upload."""

TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}
SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=a"}
SESSION = "/v2/a/blobs/uploads/1"
POND = {**OCTETS, "upload-length": "20", "upload-name": "a.bin"}


def tus_post(**headers: str) -> Request:
    """Create an upload of tus."""
    own = {**TUS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request("POST", "/files", own, 0, 201, {"location": "/files/1"})


def tus_patch(
    offset: int, answer: int = 204, has: int | None = None, expected: int | None = None
) -> Request:
    """Send 10 bytes by tus."""
    has = offset + 10 if has is None else has
    told = {"upload-offset": str(has)} if answer == 204 else {}
    headers = {**TUS, **OCTETS, "upload-offset": str(offset)}
    return Request("PATCH", "/files/1", headers, 10, answer, told, expected=expected)


def put_range(text: str, size: int, answer: int = 200, has: int | None = None) -> Request:
    """Send a part by ``Content-Range``."""
    told = {} if has is None else {"range": f"bytes=0-{has - 1}"}
    return Request("PUT", "/a", {"content-range": text}, size, answer, told)


def ietf_post(answer: int, headers: dict[str, str], complete: str = "?0") -> Request:
    """Create an upload of the IETF draft with its first 10 bytes."""
    own = {"upload-complete": complete, "upload-length": "20" if complete == "?0" else "10"}
    return Request("POST", "/d", own, 10, answer, headers)


IETF_CREATED = {"location": "/d/1", "upload-complete": "?0", "upload-offset": "10"}
IETF_OVER = {"upload-complete": "?1"}


def ietf_patch(answer: int, headers: dict[str, str], complete: str = "?1") -> Request:
    """Send the last 10 bytes of an upload of the IETF draft."""
    own = {"upload-complete": complete, "upload-offset": "10"}
    return Request("PATCH", "/d/1", own, 10, answer, headers)


def oci(method: str, query: str = "", size: int = 0, answer: int = 202) -> Request:
    """Send a request of an OCI push."""
    told = {"location": SESSION, "range": f"0-{size - 1}"} if answer == 202 and size else {}
    return Request(method, SESSION + query, {}, size, answer, told)


OCI_POST = Request("POST", "/v2/a/blobs/uploads/", {}, 0, 202, {"location": SESSION})


def s3_part(number: int, answer: int = 200) -> Request:
    """Send a part of 10 bytes to S3."""
    return Request("PUT", f"/b/k?partNumber={number}&uploadId=u", {}, 10, answer)


def s3_complete(body: str = "", answer: int = 200) -> Request:
    """Complete an upload of S3."""
    return Request("POST", "/b/k?uploadId=u", SIGNED, 5, answer, answer_body=body)


def refused(status: int) -> Shown:
    """Return how an upload of 20 bytes is shown whose second half is refused."""
    return ("failed", 10, 20, status) if status in REFUSES else (OPEN, 10, 20, None)


def concatenation(final: int) -> list[Request]:
    """Send two partial uploads, and create their concatenation."""
    requests = []
    for number in (1, 2):
        headers = {**TUS, "upload-concat": "partial", "upload-length": "10", "upload-id": "whole"}
        created = {"location": f"/files/{number}"}
        requests += [
            Request("POST", "/files", headers, 0, 201, created),
            Request(
                "PATCH",
                f"/files/{number}",
                {**TUS, **OCTETS, "upload-offset": "0", "upload-id": "whole"},
                10,
                204,
                {"upload-offset": "10"},
            ),
        ]
    parts = {**TUS, "upload-concat": "final;/files/1 /files/2", "upload-id": "whole"}
    last = Request("POST", "/files", parts, 0, 201, {"location": "/files/3"})
    return [*requests, *[last] * final]


CANCEL = Request("DELETE", "/uploads/{id}", {}, 0, None, expected=202)
DONE: Shown = ("completed", 20, 20, None)
SEQUENCES: dict[str, tuple[Sequence[Request], list[Shown]]] = {
    **{
        f"last tus request is answered {status}": (
            [tus_post(upload_length="20"), tus_patch(0), tus_patch(10, status)],
            [refused(status)],
        )
        for status in REFUSED
    },
    **{
        f"last content range is answered {status}": (
            [put_range("bytes 0-9/20", 10), put_range("bytes 10-19/20", 10, status)],
            [refused(status)],
        )
        for status in REFUSED
    },
    **{
        f"content range is accepted after {status}": (
            [
                put_range("bytes 0-9/20", 10),
                put_range("bytes 10-19/20", 10, status),
                put_range("bytes 10-19/20", 10, 201),
            ],
            [DONE],
        )
        for status in (409, 500)
    },
    **{
        f"whole content range is answered {status}": (
            [put_range("bytes 0-19/20", 20, status)],
            [("failed", 0, 20, status)],
        )
        for status in (413, 500)
    },
    **{
        f"IETF append is answered {status} as the last answer": (
            [ietf_post(201, IETF_CREATED), ietf_patch(status, IETF_OVER)],
            [("failed", 10, 20, status)],
        )
        for status in (400, 500)
    },
    "IETF append is answered 409": (
        [
            ietf_post(201, IETF_CREATED),
            ietf_patch(409, {"upload-complete": "?0", "upload-offset": "10"}),
        ],
        [(OPEN, 10, 20, None)],
    ),
    "IETF server has enough": (
        [ietf_post(201, IETF_CREATED), ietf_patch(200, IETF_OVER, "?0")],
        [("completed", 20, 20, None)],
    ),
    "IETF creation is refused early": (
        [ietf_post(400, IETF_OVER)],
        [("failed", 0, 20, 400)],
    ),
    "whole IETF upload is refused": (
        [ietf_post(422, IETF_OVER, "?1")],
        [("failed", 0, 10, 422)],
    ),
    "OCI digest is wrong": (
        [OCI_POST, oci("PATCH", "", 10), oci("PUT", "?digest=sha256:1", 0, 400)],
        [("failed", 10, None, 400)],
    ),
    "OCI quota is reached": ([OCI_POST, oci("PATCH", "", 10, 403)], [("failed", 0, None, 403)]),
    "whole OCI blob is refused": (
        [Request("POST", "/v2/a/blobs/uploads/?digest=sha256:1", {}, 10, 400)],
        [("failed", 0, 10, 400)],
    ),
    "OCI push is closed twice": (
        [
            OCI_POST,
            oci("PATCH", "", 10),
            oci("PUT", "?digest=sha256:1", 0, 201),
            oci("PUT", "?digest=sha256:1", 0, 404),
        ],
        [("completed", 10, 10, None)],
    ),
    "S3 part is refused": ([s3_part(1), s3_part(2, 404)], [("failed", 10, None, 404)]),
    "S3 completion fails late": (
        [s3_part(1), s3_complete("<?xml version='1.0'?><Error><Code>x</Code></Error>")],
        [("failed", 10, None, 200)],
    ),
    "S3 completion is repeated, and a part is late": (
        [s3_part(1), s3_part(2), s3_complete(), s3_complete(answer=404), s3_part(3, 404)],
        [DONE],
    ),
    "tus creation with data is refused": (
        [Request("POST", "/files", {**TUS, **OCTETS, "upload-length": "20"}, 10, 413)],
        [("failed", 0, 20, 413)],
    ),
    "tus request and termination after the end": (
        [
            tus_post(upload_length="10"),
            tus_patch(0),
            tus_patch(0, 409),
            Request("DELETE", "/files/1", TUS, 0, 204),
        ],
        [("completed", 10, 10, None)],
    ),
    "tus concatenation is repeated": (concatenation(final=2), [DONE]),
    "tus concatenation is not finished": (concatenation(final=0), [(OPEN, 20, None, None)]),
    "tus server has less than was sent": (
        [tus_post(upload_length="20"), tus_patch(0), tus_patch(10, has=15)],
        [(OPEN, 15, 20, None)],
    ),
    "server has less of a content range": (
        [put_range("bytes 0-9/20", 10, 308, 10), put_range("bytes 10-19/20", 10, 308, 15)],
        [(OPEN, 15, 20, None)],
    ),
    "tus creation was not seen": (
        [
            Request(
                "HEAD", "/files/1", TUS, 0, 200, {"upload-offset": "10", "upload-length": "20"}
            ),
            tus_patch(10),
        ],
        [DONE],
    ),
    "client asks how far an upload is": (
        [
            put_range("bytes 0-9/20", 10, 308, 10),
            put_range("bytes */20", 0, 308, 10),
            put_range("bytes 10-19/20", 10, 201),
        ],
        [DONE],
    ),
    "client asks before the first byte": (
        [put_range("bytes */20", 0, 308)],
        [(OPEN, 0, 20, None)],
    ),
    "forms of content ranges": (
        [put_range("Bytes 0-9/20", 10), put_range("bytes=10-20/20", 10)],
        [DONE],
    ),
    "content range that is not understood": (
        [put_range("lines 0-9/10", 10)],
        [(OPEN, 10, None, None)],
    ),
    "files are told apart by the query": (
        [
            Request("PUT", "/u?file=a", {"content-range": "bytes 0-9/20"}, 10, 308),
            Request("PUT", "/u?file=b", {"content-range": "bytes 0-9/20"}, 10),
            Request("PUT", "/u?file=b", {"content-range": "bytes 10-19/20"}, 10),
        ],
        [DONE, (OPEN, 0, 20, None)],
    ),
    "cancelled tus upload goes on": (
        [
            tus_post(upload_length="20"),
            tus_patch(0),
            CANCEL,
            # A HEAD may be answered before its owner is known, so it is not sent here.
            tus_patch(10, expected=410),
        ],
        [("cancelled", 10, 20, None)],
    ),
    "S3 part after the abort": (
        [s3_part(1), Request("DELETE", "/b/k?uploadId=u", SIGNED, 0, 204), s3_part(2, 404)],
        [("cancelled", 10, None, None)],
    ),
    "tus request after the termination": (
        [
            tus_post(upload_length="20"),
            tus_patch(0),
            Request("DELETE", "/files/1", TUS, 0, 204),
            tus_patch(10, 404),
        ],
        [("cancelled", 10, 20, None)],
    ),
    "OCI push is cancelled, then continued": (
        [OCI_POST, oci("PATCH", "", 10), oci("DELETE", "", 0, 204), oci("PATCH", "", 10, 404)],
        [("cancelled", 10, None, None)],
    ),
    "chunks of FilePond": (
        [
            Request("PATCH", "/pond?patch=1", {**POND, "upload-offset": "0"}, 10),
            Request("PATCH", "/pond?patch=1", {**POND, "upload-offset": "10"}, 10),
        ],
        [DONE],
    ),
    "blocks of Azure": (
        [
            Request("PUT", "/c/b?comp=block&blockid=1", {"x-ms-version": "1"}, 10, 201),
            Request("PUT", "/c/b?comp=block&blockid=2", {"x-ms-version": "1"}, 10, 201),
            Request("PUT", "/c/b?comp=blocklist", {"x-ms-version": "1"}, 5, 201),
        ],
        [DONE],
    ),
    "parameter of the application is called uploadId": (
        [Request("POST", "/u?uploadId=1", {"upload-id": "mine"}, 20)],
        [DONE],
    ),
    **{
        f"redirect {status} is followed": (
            [
                Request("PUT", "/u", {"upload-id": "mine"}, 20, status, {"location": "/u/"}),
                Request("PUT", "/u/", {"upload-id": "mine"}, 20),
            ],
            [DONE],
        )
        for status in (301, 307, 308)
    },
    "redirect is not followed": (
        [Request("PUT", "/u", {"upload-id": "mine"}, 20, 307, {"location": "/u/"})],
        [("pending", 0, 20, None)],
    ),
    "plain upload is refused, and sent again": (
        [
            Request("PUT", "/u", {"upload-id": "mine"}, 20, 503),
            Request("PUT", "/u", {"upload-id": "mine"}, 20, 201),
        ],
        [DONE],
    ),
}
"""Name → requests, and what is shown of the uploads afterwards."""
CANCELLED = {"cancelled tus upload goes on"}
"""A request is stopped before its end if this server knows that the upload was cancelled."""


@define
class Client:
    """One user of several servers, who follows everything on a stream of the last one."""

    http: httpx2.AsyncClient
    urls: list[str]
    owner: str
    events: list[dict[str, Any]] = field(factory=list)

    async def send(self, requests: Sequence[Request]) -> list[int]:
        """Send *requests*, each to the next server; return the statuses."""
        statuses = []
        for number, request in enumerate(requests):
            headers = {"x-owner": self.owner, **request.headers}
            if request.answer is not None:
                headers["x-answer"] = str(request.answer)
                headers["x-answer-headers"] = json.dumps(request.answer_headers)
                headers["x-answer-body"] = request.answer_body
            url = self.urls[number % len(self.urls)]
            path = request.target
            if "{id}" in path:
                path = path.format(id=await self._only_upload(url))
            # After an exception, Hypercorn sometimes closes the connection instead of answering.
            status = 500
            with suppress(httpx2.RemoteProtocolError):
                response = await self.http.request(
                    request.method, url + path, headers=headers, content=bytes(request.size)
                )
                status = response.status_code
            statuses.append(status)
            if request.method == "DELETE":
                await self._until_ended(url)
            if len(self.urls) > 1:
                await self._settle()
        return statuses

    async def _until_ended(self, url: str) -> None:
        """Wait until the call of the application has ended: some servers answer before that."""
        states = {"receiving"}
        with anyio.fail_after(SECONDS):
            while not states <= {"cancelled", "completed"}:
                await anyio.sleep(0.02)
                states = {each["state"] for each in await self.uploads(url)}

    async def _settle(self) -> None:
        """Wait until all servers show the same: the next one knows what this one has stored."""
        seen: list[list[Shown]] = [[], [OTHER]]
        with anyio.move_on_after(SECONDS):
            while any(each != seen[0] for each in seen):
                await anyio.sleep(0.02)
                seen = [shown(await self.uploads(url)) for url in self.urls]

    async def _only_upload(self, url: str) -> str:
        """Return the id of the only upload, once it is shown there."""
        found: list[dict[str, Any]] = []
        with anyio.fail_after(SECONDS):
            while not found:
                await anyio.sleep(0.02)
                found = await self.uploads(url)
        return str(found[0]["upload_id"])

    async def uploads(self, url: str) -> list[dict[str, Any]]:
        """Return what one server shows."""
        response = await self.http.get(f"{url}/uploads/progress", headers={"x-owner": self.owner})
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()["uploads"]
        return found

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[None]:
        """Collect the events of a stream while the block runs."""
        headers = {"x-owner": self.owner, "accept": "text/event-stream"}
        url = f"{self.urls[-1]}/uploads/progress"
        async with (
            self.http.stream("GET", url, headers=headers) as response,
            anyio.create_task_group() as tasks,
        ):
            assert response.status_code == 200
            tasks.start_soon(self._collect, response)
            yield
            tasks.cancel_scope.cancel()

    async def _collect(self, response: httpx2.Response) -> None:
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                self.events.append(json.loads(line.removeprefix("data:")))

    def last_events(self) -> list[Shown]:
        """Return what the stream has shown last of each upload."""
        return shown(list({event["upload_id"]: event for event in self.events}.values()))


def shown(uploads: list[dict[str, Any]]) -> list[Shown]:
    """Return what is compared of *uploads*."""
    return sorted(
        (
            (
                OPEN if each["state"] in {"receiving", "paused"} else each["state"],
                each["bytes_transferred"],
                each["total_bytes"],
                (each["error"] or {}).get("http_status"),
            )
            for each in uploads
        ),
        key=repr,
    )


def follows(before: dict[str, Any], event: dict[str, Any]) -> bool:
    """Return whether *event* may come after *before*: newer, and not after an end."""
    version, next_version = [(each["attempt"], each["sequence"]) for each in (before, event)]
    has_ended = before["state"] in ENDS and before["attempt"] == event["attempt"]
    return version < next_version and not has_ended


def disorder_of(events: list[dict[str, Any]]) -> list[object]:
    """Return the pairs of events of which the second may not follow the first."""
    by_upload: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_upload.setdefault(event["upload_id"], []).append(event)
    pairs = [pair for each in by_upload.values() for pair in pairwise(each)]
    return [pair for pair in pairs if not follows(*pair)]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the client once; the servers run on both event loops."""
    return "asyncio"


@frozen
class Result:
    """What a sequence comes to.

    Attributes:
        statuses: What the client got.
        seen: What the stream, and the list of each server show last.
        disorder: Pairs of events on the stream that may not follow each other.
    """

    statuses: list[int | None]
    seen: list[list[Shown]]
    disorder: list[object] = field(factory=list)


def expected_result(urls: list[str], name: str) -> Result:
    """Return what a sequence shall come to."""
    requests, uploads = SEQUENCES[name]
    seen = [sorted(uploads, key=repr)] * (1 + len(urls))
    return Result([request.status for request in requests], seen)


async def run_sequence(http: httpx2.AsyncClient, urls: list[str], owner: str, name: str) -> Result:
    """Send a sequence, and wait until all shows what is expected, but not for ever."""
    client = Client(http, urls, owner)
    expected, seen = expected_result(urls, name), list[list[Shown]]()
    async with client.follow():
        statuses = await client.send(SEQUENCES[name][0])
        with anyio.move_on_after(SECONDS):
            while seen != expected.seen:
                await anyio.sleep(0.02)
                seen = [client.last_events(), *[shown(await client.uploads(url)) for url in urls]]
    return Result([*statuses], seen, disorder_of(client.events))


async def check(urls: list[str], owners: dict[str, str]) -> None:
    """Send sequences, some at a time, and check what they come to.

    Args:
        urls: The servers.
        owners: Owner → the name of its sequence.
    """
    limit, results = anyio.CapacityLimiter(16), dict[str, Result]()

    async def run(owner: str, name: str) -> None:
        async with limit:
            results[owner] = await run_sequence(http, urls, owner, name)

    # Hypercorn closes a connection after an exception of the application: none is used twice.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with (
        httpx2.AsyncClient(timeout=30, limits=limits) as http,
        anyio.create_task_group() as tasks,
    ):
        for owner, name in owners.items():
            tasks.start_soon(run, owner, name)
    assert results == {owner: expected_result(urls, name) for owner, name in owners.items()}


def serve(stack: ExitStack, name: str, store: str) -> str:
    """Serve the application; return its URL."""
    server, _, http = name.partition("-")
    if server == "granian":
        return stack.enter_context(run_granian("tests.servers.answer_app:app"))
    if http == "trio":
        return stack.enter_context(run_app(answer_app(store), name))
    return stack.enter_context(run_app(answer_app(store), server, http))


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the application on one server, with a store in its memory."""
    with ExitStack() as stack:
        yield serve(stack, request.param, "memory:")


@pytest.fixture
def urls(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Run the application on three servers that share Redis."""
    monkeypatch.setenv(STORE, redis_url)
    with ExitStack() as stack:
        yield [serve(stack, name, redis_url) for name in WITH_REDIS]


async def test_sequences_on_one_server(url: str) -> None:
    await check([url], {name: name for name in SEQUENCES})


async def test_sequences_on_servers_that_share_a_store(urls: list[str]) -> None:
    """Each owner is known late, after short requests have ended."""
    await check(urls, {f"slow {name}": name for name in SEQUENCES if name not in CANCELLED})
