"""Files that a page sends: what is shown of them, and what can be done with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import events, in_state, is_connected, release, row, send
from tests.browser.conftest import People

ALL = '<upload-progress src="/uploads" all></upload-progress>'
FORM = """
<form id="form" method="post" action="/files/form?hold=0.5" enctype="multipart/form-data"
  data-upload-progress{attributes}>
  <input type="file" name="file" multiple aria-label="Files">
  <button>Send</button>
</form>
"""
DROP = """
([selector, names]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File([new Uint8Array(1000)], name));
  const target = document.querySelector(selector);
  const tell = (type) => target.dispatchEvent(
    new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  tell("dragover");
  const isShown = document.querySelector("form").hasAttribute("data-dragging");
  tell("drop");
  return isShown;
}
"""
END = "async () => (await transfer.done).state"


def a_file(folder: Path, name: str, size_bytes: int = 1_000_000) -> Path:
    path = folder / name
    path.write_bytes(bytes(size_bytes))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.get_by_label("Files").set_input_files([str(path) for path in paths])


# --- the function ---------------------------------------------------------------------------------


def test_both_truths_are_shown_where_they_differ(people: People, user: str) -> None:
    page = people.open(ALL, user=user)

    send(page, "a.bin", megabytes=4, hold=0.01)

    expect(in_state(page, "a.bin", "receiving")).to_contain_text(
        re.compile(r"\d+\.\d (kB|MB) of 4\.0 MB.*\d+\.\d MB sent")
    )
    release(page, "a.bin")
    expect(in_state(page, "a.bin", "completed")).not_to_contain_text("sent")


def test_a_cancelled_upload_stops(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    send(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    with page.expect_event("requestfailed", lambda request: request.method == "PUT"):
        row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()

    expect(in_state(page, "a.bin", "cancelled")).to_contain_text("Cancelled")
    expect(row(page, "a.bin")).to_be_focused()
    assert page.evaluate(END) == "cancelled"
    assert page.evaluate("component.unsent()") == 0
    assert events(page, "error") == ["cancelled"]


def test_a_cancelled_upload_can_be_sent_again(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    upload_id = send(page, "a.bin", megabytes=4, hold=0.01)
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    row(page, "a.bin").get_by_role("button", name="Cancel a.bin").click()

    row(page, "a.bin").get_by_role("button", name="Retry a.bin").click()
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    expect(page.locator("upload-progress li")).to_have_count(1)
    assert page.evaluate("transfer.id") == upload_id
    assert page.evaluate(END) == "completed"


def test_a_refusal_is_shown_with_its_reason(people: People, user: str) -> None:
    page = people.open(ALL, user=user)

    send(page, "large.bin", url="/files/{name}?most=1000")

    refused = in_state(page, "large.bin", "failed")
    expect(refused).to_contain_text("Only small files are taken here.")
    expect(refused.get_by_role("button", name="Retry large.bin")).to_be_visible()
    assert page.evaluate(END) == "failed"
    assert events(page, "error") == ["failed"]


def test_what_the_server_does_not_track_ends_by_its_answer(people: People, user: str) -> None:
    page = people.open(ALL, user=user)

    send(page, "a.bin", url="/untracked/{name}")
    send(page, "b.bin", url="/broken/{name}")

    expect(in_state(page, "a.bin", "completed")).to_contain_text("1.0 MB")
    expect(in_state(page, "b.bin", "failed")).to_contain_text("HTTP 500")


def test_a_server_that_is_not_there_is_said(people: People, user: str) -> None:
    def cut(page: Page) -> None:
        page.route("**/files/*", lambda route: route.abort())

    page = people.open(ALL, user=user, before=cut)

    send(page, "a.bin")

    expect(in_state(page, "a.bin", "failed")).to_contain_text(
        "The file is unreadable, or the server"
    )
    page.unroute("**/files/*")
    row(page, "a.bin").get_by_role("button", name="Retry a.bin").click()
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_fifty_files_wait_for_their_turn(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    for number in range(3):
        send(page, f"{number}.bin", hold=0.5)
    for number in range(3, 50):
        send(page, f"{number}.bin", megabytes=0.02)

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


def test_a_file_goes_as_a_form_where_that_is_asked_for(people: People, user: str) -> None:
    page = people.open(ALL, user=user)

    with page.expect_request("**/files/*") as sent:
        send(page, "a.bin", field="attachment", headers={"X-Mine": "1"}, group="g")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    headers = sent.value.headers
    assert sent.value.method == "POST"
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert headers["x-mine"] == "1"
    assert headers["upload-group"] == "g"


# --- who may --------------------------------------------------------------------------------------


def test_a_token_goes_with_every_request_and_a_ticket_with_the_socket(
    people: People, user: str
) -> None:
    sockets: list[str] = []
    script = (
        f'component.authorize("/uploads", {{ headers: {{ Authorization: "Bearer {user}" }} }});'
    )

    def listen(page: Page) -> None:
        page.on("websocket", lambda socket: sockets.append(socket.url))

    page = people.open(ALL, script=script, before=listen)
    is_connected(page, by="websocket")
    send(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert "?ticket=" in sockets[-1]
    assert user not in "".join(sockets)


def test_who_is_not_signed_in_is_told(people: People, user: str) -> None:
    page = people.open(ALL)

    is_connected(page, by="denied")
    expect(page.locator("upload-progress")).to_contain_text("Sign in to see your uploads.")
    assert page.evaluate("seen") == [["unauthorized", None]]
    page.evaluate(
        "(user) => component.authorize('/uploads', { headers: () => "
        "({ Authorization: `Bearer ${user}` }) })",
        user,
    )
    is_connected(page, by="websocket")


def test_whoever_knows_an_id_may_follow_where_that_is_the_rule(people: People) -> None:
    page = people.open('<upload-progress src="/open"></upload-progress>')
    other = people.open("")
    upload_id = send(page, "a.bin", hold=0.5, url="/open-files/{name}")
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    body = "document.querySelector('main').innerHTML"
    bar = f"<upload-progress src='/open' upload-id='{upload_id}'></upload-progress>"
    other.evaluate(f'() => {{ {body} = "{bar}" }}')
    is_connected(other, by="websocket")
    expect(in_state(other, "a.bin", "receiving")).to_be_visible()
    release(page, "a.bin")

    expect(in_state(other, "a.bin", "completed")).to_be_visible()
    expect(in_state(page, "a.bin", "completed")).to_be_visible()


# --- forms ----------------------------------------------------------------------------------------


def test_a_form_is_sent_as_a_browser_would_and_has_a_bar(
    people: People, user: str, tmp_path: Path
) -> None:
    page = people.open(FORM.format(attributes=""), user=user)
    choose(page, a_file(tmp_path, "a.bin"))

    with page.expect_request("**/files/form*") as sent:
        page.get_by_role("button", name="Send").click()
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()
    release(page, "form")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    assert "multipart/form-data" in sent.value.headers["content-type"]
    page.wait_for_function("seen.some(([name]) => name === 'uploaded')")
    assert page.url.endswith("/page")


def test_a_form_leads_where_its_answer_leads(people: People, user: str, tmp_path: Path) -> None:
    form = FORM.format(attributes="").replace("hold=0.5", "then=/thanks")
    page = people.open(form, user=user)
    choose(page, a_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Send").click()

    expect(page).to_have_url(re.compile("/thanks$"))


def test_a_form_of_separate_files_sends_each_where_it_says(
    people: People, user: str, tmp_path: Path
) -> None:
    attributes = '="#bar" data-upload-url="/files/{name}" data-upload-auto data-upload-limit="1"'
    form = FORM.replace("{attributes}", attributes)
    page = people.open(
        f'{form}<upload-progress id="bar" src="/uploads"></upload-progress>', user=user
    )

    choose(page, a_file(tmp_path, "a.bin"), a_file(tmp_path, "b ü.bin"))

    for name in ("a.bin", "b ü.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()
    page.wait_for_function("seen.some(([name]) => name === 'uploaded')")
    assert page.get_by_label("Files").input_value() == ""


@pytest.mark.parametrize("where", ["form", "[data-upload-drop] h2"])
def test_files_are_dropped_on_a_form_or_around_it(people: People, user: str, where: str) -> None:
    form = FORM.replace("{attributes}", ' data-upload-url="/files/{name}"')
    page = people.open(f"<section data-upload-drop><h2>Drop here</h2>{form}</section>", user=user)

    is_shown = page.evaluate(DROP, [where, ["a.bin", "b.bin"]])

    assert is_shown
    for name in ("a.bin", "b.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()
    expect(page.locator("form")).not_to_have_attribute("data-dragging", "")


def test_a_form_that_waits_for_its_button_takes_what_is_dropped(people: People, user: str) -> None:
    page = people.open(FORM.format(attributes=""), user=user)

    page.evaluate(DROP, ["form", ["a.bin"]])

    assert page.get_by_label("Files").evaluate("(input) => input.files[0].name") == "a.bin"
    expect(page.locator("upload-progress")).to_have_count(0)
