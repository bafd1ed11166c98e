"""Uploads from a page: by script, by form, by drag and drop; cancel and retry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

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
from tests.browser.conftest import Users

ALL = '<upload-progress src="/uploads" all></upload-progress>'
FORM = """
<form id="form" method="post" action="/files/form?hold=0.5" enctype="multipart/form-data"
  data-upload-progress{attributes}>
  <input type="file" name="file" multiple aria-label="Files">
  <button>Upload</button>
</form>
"""
DROP = """
([selector, names]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File([new Uint8Array(1000)], name));
  const target = document.querySelector(selector);
  const dispatch = (type) => target.dispatchEvent(
    new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  dispatch("dragover");
  const isShown = document.querySelector("form").hasAttribute("data-dragging");
  dispatch("drop");
  return isShown;
}
"""
# A snapshot that arrives by the socket.
NEWER = """() => {
  const client = component.ProgressClient.of("/uploads");
  const known = client.uploads.get(transfer.id);
  client.apply({ ...known, sequence: known.sequence + 1 });
}"""
FINAL_STATE = "async () => (await transfer.done).state"


def make_file(folder: Path, name: str, size_bytes: int = 1_000_000) -> Path:
    path = folder / name
    path.write_bytes(bytes(size_bytes))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.get_by_label("Files").set_input_files([str(path) for path in paths])


def center(button: Locator) -> tuple[float, float]:
    """Return the middle of a button, where a pointer presses it."""
    box = button.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# --- upload() -------------------------------------------------------------------------------------


def test_sent_and_received_bytes_are_shown_if_they_differ(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    upload(page, "a.bin", megabytes=4, hold=0.01)

    expect(in_state(page, "a.bin", "receiving")).to_contain_text(
        re.compile(r"\d+\.\d (kB|MB) of 4\.0 MB.*\d+\.\d MB sent")
    )
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).not_to_contain_text("sent")


def test_cancel_stops_the_request(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    with page.expect_event("requestfailed", lambda request: request.method == "PUT"):
        row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()

    expect(in_state(page, "a.bin", "cancelled")).to_contain_text("Cancelled")
    expect(row(page, "a.bin")).to_be_focused()
    assert page.evaluate(FINAL_STATE) == "cancelled"
    assert page.evaluate("component.unsent()") == 0
    assert events(page, "error") == ["cancelled"]


def test_cancel_stops_the_request_although_the_server_does_not_answer(
    users: Users, user: str
) -> None:
    page = users.open(ALL, user=user, clock=True)
    upload(page, "a.bin", megabytes=4, hold=0.01)
    page.clock.run_for(500)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    page.route("**/uploads/*", lambda route: None)

    with page.expect_event("requestfailed", lambda request: request.method == "PUT"):
        row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()
        # AbortSignal.timeout() is not part of the clock of the page.
        page.clock.run_for(500)


def test_cancelled_upload_can_be_retried(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload_id = upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()

    row(page, "a.bin").get_by_role("button", name="Retry a.bin").click()
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    expect(page.locator("upload-progress li")).to_have_count(1)
    assert page.evaluate("transfer.id") == upload_id
    assert page.evaluate(FINAL_STATE) == "completed"


@pytest.mark.parametrize("width", [390, 900])
def test_cancel_and_retry_never_take_the_place_of_each_other(
    users: Users, user: str, width: int
) -> None:
    page = users.open(ALL, user=user, viewport={"width": width, "height": 700})
    upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    cancel = center(row(page, "a.bin").get_by_role("button", name="Cancel a.bin"))

    page.mouse.click(*cancel)
    retry_button = row(page, "a.bin").get_by_role("button", name="Retry a.bin")
    expect(retry_button).to_be_visible()
    retry = center(retry_button)
    page.mouse.click(*cancel)
    expect(in_state(page, "a.bin", "cancelled")).to_be_visible()

    page.mouse.click(*retry)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    page.mouse.click(*retry)
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert events(page, "error") == ["cancelled"]


def test_second_click_of_a_double_click_does_not_press_another_button(
    users: Users, user: str
) -> None:
    page = users.open(ALL, user=user)
    upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    cancel, retry = (row(page, "a.bin").locator(one) for one in (".cancel", ".retry"))

    # What a browser sends for the second click, wherever the button is by then.
    cancel.dispatch_event("click", {"detail": 2})
    cancel.dispatch_event("click", {"detail": 1})
    expect(in_state(page, "a.bin", "cancelled")).to_be_visible()
    retry.dispatch_event("click", {"detail": 2})

    assert events(page, "statechange").count("cancelled") == 1
    expect(in_state(page, "a.bin", "cancelled")).to_be_visible()
    assert page.evaluate("component.unsent()") == 0


def test_rejected_upload_shows_the_reason(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    upload(page, "large.bin", url="/files/{name}?most=1000")

    rejected = in_state(page, "large.bin", "failed")
    expect(rejected).to_contain_text("Only small files are accepted.")
    # It would be rejected again.
    expect(rejected.get_by_role("button")).to_have_count(0)
    assert page.evaluate(FINAL_STATE) == "failed"
    assert events(page, "error") == ["failed"]


def test_untracked_upload_ends_with_its_response(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    upload(page, "a.bin", url="/untracked/{name}")
    upload(page, "b.bin", url="/broken/{name}")

    expect(in_state(page, "a.bin", "completed")).to_contain_text("1.0 MB")
    expect(in_state(page, "b.bin", "failed")).to_contain_text("HTTP 500")


def test_upload_is_sent_again_by_itself_when_its_request_fails(users: Users, user: str) -> None:
    def abort(page: Page) -> None:
        page.route("**/files/*", lambda route: route.abort())

    page = users.open(ALL, user=user, before=abort)

    upload(page, "a.bin")

    expect(row(page, "a.bin")).to_contain_text("Interrupted, waiting for the server")
    expect(row(page, "a.bin").get_by_role("button", name="Cancel a.bin")).to_be_visible()
    assert page.evaluate("component.unsent()") == 1
    page.unroute("**/files/*")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert page.evaluate(FINAL_STATE) == "completed"
    assert events(page, "error") == []


def test_interrupted_upload_can_be_cancelled(users: Users, user: str) -> None:
    def abort(page: Page) -> None:
        page.route("**/files/*", lambda route: route.abort())

    page = users.open(ALL, user=user, before=abort)
    upload(page, "a.bin")
    expect(row(page, "a.bin")).to_contain_text("Interrupted, waiting for the server")

    row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()

    expect(in_state(page, "a.bin", "cancelled")).to_be_visible()
    assert page.evaluate(FINAL_STATE) == "cancelled"
    assert page.evaluate("component.unsent()") == 0


def test_cut_connection_starts_the_next_attempt(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload_id = upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    page.evaluate(RECORD, "a.bin")

    # For the server as for the page, the connection breaks.
    page.evaluate("transfer.request.abort()")

    attempt = in_state(page, "a.bin", "receiving").filter(has_text="attempt 2")
    expect(attempt).to_be_visible()
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    texts = list(dict.fromkeys(each["text"] for each in row_states(page)))
    assert texts == ["Interrupted, waiting for the server", "Receiving", "Completed"]
    assert page.evaluate("transfer.id") == upload_id
    assert events(page, "error") == []
    expect(page.locator("upload-progress li")).to_have_count(1)


def test_upload_is_sent_again_after_a_gateway_error(users: Users, user: str) -> None:
    def refuse(page: Page) -> None:
        page.route("**/files/*", lambda route: route.fulfill(status=503), times=1)

    page = users.open(ALL, user=user, before=refuse)

    upload(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert page.evaluate("transfer.attempts") == 2
    assert events(page, "error") == []


def test_form_that_was_sent_whole_is_not_sent_again_by_itself(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    # The server has all, and does not answer.
    upload(page, "a.bin", field="attachment", hold=1)
    expect(in_state(page, "a.bin", "processing")).to_be_visible()

    page.evaluate("transfer.request.abort()")
    release(page, "a.bin")

    assert page.evaluate(FINAL_STATE) in {"completed", "failed"}
    assert page.evaluate("transfer.attempts") == 1


def test_unreadable_file_is_not_sent_again(users: Users, user: str, tmp_path: Path) -> None:
    form = FORM.replace("{attributes}", ' data-upload-url="/files/{name}"')
    page = users.open(form, user=user)
    path = make_file(tmp_path, "a.bin")
    choose(page, path)
    path.unlink()

    page.get_by_role("button", name="Upload").click()

    expect(in_state(page, "a.bin", "failed")).to_contain_text("The file cannot be read")
    assert page.evaluate("component.unsent()") == 0


def test_server_that_is_silent_is_said_in_the_row(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    # The requests of the page are not answered.
    page.route("**/progress", lambda route: None)

    expect(row(page, "a.bin")).to_contain_text("Interrupted, waiting for the server")

    page.unroute("**/progress")
    expect(row(page, "a.bin")).to_contain_text("Receiving")
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_late_404_does_not_interrupt_an_upload_that_the_server_knows_by_now(
    users: Users, user: str
) -> None:
    page = users.open(ALL, user=user)
    upload_id = upload(page, "a.bin", hold=0.5)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    def answer_late(route: Route) -> None:
        page.evaluate(NEWER)
        route.fulfill(status=404)

    page.route(f"**/{upload_id}/progress", answer_late, times=1)
    assert page.evaluate("component.ProgressClient.of('/uploads').refresh(transfer.id)") is True

    assert page.evaluate("transfer.isInterrupted") is False
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert page.evaluate("transfer.attempts") == 1


def test_fifty_files_are_queued(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    for number in range(3):
        upload(page, f"{number}.bin", hold=0.5)
    for number in range(3, 50):
        upload(page, f"{number}.bin", megabytes=0.02)

    expect(page.locator("upload-progress li")).to_have_count(50)
    expect(page.locator("upload-progress li[data-state=receiving]")).to_have_count(3)
    assert page.evaluate("component.unsent()") == 50
    names = page.locator("upload-progress li .name").all_text_contents()
    expect(page.locator("upload-progress .total")).to_contain_text("0 of 50 uploads")
    row(page, "49.bin").get_by_role("button").click()
    for number in range(3):
        release(page, f"{number}.bin")

    expect(page.locator("upload-progress li[data-state=completed]")).to_have_count(49)
    expect(page.locator("upload-progress .total")).to_be_hidden()
    assert sorted(names) == sorted(f"{number}.bin" for number in range(50))
    assert len(events(page, "complete")) == 49
    page.evaluate("document.querySelector('upload-progress').clearFinished()")
    expect(page.locator("upload-progress li")).to_have_count(0)


def test_field_option_uploads_a_form(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)

    with page.expect_request("**/files/*") as sent:
        upload(page, "a.bin", field="attachment", headers={"X-Mine": "1"}, group="g")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    headers = sent.value.headers
    assert sent.value.method == "POST"
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert headers["x-mine"] == "1"
    assert headers["upload-group"] == "g"


# --- authentication -------------------------------------------------------------------------------


def test_token_is_sent_with_requests_and_a_ticket_with_the_socket(users: Users, user: str) -> None:
    sockets: list[str] = []
    script = (
        f'component.authorize("/uploads", {{ headers: {{ Authorization: "Bearer {user}" }} }});'
    )

    def record_sockets(page: Page) -> None:
        page.on("websocket", lambda socket: sockets.append(socket.url))

    page = users.open(ALL, script=script, before=record_sockets)
    wait_for_connection(page, "websocket")
    upload(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert "?ticket=" in sockets[-1]
    assert user not in "".join(sockets)


def test_unauthenticated_user_is_asked_to_sign_in(users: Users, user: str) -> None:
    page = users.open(ALL)

    wait_for_connection(page, "unauthorized")
    expect(page.locator("upload-progress")).to_contain_text("Sign in to see your uploads.")
    assert page.evaluate("events") == [["unauthorized", None]]
    page.evaluate(
        "(user) => component.authorize('/uploads', { headers: () => "
        "({ Authorization: `Bearer ${user}` }) })",
        user,
    )
    wait_for_connection(page, "websocket")


def test_capability_allows_everyone_with_the_id(users: Users) -> None:
    page = users.open('<upload-progress src="/open"></upload-progress>')
    other = users.open("")
    upload_id = upload(page, "a.bin", hold=0.5, url="/open-files/{name}")
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    body = "document.querySelector('main').innerHTML"
    bar = f"<upload-progress src='/open' upload-id='{upload_id}'></upload-progress>"
    other.evaluate(f'() => {{ {body} = "{bar}" }}')
    wait_for_connection(other, "websocket")
    expect(in_state(other, "a.bin", "receiving")).to_be_visible()
    release(page, "a.bin")

    expect(in_state(other, "a.bin", "completed")).to_be_visible()
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


# --- forms ----------------------------------------------------------------------------------------


def test_form_is_uploaded_as_by_the_browser_with_a_bar(
    users: Users, user: str, tmp_path: Path
) -> None:
    page = users.open(FORM.format(attributes=""), user=user)
    choose(page, make_file(tmp_path, "a.bin"))

    with page.expect_request("**/files/form*") as sent:
        page.get_by_role("button", name="Upload").click()
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    release(page, "form")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert "multipart/form-data" in sent.value.headers["content-type"]
    page.wait_for_function("events.some(([name]) => name === 'uploaded')")
    assert page.url.endswith("/page")


def test_form_follows_the_redirect_of_its_response(users: Users, user: str, tmp_path: Path) -> None:
    form = FORM.format(attributes="").replace("hold=0.5", "then=/thanks")
    page = users.open(form, user=user)
    choose(page, make_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Upload").click()

    expect(page).to_have_url(re.compile("/thanks$"))


def test_form_with_upload_url_uploads_each_file(users: Users, user: str, tmp_path: Path) -> None:
    attributes = '="#bar" data-upload-url="/files/{name}" data-upload-auto data-upload-limit="1"'
    form = FORM.replace("{attributes}", attributes)
    page = users.open(
        f'{form}<upload-progress id="bar" src="/uploads"></upload-progress>', user=user
    )

    choose(page, make_file(tmp_path, "a.bin"), make_file(tmp_path, "b ü.bin"))

    for name in ("a.bin", "b ü.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()
    page.wait_for_function("events.some(([name]) => name === 'uploaded')")
    assert page.get_by_label("Files").input_value() == ""


@pytest.mark.parametrize("selector", ["form", "[data-upload-drop] h2"])
def test_files_can_be_dropped_on_a_form_or_its_drop_area(
    users: Users, user: str, selector: str
) -> None:
    form = FORM.replace("{attributes}", ' data-upload-url="/files/{name}"')
    page = users.open(f"<section data-upload-drop><h2>Drop here</h2>{form}</section>", user=user)

    is_shown = page.evaluate(DROP, [selector, ["a.bin", "b.bin"]])

    assert is_shown
    for name in ("a.bin", "b.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()
    expect(page.locator("form")).not_to_have_attribute("data-dragging", "")


def test_drop_on_a_form_without_upload_url_selects_the_files(users: Users, user: str) -> None:
    page = users.open(FORM.format(attributes=""), user=user)

    page.evaluate(DROP, ["form", ["a.bin"]])

    assert page.get_by_label("Files").evaluate("(input) => input.files[0].name") == "a.bin"
    expect(page.locator("upload-progress")).to_have_count(0)
