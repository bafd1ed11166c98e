"""The demo page, end to end: uploads from the page and from a terminal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import RECORD, in_state, row, row_states
from tests._support.demo_process import DemoProcess, running_demo
from tests.browser.conftest import SLOW_BYTES_PER_SECOND, Curl, Users

SLOW = ("--slow", str(SLOW_BYTES_PER_SECOND))


@pytest.fixture
def own_demo(tmp_path: Path) -> Iterator[DemoProcess]:
    """Run a demo without earlier uploads."""
    with running_demo(*SLOW, "--data", str(tmp_path / "data")) as demo:
        yield demo


def make_file(folder: Path, name: str, megabytes: float) -> Path:
    path = folder / name
    path.write_bytes(bytes(int(megabytes * 1_000_000)))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.locator("#files").set_input_files([str(path) for path in paths])


def test_bar_grows_stepwise_until_completed(
    users: Users, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page = users.sign_in(own_demo, "alice")
    page.evaluate(RECORD, "twelve.bin")
    twelve = make_file(tmp_path, "twelve.bin", 12)

    choose(page, twelve)
    expect(in_state(page, "twelve.bin", "completed")).to_be_visible()

    shown = row_states(page)
    states = list(dict.fromkeys(each["state"] for each in shown))
    received = [float(each["now"] or 0) for each in shown if each["state"] == "receiving"]
    hashed = [float(each["stage"] or 0) for each in shown if each["text"] == "Hashing"]
    assert states[-3:] == ["receiving", "processing", "completed"]
    assert received == sorted(received)
    assert len(set(received)) >= 6
    assert hashed == sorted(hashed)
    assert len(set(hashed)) >= 2
    assert shown[-1]["now"] == 100
    checksum = page.locator("#received li", has_text="twelve.bin").locator(".checksum")
    expect(checksum).to_contain_text(hashlib.sha256(twelve.read_bytes()).hexdigest())


def test_cancelled_upload_leaves_no_file(
    users: Users, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page = users.sign_in(own_demo, "alice")
    choose(page, make_file(tmp_path, "unwanted.bin", 30))
    expect(in_state(page, "unwanted.bin", "receiving")).to_be_visible()

    page.get_by_role("button", name="Cancel unwanted.bin").press("Enter")

    expect(in_state(page, "unwanted.bin", "cancelled")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Clear finished").click()
    expect(page.get_by_text("No uploads.")).to_be_visible()
    expect(page.get_by_text("No files yet.")).to_be_visible()


def test_upload_from_a_terminal_appears_on_the_page(
    users: Users, curl: Curl, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page, other = users.sign_in(own_demo, "alice"), users.sign_in(own_demo, "bob")

    sent = curl(
        "--upload-file", str(make_file(tmp_path, "terminal.bin", 4)), f"{own_demo.url}/files/"
    )

    expect(in_state(page, "terminal.bin", "receiving")).to_be_visible()
    upload_id = row(page, "terminal.bin").get_attribute("data-upload-id")
    paths = [f"{own_demo.url}/uploads/{name}/progress" for name in (upload_id, "unknown")]
    responses = [other.request.get(path) for path in paths]
    expect(in_state(page, "terminal.bin", "completed")).to_be_visible()
    expect(page.get_by_role("link", name="terminal.bin")).to_be_visible()
    assert sent.wait(30) == 0
    assert [response.status for response in responses] == [404, 404]
    assert responses[0].body() == responses[1].body()
    expect(other.get_by_text("No uploads.")).to_be_visible()
    expect(other.get_by_text("No files yet.")).to_be_visible()


def test_upload_of_unknown_size_has_no_percentage(
    users: Users, curl: Curl, demo: DemoProcess
) -> None:
    page = users.sign_in(demo, "alice")
    sent = curl("--upload-file", "-", f"{demo.url}/files/stream.bin")
    assert sent.stdin is not None
    sent.stdin.write(bytes(8_000_000))
    sent.stdin.flush()

    bar = in_state(page, "stream.bin", "receiving").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^Receiving, \d+\.\d\sMB"))
    assert bar.get_attribute("aria-valuenow") is None
    sent.stdin.close()
    expect(in_state(page, "stream.bin", "completed")).to_be_visible()


def test_test_data_can_be_uploaded(users: Users, demo: DemoProcess) -> None:
    page = users.sign_in(demo, "bob")

    page.get_by_role("button", name="test data").click()

    bar = page.locator("upload-progress li", has_text="test-data").get_by_role("progressbar").first
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[1-9]"))
    page.get_by_role("button", name="Cancel test-data").click()
    expect(page.locator("upload-progress li[data-state=cancelled]")).to_be_visible()


def test_sign_out_ends_the_session(users: Users, demo: DemoProcess) -> None:
    page = users.sign_in(demo, "alice")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{demo.url}/login")
    page.goto(demo.url)
    expect(page).to_have_url(f"{demo.url}/login")

    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("bob")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_have_text("Wrong name or password.")
