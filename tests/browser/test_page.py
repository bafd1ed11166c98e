"""What a person sees: bars that grow by the server's word, and what can be done with them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Curl, SignedIn
from tests.demo_process import DemoProcess, running_demo

expect.set_options(timeout=20_000)

# Writes down each different look of a row, frame by frame.
RECORDER = """
(name) => {
  window.looks = [];
  const bars = document.querySelector("upload-progress").shadowRoot;
  const look = () => {
    const row = [...bars.querySelectorAll("li")].find(
      (one) => one.querySelector(".name").textContent === name);
    if (row) {
      const thin = row.querySelector(".stage:not([hidden]) .thin");
      const seen = JSON.stringify({
        state: row.dataset.state,
        words: row.querySelector(".facts b").textContent,
        now: Number(row.querySelector(".bar").getAttribute("aria-valuenow")),
        stage: thin && Number(thin.getAttribute("aria-valuenow")),
      });
      if (window.looks.at(-1) !== seen) window.looks.push(seen);
    }
    requestAnimationFrame(look);
  };
  look();
}
"""


def file_of(folder: Path, name: str, megabytes: float) -> Path:
    path = folder / name
    path.write_bytes(bytes(int(megabytes * 1_000_000)))
    return path


def row(page: Page, name: str) -> Locator:
    return page.locator("upload-progress li", has_text=name)


def in_state(page: Page, name: str, state: str) -> Locator:
    return page.locator(f'upload-progress li[data-state="{state}"]', has_text=name)


def choose(page: Page, *paths: Path) -> None:
    page.locator("#files").set_input_files([str(path) for path in paths])


def looks(page: Page) -> list[dict[str, object]]:
    return [json.loads(text) for text in page.evaluate("window.looks")]


def test_a_bar_grows_step_by_step_to_the_end(signed_in: SignedIn, tmp_path: Path) -> None:
    page = signed_in("alice")
    page.evaluate(RECORDER, "twenty.bin")
    twenty = file_of(tmp_path, "twenty.bin", 20)

    choose(page, twenty)
    expect(in_state(page, "twenty.bin", "completed")).to_be_visible()

    seen = looks(page)
    states = list(dict.fromkeys(look["state"] for look in seen))
    received = [look["now"] for look in seen if look["state"] == "receiving"]
    hashed = [look["stage"] for look in seen if look["words"] == "Hashing"]
    assert states[-3:] == ["receiving", "processing", "completed"]
    assert received == sorted(received, key=float)  # type: ignore[arg-type]  # numbers
    assert len(set(received)) >= 8
    assert hashed == sorted(hashed, key=float)  # type: ignore[arg-type]  # numbers
    assert len(set(hashed)) >= 4
    assert seen[-1]["now"] == 100
    checksum = page.locator("#received li", has_text="twenty.bin").locator(".sha")
    expect(checksum).to_have_text(f"sha256 {hashlib.sha256(twenty.read_bytes()).hexdigest()}")


def test_a_cancelled_upload_stops_and_leaves_no_file(signed_in: SignedIn, tmp_path: Path) -> None:
    page = signed_in("alice")
    choose(page, file_of(tmp_path, "unwanted.bin", 60))
    expect(in_state(page, "unwanted.bin", "receiving")).to_be_visible()

    page.get_by_role("button", name="Cancel unwanted.bin").press("Enter")

    expect(in_state(page, "unwanted.bin", "cancelled")).to_contain_text("Cancelled")
    expect(row(page, "unwanted.bin").get_by_role("button")).to_be_hidden()
    expect(row(page, "unwanted.bin")).to_be_focused()
    expect(page.get_by_text("No file has been received yet.")).to_be_visible()


def test_an_upload_from_a_terminal_appears_by_itself(
    signed_in: SignedIn, curl: Curl, demo: DemoProcess, tmp_path: Path
) -> None:
    page = signed_in("alice")
    path = file_of(tmp_path, "terminal.bin", 8)

    sent = curl("--upload-file", str(path), f"{demo.url}/files/")

    expect(in_state(page, "terminal.bin", "receiving")).to_be_visible()
    expect(in_state(page, "terminal.bin", "completed")).to_be_visible()
    expect(page.get_by_role("link", name="terminal.bin")).to_be_visible()
    assert sent.wait() == 0


def test_another_user_sees_nothing_of_it(signed_in: SignedIn, tmp_path: Path) -> None:
    alice, bob = signed_in("alice"), signed_in("bob")
    choose(alice, file_of(tmp_path, "secret.bin", 8))
    expect(in_state(alice, "secret.bin", "receiving")).to_be_visible()
    upload_id = row(alice, "secret.bin").get_attribute("data-upload-id")

    answers = [
        bob.request.get(f"{bob.url}uploads/{name}/progress") for name in (upload_id, "unknown")
    ]
    expect(in_state(alice, "secret.bin", "completed")).to_be_visible()

    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].body() == answers[1].body()
    expect(bob.get_by_text("Nothing is being uploaded.")).to_be_visible()
    expect(bob.get_by_text("No file has been received yet.")).to_be_visible()
    assert "secret.bin" not in bob.content()


def test_a_short_upload_is_shown_once_as_it_ended(signed_in: SignedIn, tmp_path: Path) -> None:
    page = signed_in("alice", clock=True)
    page.evaluate(RECORDER, "short.txt")
    # From here on no time passes in the page: that is how short the upload is.
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    with page.expect_event("requestfinished", lambda request: request.method == "PUT"):
        choose(page, file_of(tmp_path, "short.txt", 0.01))
    expect(page.locator("upload-progress")).to_have_js_property("uploads.0.state", "completed")
    expect(row(page, "short.txt")).to_have_count(0)
    page.clock.run_for(1000)

    expect(in_state(page, "short.txt", "completed")).to_be_visible()
    assert [look["state"] for look in looks(page)] == ["completed"]


def test_without_a_socket_the_page_asks_instead(signed_in: SignedIn, tmp_path: Path) -> None:
    broken = """
      window.WebSocket = class {
        constructor() { setTimeout(() => this.onclose({ code: 1006 }), 0); }
        close() {}
      };
    """
    page = signed_in("alice", script=broken)
    page.evaluate(RECORDER, "asked.bin")
    expect(page.locator("upload-progress")).to_have_attribute("data-connection", "polling")

    choose(page, file_of(tmp_path, "asked.bin", 16))
    expect(in_state(page, "asked.bin", "completed")).to_be_visible()

    assert len({look["now"] for look in looks(page)}) >= 3


def test_an_unknown_size_has_no_percentage(
    signed_in: SignedIn, curl: Curl, demo: DemoProcess
) -> None:
    page = signed_in("alice")
    sent = curl("--upload-file", "-", f"{demo.url}/files/stream.bin")
    assert sent.stdin is not None
    sent.stdin.write(bytes(12_000_000))
    sent.stdin.flush()

    bar = in_state(page, "stream.bin", "receiving").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"Receiving, \d+\.\d MB"))
    assert bar.get_attribute("aria-valuenow") is None
    sent.stdin.close()
    expect(in_state(page, "stream.bin", "completed")).to_be_visible()


def test_several_files_wait_for_their_turn(signed_in: SignedIn, tmp_path: Path) -> None:
    page = signed_in("alice")
    files = [file_of(tmp_path, f"part-{number}.bin", 6) for number in range(1, 5)]

    choose(page, *files)
    expect(in_state(page, "part-4.bin", "pending")).to_contain_text("Waiting to start")
    page.get_by_role("button", name="Cancel part-4.bin").click()

    expect(in_state(page, "part-4.bin", "cancelled")).to_be_visible()
    for number in range(1, 4):
        expect(in_state(page, f"part-{number}.bin", "completed")).to_be_visible()
    page.get_by_role("button", name="Clear finished").click()
    expect(page.get_by_text("Nothing is being uploaded.")).to_be_visible()
    expect(page.locator("#received li")).to_have_count(3)


def test_a_restarted_server_is_found_again(signed_in: SignedIn, tmp_path: Path) -> None:
    slow = ("--slow", "1M", "--data", str(tmp_path / "data"))
    with running_demo(*slow) as before:
        page = signed_in("alice", url=before.url)
        choose(page, file_of(tmp_path, "lost.bin", 60))
        expect(in_state(page, "lost.bin", "receiving")).to_be_visible()
        before.process.kill()
        before.process.wait()
        bars = page.locator("upload-progress")
        expect(bars).to_have_attribute("data-connection", "lost")
        expect(bars).to_contain_text("The server does not answer")

    with running_demo(*slow, port=urlsplit(before.url).port or 0):
        expect(bars).to_have_attribute("data-connection", "live")
        expect(in_state(page, "lost.bin", "failed")).to_contain_text("does not know this upload")
        choose(page, file_of(tmp_path, "next.bin", 1))
        expect(in_state(page, "next.bin", "completed")).to_be_visible()


def test_who_signs_out_has_to_sign_in_again(signed_in: SignedIn, demo: DemoProcess) -> None:
    page = signed_in("alice")

    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{demo.url}/login")
    page.goto(demo.url)

    expect(page).to_have_url(f"{demo.url}/login")


def test_a_wrong_password_is_said_on_the_page(signed_in: SignedIn, demo: DemoProcess) -> None:
    page = signed_in("alice")
    page.get_by_role("button", name="Sign out").click()

    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("bob")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_have_text("That name and password do not belong together.")
