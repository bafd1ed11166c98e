"""The demo's page, from end to end: files sent here and elsewhere, and what became of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import RECORD, in_state, looks, row
from tests._support.demo_process import DemoProcess, running_demo
from tests.browser.conftest import SLOW_BYTES_PER_SECOND, Curl, People

SLOW = ("--slow", str(SLOW_BYTES_PER_SECOND))


@pytest.fixture
def own_demo(tmp_path: Path) -> Iterator[DemoProcess]:
    """Run a demo in which nothing has happened yet."""
    with running_demo(*SLOW, "--data", str(tmp_path / "data")) as demo:
        yield demo


def a_file(folder: Path, name: str, megabytes: float) -> Path:
    path = folder / name
    path.write_bytes(bytes(int(megabytes * 1_000_000)))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.locator("#files").set_input_files([str(path) for path in paths])


def test_a_bar_grows_step_by_step_to_the_end(
    people: People, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page = people.sign_in(own_demo, "alice")
    page.evaluate(RECORD, "twelve.bin")
    twelve = a_file(tmp_path, "twelve.bin", 12)

    choose(page, twelve)
    expect(in_state(page, "twelve.bin", "completed")).to_be_visible()

    seen = looks(page)
    states = list(dict.fromkeys(look["state"] for look in seen))
    received = [float(look["now"] or 0) for look in seen if look["state"] == "receiving"]
    hashed = [float(look["stage"] or 0) for look in seen if look["words"] == "Hashing"]
    assert states[-3:] == ["receiving", "processing", "completed"]
    assert received == sorted(received)
    assert len(set(received)) >= 6
    assert hashed == sorted(hashed)
    assert len(set(hashed)) >= 2
    assert seen[-1]["now"] == 100
    checksum = page.locator("#received li", has_text="twelve.bin").locator(".sha")
    expect(checksum).to_contain_text(hashlib.sha256(twelve.read_bytes()).hexdigest())


def test_a_cancelled_upload_leaves_no_file(
    people: People, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page = people.sign_in(own_demo, "alice")
    choose(page, a_file(tmp_path, "unwanted.bin", 30))
    expect(in_state(page, "unwanted.bin", "receiving")).to_be_visible()

    page.get_by_role("button", name="Cancel unwanted.bin").press("Enter")

    expect(in_state(page, "unwanted.bin", "cancelled")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Clear finished").click()
    expect(page.get_by_text("Nothing is being uploaded.")).to_be_visible()
    expect(page.get_by_text("No file has been received yet.")).to_be_visible()


def test_an_upload_from_a_terminal_appears_by_itself(
    people: People, curl: Curl, own_demo: DemoProcess, tmp_path: Path
) -> None:
    page, other = people.sign_in(own_demo, "alice"), people.sign_in(own_demo, "bob")

    sent = curl("--upload-file", str(a_file(tmp_path, "terminal.bin", 4)), f"{own_demo.url}/files/")

    expect(in_state(page, "terminal.bin", "receiving")).to_be_visible()
    upload_id = row(page, "terminal.bin").get_attribute("data-upload-id")
    paths = [f"{own_demo.url}/uploads/{name}/progress" for name in (upload_id, "unknown")]
    answers = [other.request.get(path) for path in paths]
    expect(in_state(page, "terminal.bin", "completed")).to_be_visible()
    expect(page.get_by_role("link", name="terminal.bin")).to_be_visible()
    assert sent.wait(30) == 0
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].body() == answers[1].body()
    expect(other.get_by_text("Nothing is being uploaded.")).to_be_visible()
    expect(other.get_by_text("No file has been received yet.")).to_be_visible()


def test_an_unknown_size_has_no_percentage(people: People, curl: Curl, demo: DemoProcess) -> None:
    page = people.sign_in(demo, "alice")
    sent = curl("--upload-file", "-", f"{demo.url}/files/stream.bin")
    assert sent.stdin is not None
    sent.stdin.write(bytes(8_000_000))
    sent.stdin.flush()

    bar = in_state(page, "stream.bin", "receiving").get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^Receiving, \d+\.\d\sMB"))
    assert bar.get_attribute("aria-valuenow") is None
    sent.stdin.close()
    expect(in_state(page, "stream.bin", "completed")).to_be_visible()


def test_who_has_no_large_file_at_hand_is_given_one(people: People, demo: DemoProcess) -> None:
    page = people.sign_in(demo, "bob")

    page.get_by_role("button", name="made-up data").click()

    bar = page.locator("upload-progress li", has_text="made-up").get_by_role("progressbar").first
    expect(bar).to_have_attribute("aria-valuenow", re.compile("^[1-9]"))
    page.get_by_role("button", name="Cancel made-up").click()
    expect(page.locator("upload-progress li[data-state=cancelled]")).to_be_visible()


def test_who_signs_out_has_to_sign_in_again(people: People, demo: DemoProcess) -> None:
    page = people.sign_in(demo, "alice")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{demo.url}/login")
    page.goto(demo.url)
    expect(page).to_have_url(f"{demo.url}/login")

    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("bob")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_have_text("That name and password do not belong together.")
