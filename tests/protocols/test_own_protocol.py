"""The documented example of an own protocol works: in the guide, and in the docstring."""

from __future__ import annotations

import inspect
from textwrap import dedent

import pytest

from tests._support.paths import ROOT
from tests._support.protocol_apps import FileApp, send_request, upload_id_of
from tests._support.scripted_server import ALICE
from upload_progress import ProgressTracker, UploadState, protocols
from upload_progress.connection import Connection
from upload_progress.protocols import (
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
)

pytestmark = pytest.mark.anyio

GUIDE = (ROOT / "docs/guides/protocols.md").read_text(encoding="utf-8")
EXAMPLES = {
    "guide": GUIDE.partition("```python\n")[2].partition("```")[0],
    "docstring": (inspect.getdoc(TransferProtocol) or "").partition("::\n\n")[2],
}


def example_protocol(text: str) -> TransferProtocol:
    """Run an example, and return an instance of its class ``Chunks``."""
    namespace = {"Connection": Connection, **vars(protocols)}
    exec(dedent(text), namespace)  # noqa: S102  # our own documentation
    made: TransferProtocol = namespace["Chunks"]()
    return made


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_reports_one_upload(name: str) -> None:
    protocol, tracker, app = example_protocol(EXAMPLES[name]), ProgressTracker(), FileApp()

    async def send(method: str, path: str, content: bytes = b"") -> str:
        server = await send_request(
            app, tracker, method, path, content=content, protocols=[protocol]
        )
        return upload_id_of(server)

    async with tracker.lifespan():
        ids = [await send("PUT", f"/chunks/movie/{number}", b"x" * 10) for number in (2, 1, 2)]
        ids.append(await send("POST", "/chunks/movie"))
        shown = await tracker.get(ids[0], owner=ALICE)

    assert set(ids) == {shown.upload_id}
    assert shown.upload_id.startswith("chunks-")
    assert (shown.state, shown.bytes_transferred) == (UploadState.COMPLETED, 20)
    assert shown.retransmitted_bytes == 10


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_leaves_other_requests_alone(name: str) -> None:
    tracker, chunks = ProgressTracker(), [example_protocol(EXAMPLES[name])]
    headers = {"upload-id": "plain"}
    server = await send_request(
        FileApp(), tracker, "PUT", "/files/a", headers=headers, content=b"x", protocols=chunks
    )

    assert upload_id_of(server) == "plain"


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example_refuses_errors(name: str) -> None:
    tracker, protocol = ProgressTracker(), example_protocol(EXAMPLES[name])

    class Refusing(FileApp):
        async def respond(self, scope: object, receive: object) -> tuple[int, dict[str, str]]:
            return 409, {}

    async with tracker.lifespan():
        server = await send_request(
            Refusing(), tracker, "PUT", "/chunks/movie/1", content=b"x" * 10, protocols=[protocol]
        )

    assert server.status == 409
    assert (await tracker.list(owner=ALICE)).uploads == ()


async def test_media_type_that_a_protocol_announces_is_shown() -> None:
    class Typed:
        name = "typed"
        specification = "https://example.org/typed"

        def read_request(self, connection: Connection) -> TransferHead | None:
            return TransferHead(
                self.name, TransferKind.BYTES, connection.path, content_type="text/plain"
            )

        def read_response(
            self, transfer_head: TransferHead, status: int, headers: Headers
        ) -> TransferOutcome:
            return TransferOutcome(TransferResult.ACCEPTED)

    tracker = ProgressTracker()
    async with tracker.lifespan():
        await send_request(FileApp(), tracker, "PUT", "/a", content=b"x", protocols=[Typed()])
        [shown] = (await tracker.list(owner=ALICE)).uploads

    assert shown.content_type == "text/plain"
