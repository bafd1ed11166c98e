"""The panel: many uploads in compact rows, with a sum."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import events, in_state, release, row, wait_for_connection
from tests.browser.conftest import Users

PANEL = '<upload-progress src="/uploads" all panel></upload-progress>'
TOTAL = "upload-progress .total"

# Snapshots as the server sends them, without a server.
APPLY = """
([start, end, state, fields]) => {
  const client = component.ProgressClient.of("/uploads");
  const none = ["group", "stage", "percent", "bytes_per_second", "eta_seconds", "arrival", "error"];
  for (let n = start; n < end; n++) client.apply({
    ...Object.fromEntries(none.map((name) => [name, null])), upload_id: `u${n}`,
    filename: `${n}.bin`, total_bytes: 1e6,
    sequence: { pending: 1, receiving: 2 }[state] ?? 3, attempt: 1, stalled: false, state,
    bytes_transferred: { pending: 0, receiving: 500_000 }[state] ?? 1e6,
    created_at: "2026-01-01T12:00:00Z", updated_at: "2026-01-01T12:00:00Z", ...fields,
  });
}
"""
# The shortest time, in milliseconds, in which a batch of snapshots is applied and shown. Other
# processes may take the processor away, so it is measured until a batch fits into a frame.
FRAME_MS = 1000 / 60
FASTEST_BATCH = """
async (most) => {
  const client = component.ProgressClient.of("/uploads");
  let fastest = Infinity;
  for (let batch = 0; batch < 100 && fastest >= most; batch++) {
    const known = [...client.uploads.values()];
    // Callbacks of a frame run in the order of their requests.
    const begin = new Promise((resolve) => requestAnimationFrame(() => resolve(performance.now())));
    const start = performance.now();
    for (const { sequence, bytes_transferred: bytes, ...rest } of known) {
      client.apply({ ...rest, sequence: sequence + 1, bytes_transferred: bytes + 1 });
    }
    const applied = performance.now() - start;
    const end = new Promise((resolve) => requestAnimationFrame(() => {
      document.querySelector("upload-progress").offsetHeight;
      resolve(performance.now());
    }));
    fastest = Math.min(fastest, applied + (await end) - (await begin));
  }
  return fastest;
}
"""
UPLOAD_ALL = """
(urls) => urls.forEach((url, n) => {
  component.upload(new File([new Uint8Array(1e6)], `${n}.bin`), url);
})
"""
FAILED = {"error": {"code": "client_disconnected", "message": ""}}


def apply(page: Page, start: int, end: int, state: str, **fields: object) -> None:
    """Show snapshots of the uploads from *start* to *end* in that state."""
    page.evaluate(APPLY, [start, end, state, fields])


def respond_without_news(page: Page) -> None:
    """Mock the progress of single uploads, which the server does not know."""
    page.route("**/uploads/u*/progress", lambda route: route.fulfill(status=304))


def open_panel(users: Users, user: str, body: str = PANEL, **options: object) -> Page:
    options = {"before": respond_without_news, **options}
    page = users.open(body, user=user, **options)  # type: ignore[arg-type]  # options of Playwright
    wait_for_connection(page, "websocket")
    return page


def names(page: Page) -> list[str]:
    return page.locator("upload-progress .list:not(#ended) li .name").all_text_contents()


def test_running_uploads_are_first_and_ended_ones_collapsed(users: Users, user: str) -> None:
    page = open_panel(users, user)

    page.evaluate(
        UPLOAD_ALL, [f"/files/{{name}}?hold={hold}" for hold in (1.5, 0.5, 1.5, 0.5, 0.5, 1.5)]
    )

    expect(page.locator(TOTAL)).to_contain_text("2 of 6 files")
    expect(page.locator("upload-progress li[data-state=receiving]")).to_have_count(3)
    assert names(page) == ["1.bin", "3.bin", "4.bin", "5.bin"]
    toggle = page.get_by_role("button", name="2 completed")
    expect(toggle).to_have_attribute("aria-expanded", "false")
    toggle.press("Enter")
    expect(page.locator("#ended li .name")).to_have_text(["2.bin", "0.bin"])
    for name in ("1.bin", "3.bin"):
        release(page, name)
    page.get_by_role("button", name="Cancel 4.bin").click()
    expect(page.locator(TOTAL)).to_contain_text("6 files, 5.0 MB, 1 cancelled")
    assert events(page, "error") == ["cancelled"]


def test_sum_counts_failed_and_cancelled_apart_and_retries_failed(users: Users, user: str) -> None:
    page = open_panel(users, user)
    urls = ["/broken/{name}"] * 2 + ["/files/{name}?most=10"] + ["/untracked/{name}"] * 3

    page.evaluate(UPLOAD_ALL, urls)

    expect(page.locator(TOTAL)).to_contain_text("6 files, 3.0 MB, 3 failed")
    expect(in_state(page, "2.bin", "failed")).to_contain_text("Only small files are accepted.")
    assert sorted(names(page)) == ["0.bin", "1.bin", "2.bin"]
    page.route("**/broken/*", lambda route: route.fulfill(body="thanks"))
    page.get_by_role("button", name="Retry failed").click()
    # The file that is too large would be refused again.
    expect(page.locator(TOTAL)).to_contain_text("6 files, 5.0 MB, 1 failed")
    expect(page.get_by_role("button", name="Retry failed")).to_be_hidden()


def test_cancel_all_cancels_queued_and_running_uploads(users: Users, user: str) -> None:
    page = open_panel(users, user)
    page.evaluate(UPLOAD_ALL, ["/files/{name}?hold=0.5"] * 20)
    expect(page.locator("upload-progress li[data-state=receiving]")).to_have_count(3)

    page.get_by_role("button", name="Cancel all").dispatch_event("click", {"detail": 2})
    expect(page.locator(TOTAL)).to_contain_text("0 of 20 files")
    page.get_by_role("button", name="Cancel all").click()

    expect(page.locator(TOTAL)).to_contain_text("20 files, 0 bytes, 20 cancelled")
    # The last request may be given up a moment later than it is shown.
    page.wait_for_function("component.unsent() === 0")


def test_sum_shows_speed_and_time_left_while_something_moves(users: Users, user: str) -> None:
    page = open_panel(users, user, clock=True)
    apply(page, 0, 4, "receiving")
    page.clock.run_for(1000)

    apply(page, 0, 4, "receiving", sequence=4, bytes_transferred=800_000)
    page.clock.run_for(2000)
    expect(page.locator(TOTAL)).to_contain_text(re.compile(r"3\.2 MB of 4\.0 MB.*kB/s.*sec left"))

    page.clock.run_for(8000)
    expect(page.locator(TOTAL)).not_to_contain_text("left")


def test_sum_is_shown_as_interrupted_while_the_server_does_not_respond(
    users: Users, user: str
) -> None:
    page = open_panel(users, user)
    apply(page, 0, 4, "receiving")
    expect(page.locator(TOTAL)).to_have_attribute("data-state", "receiving")

    page.evaluate("""() => {
      const client = component.ProgressClient.of("/uploads");
      client.connection = "lost";
      client.emit("connection");
    }""")

    expect(page.locator(TOTAL)).to_contain_text("Interrupted, waiting for the server")
    expect(page.locator(TOTAL)).to_have_attribute("data-state", "paused")


@pytest.mark.parametrize("width", [360, 900])
def test_five_hundred_uploads_fit_on_a_screen_and_in_a_frame(
    users: Users, user: str, width: int
) -> None:
    screen = {"width": width, "height": 740}
    page = open_panel(users, user, viewport=screen)
    apply(page, 0, 500, "pending")
    apply(page, 0, 100, "completed")
    apply(page, 100, 103, "receiving")
    expect(page.locator(TOTAL)).to_contain_text("100 of 500 files")
    page.get_by_role("button", name="100 completed").click()

    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("upload-progress li").count() < 60
    assert page.evaluate(FASTEST_BATCH, FRAME_MS) < FRAME_MS
    page.locator(".list:not(#ended)").evaluate("(list) => list.scrollTo(0, 1e6)")
    expect(row(page, "499.bin")).to_be_in_viewport()
    expect(row(page, "499.bin")).to_have_attribute("aria-posinset", "400")


def test_cleared_uploads_stay_cleared(users: Users, user: str) -> None:
    page = open_panel(users, user)
    page.evaluate(UPLOAD_ALL, ["/files/{name}"] * 3)
    expect(page.locator(TOTAL)).to_contain_text("3 files, 3.0 MB")

    page.get_by_role("button", name="Clear finished").click()
    expect(page.locator("upload-progress .frame")).to_be_hidden()
    page.evaluate("document.querySelector('upload-progress').lang = 'de'")
    page.evaluate(UPLOAD_ALL, ["/files/{name}?hold=0.5"])
    expect(page.locator(TOTAL)).to_contain_text("0 von 1 Dateien")
    assert names(page) == ["0.bin"]
    release(page, "0.bin")
    expect(page.get_by_role("button", name="1 fertig")).to_be_visible()

    # The server still lists all four.
    page.reload()
    page.get_by_role("button", name="1 completed").click()
    expect(page.locator("#ended li")).to_have_count(1)


def test_rows_stay_in_place_under_the_pointer_and_with_the_focus(users: Users, user: str) -> None:
    page = open_panel(users, user, clock=True)
    apply(page, 0, 9, "receiving")
    page.clock.run_for(100)
    row(page, "1.bin").hover()
    apply(page, 0, 3, "completed")
    page.clock.run_for(1000)
    assert names(page)[:3] == ["0.bin", "1.bin", "2.bin"]

    page.mouse.move(0, 0)
    page.clock.run_for(100)
    assert names(page)[:3] == ["3.bin", "4.bin", "5.bin"]

    page.keyboard.press("Tab")
    row(page, "5.bin").get_by_role("button").focus()
    apply(page, 3, 6, "completed")
    page.clock.run_for(1000)
    expect(row(page, "5.bin")).to_have_attribute("data-state", "completed")
    expect(row(page, "5.bin")).to_be_focused()
    page.get_by_role("button", name="Cancel all").focus()
    page.clock.run_for(100)
    assert names(page) == ["6.bin", "7.bin", "8.bin"]


def test_panel_begins_beyond_the_number_of_its_attribute(users: Users, user: str) -> None:
    page = open_panel(users, user, PANEL.replace("panel", 'panel="3"'))

    apply(page, 0, 3, "receiving")
    expect(page.locator("upload-progress li")).to_have_count(3)
    assert page.locator("upload-progress .frame").count() == 0
    apply(page, 3, 4, "receiving")

    expect(page.locator("upload-progress .frame li")).to_have_count(4)
    page.evaluate("document.querySelector('upload-progress').removeAttribute('panel')")
    expect(page.locator("upload-progress > .frame")).to_have_count(0)
    expect(page.locator("upload-progress li")).to_have_count(4)


def test_uploads_stay_in_a_list_without_the_module(users: Users, user: str) -> None:
    def refuse(page: Page) -> None:
        page.route("**/panel.js*", lambda route: route.abort())

    page = open_panel(users, user, before=refuse)
    apply(page, 0, 3, "receiving")

    expect(page.locator("upload-progress li")).to_have_count(3)


def test_announcements_are_few(users: Users, user: str) -> None:
    page = open_panel(users, user, clock=True)
    # From now on, no time passes but that of run_for.
    now = page.evaluate("Date.now()") / 1000
    page.clock.pause_at(datetime.fromtimestamp(now + 1, tz=UTC))
    apply(page, 0, 60, "pending")
    apply(page, 0, 20, "completed")
    apply(page, 20, 21, "failed", **FAILED)
    apply(page, 21, 22, "cancelled")
    apply(page, 22, 24, "receiving")
    page.clock.run_for(1000)
    status = page.locator("upload-progress .status")
    expect(status).to_have_text(re.compile("20 of 60 files, 3.%, 1 failed"))
    apply(page, 22, 40, "completed")
    page.clock.run_for(100)
    expect(status).to_have_text(re.compile("20 of 60 files"))
    page.clock.run_for(6000)
    expect(status).to_have_text(re.compile("38 of 60 files, 6.%, 1 failed"))
    apply(page, 40, 60, "completed")
    page.clock.run_for(1000)
    expect(status).to_have_text("60 files, 58.0 MB, 1 failed, 1 cancelled")


# --- right to left --------------------------------------------------------------------------------

# The places of the first and last character of a text, and the end of the box around it.
PLACES = """
(node) => {
  const text = document.createTreeWalker(node, NodeFilter.SHOW_TEXT).nextNode();
  const place = (start) => {
    const range = document.createRange();
    range.setStart(text, start);
    range.setEnd(text, start + 1);
    return range.getBoundingClientRect();
  };
  const box = node.getBoundingClientRect();
  return [place(0).left, place(text.length - 1).right, box.left, box.right].map(Math.round);
}
"""


@pytest.mark.parametrize("attributes", ["all", "all panel"])
def test_english_texts_in_a_page_from_right_to_left(
    users: Users, user: str, attributes: str
) -> None:
    body = f'<div dir="rtl"><upload-progress src="/uploads" {attributes}></upload-progress></div>'
    page = users.open(body, user=user)
    wait_for_connection(page, "websocket")
    page.evaluate(APPLY, [0, 2, "receiving", {}])
    page.evaluate(APPLY, [2, 4, "completed", {}])
    expect(row(page, "0.bin")).to_be_visible()

    page.evaluate("document.querySelector('upload-progress').note('hidden')")
    names = page.locator(f"{TOTAL} .name, upload-progress .note")
    texts = [row(page, "0.bin").locator(".name"), *names.all()]
    assert len(texts) == 3
    for left, right, _, end in (text.evaluate(PLACES) for text in texts):
        # In their own order, and at the right.
        assert left < right
        assert right == end
    for left, right, *_ in (text.evaluate(PLACES) for text in page.locator(".toggle").all()):
        assert left < right
