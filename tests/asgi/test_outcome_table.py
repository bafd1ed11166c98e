"""The tables of the documentation that say what a response means, walked row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import frozen

from tests._support.protocol_apps import FileApp, ResponseHead, send_request
from tests._support.scripted_server import ALICE, Receive, Scope
from tests._support.simulation import Simulation
from upload_progress import ProgressTracker, UploadProgress, UploadState

pytestmark = pytest.mark.anyio

S = UploadState
DOCS = Path(__file__).parents[2] / "docs"
STATUSES = (*range(400, 419), *range(421, 432), 451, 460, *range(500, 512))
REDIRECTS = (301, 302, 303, 307)
RAISES = 0


def table(page: str, column: str) -> dict[str, str]:
    """Return the rows of the table whose second column has that name: response and meaning."""
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, after = text.partition(f"| response | {column} |\n| --- | --- |\n")
    lines = after.partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return dict(rows)


IN_SEVERAL = table("guides/protocols.md", "upload")
IN_ONE = table("states.md", "result")


def state_in(meaning: str) -> UploadState:
    """Return the state that a row begins with."""
    found = re.match(r"`(\w+)`", meaning)
    assert found
    return S(found[1])


def statuses_in(row: str) -> set[int]:
    """Return the statuses that a row names."""
    return {int(status) for status in re.findall(r"\b\d{3}\b", row)}


@frozen
class Piece:
    """How one protocol sends an upload of 20 bytes: the first 10, then the rest."""

    name: str
    first: tuple[str, str, dict[str, str], ResponseHead]
    second: tuple[str, str, dict[str, str]]
    creation: tuple[str, str, dict[str, str], ResponseHead] | None = None


TUS = {"tus-resumable": "1.0.0"}
OCTETS = {"content-type": "application/offset+octet-stream"}
POND = {"upload-length": "20", "upload-name": "a.bin", **OCTETS}
SESSION = "/v2/a/blobs/uploads/1"
PIECES = (
    Piece(
        "tus",
        (
            "PATCH",
            "/files/1",
            {**TUS, **OCTETS, "upload-offset": "0"},
            (204, {"upload-offset": "10"}),
        ),
        ("PATCH", "/files/1", {**TUS, **OCTETS, "upload-offset": "10"}),
        ("POST", "/files", {**TUS, "upload-length": "20"}, (201, {"location": "/files/1"})),
    ),
    Piece(
        "Content-Range",
        ("PUT", "/a", {"content-range": "bytes 0-9/20"}, (308, {"range": "bytes=0-9"})),
        ("PUT", "/a", {"content-range": "bytes 10-19/20"}),
    ),
    Piece(
        "IETF",
        (
            "POST",
            "/drafts",
            {"upload-complete": "?0", "upload-length": "20"},
            (201, {"location": "/drafts/1", "upload-offset": "10", "upload-complete": "?0"}),
        ),
        ("PATCH", "/drafts/1", {"upload-complete": "?1", "upload-offset": "10"}),
    ),
    Piece(
        "S3",
        ("PUT", "/b/k?partNumber=1&uploadId=u", {}, (200, {})),
        ("PUT", "/b/k?partNumber=2&uploadId=u", {}),
    ),
    Piece(
        "OCI",
        ("PATCH", SESSION, {}, (202, {"range": "0-9"})),
        ("PATCH", SESSION, {"content-range": "10-19"}),
        ("POST", "/v2/a/blobs/uploads/", {}, (202, {"location": SESSION})),
    ),
    Piece(
        "FilePond",
        ("PATCH", "/pond?patch=1", {**POND, "upload-offset": "0"}, (204, {})),
        ("PATCH", "/pond?patch=1", {**POND, "upload-offset": "10"}),
    ),
)


class Answer(FileApp):
    """Answers with one response, after it has read the body or before."""

    def __init__(self, response: ResponseHead, *, reads_body: bool = True) -> None:
        super().__init__()
        self.response = response
        self.reads_body = reads_body

    async def respond(self, scope: Scope, receive: Receive) -> ResponseHead:
        if self.reads_body:
            await super().respond(scope, receive)
        if self.response[0] == RAISES:
            raise RuntimeError
        return self.response


async def send(
    tracker: ProgressTracker,
    response: ResponseHead,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    """Send 10 bytes, or none with a request that only creates the upload."""
    content = (
        b"" if response[1].get("location") and "upload-offset" not in response[1] else bytes(10)
    )
    try:
        await send_request(
            Answer(response), tracker, method, path, headers=headers, content=content
        )
    except RuntimeError:
        assert response[0] == RAISES


def expected_state(piece: Piece, status: int) -> UploadState:
    """Return the state that the table states, the rows of the protocol first."""
    for row, meaning in IN_SEVERAL.items():
        own, _, response = row.partition(": ")
        if own != piece.name:
            continue
        if response.startswith("any error but"):
            return S.FAILED if status in statuses_in(response) else state_in(meaning)
        if response == str(status):
            return state_in(meaning)
    rows = iter(IN_SEVERAL.items())
    goes_on, meaning = next(rows)
    assert all(word in goes_on for word in ("5xx", "a redirect", "an exception"))
    if not 400 <= status < 500 or status in statuses_in(goes_on):
        return state_in(meaning)
    other, meaning = next(rows)
    assert other == "other 4xx"
    return state_in(meaning)


async def only_upload(tracker: ProgressTracker) -> UploadProgress:
    [shown] = (await tracker.list(owner=ALICE, states=set(S))).uploads
    return shown


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
async def test_response_to_a_piece_means_what_the_table_says(piece: Piece) -> None:
    for status in (*STATUSES, *REDIRECTS, RAISES):
        sim = Simulation()
        if piece.creation is not None:
            method, path, headers, response = piece.creation
            await send(sim.tracker, response, method, path, headers)
        method, path, headers, response = piece.first
        await send(sim.tracker, response, method, path, headers)
        await send(sim.tracker, (status, {}), *piece.second)
        await sim.run(3)

        shown = await only_upload(sim.tracker)
        assert (status, shown.state) == (status, expected_state(piece, status))
        assert (status, shown.bytes_transferred, shown.retransmitted_bytes) == (status, 10, 10)
        code = None if shown.error is None else (shown.error.code, shown.error.http_status)
        assert code == (("rejected", status) if shown.state is S.FAILED else None)


@pytest.mark.parametrize("has_body", [True, False])
async def test_response_to_one_request_means_what_the_table_says(has_body: bool) -> None:
    """Without the body, the application answers before it has read it."""
    rows = {response: state_in(meaning) for response, meaning in IN_ONE.items()}
    success, form, repeated, other, raised = rows

    def expected(status: int) -> UploadState:
        if 200 <= status < 300:
            return rows[success]
        if status in statuses_in(repeated):
            return rows[repeated]
        is_form = status in statuses_in(form) and has_body
        return rows[raised if status == RAISES else form if is_form else other]

    for status in (200, 201, 202, 204, *REDIRECTS, 304, 308, *STATUSES, RAISES):
        sim = Simulation()
        app = Answer((status, {}), reads_body=has_body)
        try:
            await send_request(
                app, sim.tracker, "PUT", "/a", headers={"upload-id": "up"}, content=bytes(10)
            )
        except RuntimeError:
            assert status == RAISES
        await sim.run(1)
        shown = await only_upload(sim.tracker)
        assert (status, shown.state) == (status, expected(status))
        if shown.state is S.FAILED:
            assert shown.error is not None
            code = "app_error" if status == RAISES else "rejected"
            assert (shown.error.code, shown.error.http_status) == (code, status or None)
