"""Bars that grow by the server's word, whatever lies between, and never go back."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests._support.browser_pages import (
    RECORD,
    events,
    in_state,
    is_connected,
    looks,
    release,
    row,
    send,
)
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests.browser.conftest import SERVER, People

ALL = '<upload-progress src="/uploads" all></upload-progress>'


def block_sockets(page: Page) -> None:
    """Let no WebSocket through, as some networks do."""
    page.route_web_socket(re.compile("/progress"), lambda socket: socket.close(code=1011))


def block_streams(page: Page) -> None:
    """Let neither WebSockets nor event streams through."""
    block_sockets(page)

    def filtered(route: Route) -> None:
        is_stream = "event-stream" in route.request.headers.get("accept", "")
        route.abort() if is_stream else route.continue_()

    page.route(re.compile("/progress"), filtered)


def test_a_bar_grows_to_the_end(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    page.evaluate(RECORD, "a.bin")

    send(page, "a.bin", hold=0.5)
    bar = row(page, "a.bin").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[5-9]"))
    expect(bar).to_have_attribute(
        "aria-valuetext", re.compile(r"^[5-9]\d%, Receiving, \d+.* of 1\.0 MB")
    )
    expect(bar).to_have_attribute("aria-label", "a.bin")
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_contain_text("Completed")

    seen = [look["now"] for look in looks(page)]
    assert seen == sorted(seen, key=lambda now: float(now or 0))
    assert seen[-1] == 100
    assert events(page, "complete") == ["completed"]
    assert events(page, "statechange")[-1] == "completed"
    assert len(events(page, "progress")) >= 3
    assert events(page, "error") == []


def test_a_stage_has_a_bar_of_its_own(people: People, user: str) -> None:
    page = people.open(ALL, user=user)

    send(page, "a.bin", url="/files/{name}?stage=1")

    expect(in_state(page, "a.bin", "processing")).to_contain_text("Scanning")
    stage = row(page, "a.bin").get_by_role("progressbar", name="Scanning")
    expect(stage).to_have_attribute("aria-valuenow", "50")
    expect(row(page, "a.bin")).to_contain_text("1.0 MB received")
    release(page, "a.bin.stage")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_another_user_sees_nothing(people: People, user: str) -> None:
    mine = people.open(ALL, user=user)
    upload_id = send(mine, "secret.bin", hold=0.5)
    expect(in_state(mine, "secret.bin", "receiving")).to_be_visible()

    named = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    other = people.open(ALL.replace("all", 'all id="all"') + named, user=f"{user}-other")
    is_connected(other, by="websocket")
    answer = other.request.get(f"{people.site}/uploads/{upload_id}/progress")
    release(mine, "secret.bin")
    expect(in_state(mine, "secret.bin", "completed")).to_be_visible()

    assert answer.status == 404
    expect(other.locator("upload-progress li")).to_have_count(0)
    assert events(other, "progress") == []


@pytest.mark.parametrize(
    ("block", "transport"), [(block_sockets, "sse"), (block_streams, "polling")]
)
@pytest.mark.parametrize("what", ["all", "upload-id"])
def test_what_the_network_lets_through_takes_over(
    people: People, user: str, block: object, transport: str, what: str
) -> None:
    sender = people.open(ALL, user=user)
    upload_id = send(sender, "a.bin", hold=0.5)
    target = what if what == "all" else f'upload-id="{upload_id}"'
    body = f'<upload-progress src="/uploads" {target}></upload-progress>'

    page = people.open(body, user=user, before=block)  # type: ignore[arg-type]  # one of the two

    is_connected(page, by=transport)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert events(page, "complete") == ["completed"]


def test_one_upload_is_waited_for_where_only_asking_works(people: People, user: str) -> None:
    sender = people.open(ALL, user=user)
    upload_id = send(sender, "a.bin", hold=0.5)
    expect(in_state(sender, "a.bin", "receiving")).to_be_visible()
    body = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    page = people.open(body, user=user, before=block_streams)

    with page.expect_request(lambda request: "wait=25" in request.headers.get("prefer", "")):
        is_connected(page, by="polling")
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_a_socket_that_breaks_is_opened_again_and_no_end_is_missed(
    people: People, user: str
) -> None:
    opened: list[WebSocketRoute] = []

    def through(socket: WebSocketRoute) -> None:
        opened.append(socket)
        socket.connect_to_server()

    page = people.open(
        ALL, user=user, before=lambda page: page.route_web_socket(re.compile("/progress"), through)
    )
    is_connected(page, by="websocket")
    send(page, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    opened[0].close(code=1012)
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    is_connected(page, by="websocket")
    assert len(opened) == 2


COUNT = """
window.sockets = 0;
window.WebSocket = class extends WebSocket {
  constructor(...where) {
    super(...where);
    window.sockets++;
  }
};
"""


class Line:
    """A socket that can fall silent, as when a laptop sleeps and the other side is gone."""

    def __init__(self) -> None:
        self.is_silent = False

    def connect(self, socket: WebSocketRoute) -> None:
        """Pass on what is said, while it is not silent."""
        server = socket.connect_to_server()
        server.on_message(lambda text: None if self.is_silent else socket.send(text))


def test_who_was_asleep_is_told_of_the_end(people: People, user: str) -> None:
    line = Line()
    page = people.open(
        ALL,
        user=user,
        clock=True,
        script=COUNT,
        before=lambda page: page.route_web_socket(re.compile("/progress"), line.connect),
    )
    is_connected(page, by="websocket")
    upload_id = send(page, "a.bin", hold=0.5, bar=None)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    line.is_silent = True
    release(page, "a.bin")
    until_ended(page, f"{people.site}/uploads/{upload_id}/progress")
    page.evaluate("dispatchEvent(new Event('online'))")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    line.is_silent = False
    # Longer than the server may be silent: the line is dead, and another is opened.
    page.clock.run_for(38_000)
    page.wait_for_function("sockets === 2")
    is_connected(page, by="websocket")


def until_ended(page: Page, url: str) -> None:
    """Wait until the server says of the upload that it is completed."""
    wait = {"Prefer": "wait=25"}
    answer = page.request.get(url)
    while answer.json()["state"] != "completed":
        tag = answer.headers["etag"]
        answer = page.request.get(url, headers={**wait, "If-None-Match": tag})


def test_a_page_that_is_loaded_again_goes_on_where_it_was(people: People, user: str) -> None:
    sender, page = (people.open(ALL, user=user) for _ in range(2))
    send(sender, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))

    page.reload()

    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_who_reloads_the_sending_page_is_told_what_came_of_it(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    # More than the system takes on its way, so that some of it is still in the page.
    send(page, "a.bin", megabytes=20, hold=0.1)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    page.reload()

    release(page, "a.bin")
    expect(in_state(page, "a.bin", "failed")).to_contain_text("The connection broke")
    expect(row(page, "a.bin").get_by_role("button")).to_have_count(0)


def test_a_server_that_comes_back_is_found_again(people: People, user: str) -> None:
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        context = people.context()
        context.add_cookies([{"name": "user", "value": user, "url": url}])
        page = people.open(ALL, url=url, storage_state=context.storage_state())
        send(page, "a.bin", megabytes=4, hold=0.1)
        expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    is_connected(page, by="lost")
    expect(page.locator("upload-progress")).to_contain_text("The server does not answer")
    with run_python_server(*SERVER, str(urlsplit(url).port), cwd=ROOT):
        is_connected(page, by="websocket")
        expect(in_state(page, "a.bin", "failed")).to_contain_text("does not know this upload")
        row(page, "a.bin").get_by_role("button", name="Retry a.bin").click()
        release(page, "a.bin")
        expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_an_upload_is_shown_as_soon_as_there_is_one(people: People, user: str) -> None:
    upload_id = "later-" + "x" * 20
    body = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    page = people.open(body, user=user)
    is_connected(page, by="websocket")

    url = f"{people.site}/files/later.bin"
    page.request.put(url, data=bytes(100_000), headers={"Upload-Id": upload_id})

    expect(in_state(page, "later.bin", "completed")).to_be_visible()


def test_a_group_has_a_sum(people: People, user: str) -> None:
    page = people.open('<upload-progress src="/uploads" group="g"></upload-progress>', user=user)
    send(page, "other.bin", bar=None)

    for name in ("a.bin", "b.bin"):
        send(page, name, hold=0.5, group="g", bar=None)

    expect(page.locator("upload-progress li")).to_have_count(2)
    total = page.locator("upload-progress .total")
    expect(total).to_contain_text(re.compile(r"0 of 2 uploads.*[5-9]\d%.*of 2\.0 MB", re.DOTALL))
    for name in ("a.bin", "b.bin"):
        release(page, name)
    expect(total).to_contain_text(re.compile(r"2 of 2 uploads.*100%.*Completed", re.DOTALL))


OLDER = """
(id) => {
  const feed = component.ProgressFeed.of("/uploads");
  const known = feed.uploads.get(id);
  const shown = () => feed.uploads.get(id).bytes_transferred;
  const before = shown();
  feed.accept({ ...known, sequence: known.sequence - 1, bytes_transferred: before + 5 });
  feed.accept({ ...known, sequence: known.sequence, bytes_transferred: 1 });
  feed.accept({ ...known, sequence: known.sequence + 1, bytes_transferred: 1 });
  return [before, shown()];
}
"""


def test_a_bar_never_goes_back(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    upload_id = send(page, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))

    before, after = page.evaluate(OLDER, upload_id)
    release(page, "a.bin")

    assert after == before


def test_a_short_upload_is_shown_once_as_it_ended(people: People, user: str) -> None:
    page = people.open(ALL, user=user, clock=True)
    is_connected(page, by="websocket")
    page.clock.run_for(1000)
    page.evaluate(RECORD, "short.txt")
    # From here on no time passes in the page: that is how short the upload is.
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    page.request.put(f"{people.site}/files/short.txt", data=bytes(100_000))
    expect(page.locator("upload-progress")).to_have_js_property("uploads.0.state", "completed")
    expect(row(page, "short.txt")).to_have_count(0)
    page.clock.run_for(1000)

    expect(in_state(page, "short.txt", "completed")).to_be_visible()
    assert [look["state"] for look in looks(page)] == ["completed"]
