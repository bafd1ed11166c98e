"""Receiving progress: over each transport, after interruptions, and never decreasing."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests._support.browser_pages import (
    RECORD,
    events,
    in_state,
    release,
    row,
    row_states,
    upload,
    wait_for_connection,
)
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests.browser.conftest import SERVER, Users

ALL = '<upload-progress src="/uploads" all></upload-progress>'


SHOW_ALL = """
async () => {
  window.component = await import("/uploads/upload-progress.js");
  document.body.innerHTML = '<upload-progress src="/uploads" all></upload-progress>';
}
"""
HIDE = """
([event, isHidden]) => {
  const options = { persisted: true };
  if (event !== "visibility") return dispatchEvent(new PageTransitionEvent(event, options));
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
"""

COUNT_REQUESTS = """
const send = window.fetch;
window.fetch = async (url, options) => {
  const kind = options.headers.accept ? "stream" : "poll";
  const response = await send(url, options);
  document.body.dataset[kind] = Number(document.body.dataset[kind] ?? 0) + 1;
  return response;
};
"""
CONNECTION_RETURNS = """
() => {
  dispatchEvent(new Event("online"));
  return new Promise((resolve) => requestIdleCallback(resolve));
}
"""


def block_sockets(page: Page) -> None:
    """Block WebSockets, as some networks do."""
    page.route_web_socket(re.compile("/progress"), lambda socket: socket.close(code=1011))


def block_streams(page: Page) -> None:
    """Block WebSockets and event streams."""
    block_sockets(page)

    def handle(route: Route) -> None:
        is_stream = "event-stream" in route.request.headers.get("accept", "")
        route.abort() if is_stream else route.continue_()

    page.route(re.compile("/progress"), handle)


def test_bar_grows_until_completed(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    page.evaluate(RECORD, "a.bin")

    upload(page, "a.bin", hold=0.5)
    bar = row(page, "a.bin").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[5-9]"))
    expect(bar).to_have_attribute(
        "aria-valuetext", re.compile(r"^[5-9]\d%, Receiving, \d+.* of 1\.0 MB")
    )
    expect(bar).to_have_attribute("aria-label", "a.bin")
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_contain_text("Completed")

    shown = [each["now"] for each in row_states(page)]
    assert shown == sorted(shown, key=lambda now: float(now or 0))
    assert shown[-1] == 100
    assert events(page, "complete") == ["completed"]
    assert events(page, "statechange")[-1] == "completed"
    assert len(events(page, "progress")) >= 3
    assert events(page, "error") == []


def test_stage_has_a_separate_bar(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    upload(page, "a.bin", url="/files/{name}?stage=1")

    expect(in_state(page, "a.bin", "processing")).to_contain_text("Scanning")
    stage = row(page, "a.bin").get_by_role("progressbar", name="Scanning")
    expect(stage).to_have_attribute("aria-valuenow", "50")
    expect(row(page, "a.bin")).to_contain_text("1.0 MB received")
    release(page, "a.bin.stage")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_bytes_that_were_passed_on_have_a_bar(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    upload(page, "a.bin", url="/files/{name}?stored=250000")

    expect(in_state(page, "a.bin", "processing")).to_contain_text("1.0 MB received")
    expect(row(page, "a.bin")).to_contain_text("250.0 kB stored")
    stored = row(page, "a.bin").get_by_role("progressbar", name="250.0 kB stored")
    expect(stored).to_have_attribute("aria-valuenow", "25")
    release(page, "a.bin.stored")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    expect(stored).to_be_hidden()


def test_other_users_do_not_see_an_upload(users: Users, user: str) -> None:
    owner = users.open(ALL, user=user)
    upload_id = upload(owner, "secret.bin", hold=0.5)
    expect(in_state(owner, "secret.bin", "receiving")).to_be_visible()

    by_id = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    other = users.open(ALL.replace("all", 'all id="all"') + by_id, user=f"{user}-other")
    wait_for_connection(other, "websocket")
    response = other.request.get(f"{users.site}/uploads/{upload_id}/progress")
    release(owner, "secret.bin")
    expect(in_state(owner, "secret.bin", "completed")).to_be_visible()

    assert response.status == 404
    expect(other.locator("upload-progress li")).to_have_count(0)
    assert events(other, "progress") == []


@pytest.mark.parametrize(
    ("block", "transport"), [(block_sockets, "sse"), (block_streams, "polling")]
)
@pytest.mark.parametrize("attribute", ["all", "upload-id"])
def test_next_transport_is_used_if_one_is_blocked(
    users: Users, user: str, block: object, transport: str, attribute: str
) -> None:
    sender = users.open(ALL, user=user)
    upload_id = upload(sender, "a.bin", hold=0.5)
    target = attribute if attribute == "all" else f'upload-id="{upload_id}"'
    body = f'<upload-progress src="/uploads" {target}></upload-progress>'

    page = users.open(body, user=user, before=block)  # type: ignore[arg-type]  # the type of the parameters

    wait_for_connection(page, transport)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert events(page, "complete") == ["completed"]


def test_busy_server_is_asked_again_when_it_wants(users: Users, user: str) -> None:
    """Neither polls nor streams return before the time in ``Retry-After``."""

    def be_busy(page: Page) -> None:
        block_sockets(page)
        headers = {"retry-after": "200"}
        pattern = re.compile("/uploads/progress")
        page.route(pattern, lambda route: route.fulfill(status=503, headers=headers))

    page = users.open(ALL, user=user, clock=True, before=be_busy, script=COUNT_REQUESTS)
    body = page.locator("body")
    for kind in ("poll", "stream"):
        expect(body).to_have_attribute(f"data-{kind}", "1")

    for _ in range(10):
        page.clock.run_for(15_000)
        page.evaluate(CONNECTION_RETURNS)
        for kind in ("poll", "stream"):
            assert body.get_attribute(f"data-{kind}") == "1"
    page.clock.run_for(110_000)

    for kind in ("poll", "stream"):
        expect(body).not_to_have_attribute(f"data-{kind}", "1")


def test_one_upload_is_long_polled_if_streams_are_blocked(users: Users, user: str) -> None:
    sender = users.open(ALL, user=user)
    upload_id = upload(sender, "a.bin", hold=0.5)
    expect(in_state(sender, "a.bin", "receiving")).to_be_visible()
    body = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    page = users.open(body, user=user, before=block_streams)

    with page.expect_request(lambda request: "wait=25" in request.headers.get("prefer", "")):
        wait_for_connection(page, "polling")
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_seventh_page_works_although_a_browser_opens_six_connections(
    users: Users, user: str
) -> None:
    context = users.context(user=user)
    pages = [users.page(context) for _ in range(7)]

    for page in pages:
        block_sockets(page)
        page.goto(f"{users.site}/count")
        page.evaluate(SHOW_ALL)
        expect(page.locator("upload-progress")).to_have_attribute(
            "data-connection", re.compile("sse|polling")
        )
    # From any of them, a file can be sent, and all show it.
    upload(pages[0], "a.bin")

    for page in pages:
        expect(in_state(page, "a.bin", "completed")).to_be_visible()
    connections = [
        page.locator("upload-progress").get_attribute("data-connection") for page in pages
    ]
    assert connections.count("sse") == 1


@pytest.mark.parametrize(("hide", "show"), [("visibility", "visibility"), ("pagehide", "pageshow")])
def test_hidden_page_holds_no_connection(users: Users, user: str, hide: str, show: str) -> None:
    closed: list[str] = []

    def record(page: Page) -> None:
        page.on("websocket", lambda socket: socket.on("close", lambda _: closed.append(hide)))

    page = users.open(ALL, user=user, before=record)
    wait_for_connection(page, "websocket")
    page.evaluate(HIDE, [hide, True])
    wait_for_connection(page, "polling")
    upload_id = "hidden-" + user
    url = f"{users.site}/files/hidden.bin"
    page.request.put(url, data=bytes(100_000), headers={"Upload-Id": upload_id})

    page.evaluate(HIDE, [show, False])

    wait_for_connection(page, "websocket")
    expect(in_state(page, "hidden.bin", "completed")).to_be_visible()
    assert closed == [hide]


NOTIFICATIONS = """
window.notifications = [];
window.Notification = class extends Notification {
  constructor(title, options) {
    super(title, options);
    window.notifications.push([title, options.body]);
  }
};
"""


@pytest.mark.parametrize("allowed", [["notifications"], []])
def test_hidden_page_says_in_its_title_that_uploads_have_ended(
    users: Users, user: str, allowed: list[str]
) -> None:
    body = ALL.replace("all", "all notify")
    page = users.open(body, user=user, script=NOTIFICATIONS, permissions=allowed)
    wait_for_connection(page, "websocket")
    for name in ("a.bin", "b.bin"):
        upload(page, name, hold=0.5)
        expect(in_state(page, name, "receiving")).to_be_visible()
    page.evaluate(HIDE, ["visibility", True])
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert page.title() == "Test page"
    release(page, "b.bin")
    expect(page).to_have_title("2 of 2 uploads · Test page")

    page.evaluate(HIDE, ["visibility", False])

    expect(page).to_have_title("Test page")
    shown = [["2 of 2 uploads", "Test page"]] if allowed else []
    assert page.evaluate("window.notifications") == shown


def test_closed_socket_is_reopened_and_the_end_is_not_missed(users: Users, user: str) -> None:
    opened: list[WebSocketRoute] = []

    def pass_through(socket: WebSocketRoute) -> None:
        opened.append(socket)
        socket.connect_to_server()

    page = users.open(
        ALL,
        user=user,
        before=lambda page: page.route_web_socket(re.compile("/progress"), pass_through),
    )
    wait_for_connection(page, "websocket")
    upload(page, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    opened[0].close(code=1012)
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    wait_for_connection(page, "websocket")
    assert len(opened) == 2


COUNT_SOCKETS = """
window.sockets = 0;
window.WebSocket = class extends WebSocket {
  constructor(...parameters) {
    super(...parameters);
    window.sockets++;
  }
};
"""


class SocketProxy:
    """A WebSocket proxy that can drop messages, as after a laptop has slept."""

    def __init__(self) -> None:
        self.drops_messages = False

    def connect(self, socket: WebSocketRoute) -> None:
        """Forward messages of the server unless they are dropped."""
        server = socket.connect_to_server()
        server.on_message(lambda text: None if self.drops_messages else socket.send(text))


def test_end_is_received_after_sleep(users: Users, user: str) -> None:
    proxy = SocketProxy()
    page = users.open(
        ALL,
        user=user,
        clock=True,
        script=COUNT_SOCKETS,
        before=lambda page: page.route_web_socket(re.compile("/progress"), proxy.connect),
    )
    wait_for_connection(page, "websocket")
    upload_id = upload(page, "a.bin", hold=0.5, bar=None)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    proxy.drops_messages = True
    release(page, "a.bin")
    wait_until_completed(page, f"{users.site}/uploads/{upload_id}/progress")
    page.evaluate("dispatchEvent(new Event('online'))")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    proxy.drops_messages = False
    # Longer than the heartbeat timeout: the connection is dead, and another is opened.
    page.clock.run_for(38_000)
    page.wait_for_function("sockets === 2")
    wait_for_connection(page, "websocket")


def wait_until_completed(page: Page, url: str) -> None:
    """Long-poll until the server reports the upload as completed."""
    prefer = {"Prefer": "wait=25"}
    response = page.request.get(url)
    while response.json()["state"] != "completed":
        tag = response.headers["etag"]
        response = page.request.get(url, headers={**prefer, "If-None-Match": tag})


def test_reloaded_page_shows_the_upload(users: Users, user: str) -> None:
    sender, page = (users.open(ALL, user=user) for _ in range(2))
    upload(sender, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))

    page.reload()

    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_cleared_row_does_not_return_after_a_reload(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload(page, "old.bin")
    expect(in_state(page, "old.bin", "completed")).to_be_visible()
    page.evaluate("document.querySelector('upload-progress').clearFinished()")
    upload(page, "new.bin")
    expect(in_state(page, "new.bin", "completed")).to_be_visible()

    # The server still lists both.
    page.reload()

    expect(in_state(page, "new.bin", "completed")).to_be_visible()
    expect(page.locator("upload-progress li")).to_have_count(1)


def test_reloading_the_uploading_page_shows_the_failed_upload(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    # Larger than the socket buffers, so that the page has not sent all of it.
    upload(page, "a.bin", megabytes=20, hold=0.1)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    page.reload()

    release(page, "a.bin")
    expect(in_state(page, "a.bin", "failed")).to_contain_text("The connection broke")
    expect(row(page, "a.bin").get_by_role("button")).to_have_count(0)


def test_page_reconnects_to_a_restarted_server(users: Users, user: str) -> None:
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        context = users.context()
        context.add_cookies([{"name": "user", "value": user, "url": url}])
        page = users.open(ALL, url=url, storage_state=context.storage_state())
        upload(page, "a.bin", megabytes=4, hold=0.1)
        expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    wait_for_connection(page, "lost")
    expect(row(page, "a.bin")).to_contain_text("Interrupted, waiting for the server")
    with run_python_server(*SERVER, str(urlsplit(url).port), cwd=ROOT):
        wait_for_connection(page, "websocket")
        expect(in_state(page, "a.bin", "receiving")).to_contain_text("attempt")
        release(page, "a.bin")
        expect(in_state(page, "a.bin", "completed")).to_be_visible()
        assert events(page, "error") == []


def test_subscription_to_a_future_upload_shows_it_when_it_starts(users: Users, user: str) -> None:
    upload_id = "later-" + "x" * 20
    body = f'<upload-progress src="/uploads" upload-id="{upload_id}"></upload-progress>'
    page = users.open(body, user=user)
    wait_for_connection(page, "websocket")

    url = f"{users.site}/files/later.bin"
    page.request.put(url, data=bytes(100_000), headers={"Upload-Id": upload_id})

    expect(in_state(page, "later.bin", "completed")).to_be_visible()


def test_group_has_a_total(users: Users, user: str) -> None:
    page = users.open('<upload-progress src="/uploads" group="g"></upload-progress>', user=user)
    upload(page, "other.bin", bar=None)

    for name in ("a.bin", "b.bin"):
        upload(page, name, hold=0.5, group="g", bar=None)

    expect(page.locator("upload-progress li")).to_have_count(2)
    total = page.locator("upload-progress .total")
    expect(total).to_contain_text(re.compile(r"0 of 2 uploads.*[5-9]\d%.*of 2\.0 MB", re.DOTALL))
    for name in ("a.bin", "b.bin"):
        release(page, name)
    expect(total).to_contain_text(re.compile(r"2 of 2 uploads.*100%.*Completed", re.DOTALL))


APPLY_OLDER = """
(id) => {
  const client = component.ProgressClient.of("/uploads");
  const known = client.uploads.get(id);
  const shown = () => client.uploads.get(id).bytes_transferred;
  const before = shown();
  client.apply({ ...known, sequence: known.sequence - 1, bytes_transferred: before + 5 });
  client.apply({ ...known, sequence: known.sequence, bytes_transferred: 1 });
  client.apply({ ...known, sequence: known.sequence + 1, bytes_transferred: 1 });
  return [before, shown()];
}
"""


def test_bar_never_decreases(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload_id = upload(page, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_contain_text(re.compile(r"[5-9]\d%"))

    before, after = page.evaluate(APPLY_OLDER, upload_id)
    release(page, "a.bin")

    assert after == before


def test_short_upload_is_shown_only_in_its_final_state(users: Users, user: str) -> None:
    page = users.open(ALL, user=user, clock=True)
    wait_for_connection(page, "websocket")
    page.clock.run_for(1000)
    page.evaluate(RECORD, "short.txt")
    # The clock of the page stands still, so the upload takes no time.
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    page.request.put(f"{users.site}/files/short.txt", data=bytes(100_000))
    expect(page.locator("upload-progress")).to_have_js_property("uploads.0.state", "completed")
    expect(row(page, "short.txt")).to_have_count(0)
    page.clock.run_for(1000)

    expect(in_state(page, "short.txt", "completed")).to_be_visible()
    assert [each["state"] for each in row_states(page)] == ["completed"]
