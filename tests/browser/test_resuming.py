"""Uploads of a page that go on where the server is: by tus, and by Content-Range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import define, field
from playwright.sync_api import Page, Request, expect

from tests._support.browser_pages import events, in_state, row, upload
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests._support.tcp_proxy import TcpProxy
from tests.browser.conftest import Users

BAR = '<upload-progress src="/uploads"></upload-progress>'
# In Base64: alice, and the password is the name.
SIGN_IN = (
    'component.authorize("/uploads", { headers: { Authorization: "Basic YWxpY2U6YWxpY2U=" } });'
)
BYTES_PER_SECOND = 2_000_000
SIZE = 4_000_000
MEGABYTES = SIZE / 1_000_000


@define
class RestartingServer:
    """A server behind a proxy, whose address stays the same.

    Attributes:
        proxy: Forwards connections to the server that runs.
        folder: Where it keeps its files.
        process: Ends the server that runs.
    """

    proxy: TcpProxy
    folder: Path
    process: ExitStack = field(factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"

    def start(self) -> None:
        arguments = ("-m", "tests.servers.resumable_site", str(self.folder), str(BYTES_PER_SECOND))
        url = self.process.enter_context(run_python_server(*arguments, cwd=ROOT))
        self.proxy.target_port = int(url.rpartition(":")[2])
        self.proxy.refuses_connections = False

    def stop(self) -> None:
        """Cut all connections, and end the server."""
        self.proxy.refuses_connections = True
        self.process.close()
        self.proxy.reset_connections()

    def stored(self, page: Page) -> int:
        """Return the size of the complete file at the server."""
        answers = page.evaluate("async () => (await transfer.done).bytes_transferred")
        assert isinstance(answers, int)
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return max(sizes)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartingServer]:
    with TcpProxy(0) as proxy:
        server = RestartingServer(proxy, tmp_path_factory.mktemp("files"))
        server.start()
        yield server
        server.process.close()


@pytest.fixture
def server(running: RestartingServer) -> RestartingServer:
    """Return the server, without the files of other tests."""
    for path in running.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    return running


def open_page(users: Users, server: RestartingServer) -> tuple[Page, list[Request]]:
    """Open a page of the server; return it, and the requests of its uploads."""
    requests: list[Request] = []

    def record(page: Page) -> None:
        page.on(
            "request", lambda sent: requests.append(sent) if "/uploads/" not in sent.url else None
        )

    return users.open(BAR, script=SIGN_IN, url=server.url, before=record), requests


def interrupt(page: Page, server: RestartingServer, least_bytes: int) -> None:
    """Restart the server once it has received that many bytes."""
    page.wait_for_function(
        "(least) => events.length && component.ProgressClient.of('/uploads').uploads"
        ".get(transfer.id)?.bytes_transferred > least",
        arg=least_bytes,
    )
    server.stop()
    expect(row(page, "a.bin")).to_contain_text("Interrupted, waiting for the server")
    server.start()


def test_tus_goes_on_after_a_restart_of_the_server(users: Users, server: RestartingServer) -> None:
    page, requests = open_page(users, server)
    upload_id = upload(
        page, "a.bin", megabytes=MEGABYTES, url="/tus/", tus=True, chunkBytes=1_500_000
    )

    interrupt(page, server, 2_000_000)

    expect(in_state(page, "a.bin", "completed")).not_to_contain_text("attempt")
    offsets = [int(sent.headers["upload-offset"]) for sent in requests if sent.method == "PATCH"]
    assert [sent.method for sent in requests].count("POST") == 1
    assert [sent.method for sent in requests].count("HEAD") >= 1
    assert offsets[0] == 0
    assert offsets[-1] >= 1_500_000
    assert offsets.count(0) == 1
    assert {sent.headers["incremental"] for sent in requests if sent.method == "PATCH"} == {"?1"}
    assert server.stored(page) == SIZE
    assert page.evaluate("transfer.id") == upload_id
    assert page.evaluate("transfer.attempts") == 1
    assert events(page, "error") == []


def test_tus_begins_again_if_the_server_has_lost_the_upload(
    users: Users, server: RestartingServer
) -> None:
    page, requests = open_page(users, server)
    polls: list[str] = []
    page.on(
        "response", lambda response: polls.append(response.url) if response.status == 404 else None
    )
    upload(page, "a.bin", megabytes=MEGABYTES, url="/tus/", tus=True)
    server.folder = server.folder.with_name("others")

    interrupt(page, server, 1_000_000)

    expect(in_state(page, "a.bin", "receiving")).to_contain_text("attempt 2")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert [sent.method for sent in requests].count("POST") == 2
    # A server that does not know the upload is not asked in a loop.
    assert len(polls) < 20
    assert server.stored(page) == SIZE


def test_parts_go_on_after_a_restart_of_the_server(users: Users, server: RestartingServer) -> None:
    page, requests = open_page(users, server)
    upload(page, "a.bin", megabytes=MEGABYTES, chunkBytes=1_500_000)

    interrupt(page, server, 2_000_000)

    expect(in_state(page, "a.bin", "completed")).not_to_contain_text("attempt")
    ranges = [sent.headers["content-range"] for sent in requests if sent.method == "PUT"]
    assert ranges[0] == f"bytes 0-1499999/{SIZE}"
    assert f"bytes */{SIZE}" in ranges
    assert int(ranges[-1].split()[1].partition("-")[0]) >= 1_500_000
    assert sum(text.startswith("bytes 0-") for text in ranges) == 1
    assert server.stored(page) == SIZE
    assert page.evaluate("transfer.attempts") == 1


def test_parts_begin_again_before_the_server_has_confirmed_one(
    users: Users, server: RestartingServer
) -> None:
    page, requests = open_page(users, server)
    upload(page, "a.bin", megabytes=MEGABYTES, chunkBytes=3_000_000)

    interrupt(page, server, 1_000_000)

    expect(in_state(page, "a.bin", "receiving")).to_contain_text("attempt 2")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    ranges = [sent.headers["content-range"] for sent in requests if sent.method == "PUT"]
    assert f"bytes */{SIZE}" not in ranges
    assert server.stored(page) == SIZE


def test_server_that_takes_a_part_for_the_file_is_named(
    users: Users, server: RestartingServer
) -> None:
    page, requests = open_page(users, server)

    upload(page, "a.bin", megabytes=1, url="/whole/{name}", chunkBytes=600_000)
    expect(in_state(page, "a.bin", "failed")).to_contain_text("The server accepts whole files only")
    assert len([sent for sent in requests if sent.method == "PUT"]) == 1

    upload(page, "b.bin", megabytes=1, url="/whole/{name}", tus=True)
    expect(in_state(page, "b.bin", "failed")).to_contain_text("405")
