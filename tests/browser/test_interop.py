"""Examples with other libraries: plain HTML, htmx, React, and Uppy with its status bar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import in_state, release
from tests._support.npm_packages import bundle
from tests._support.paths import ROOT
from tests.browser.conftest import Users

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session")
def bundles(modules: Path) -> None:
    """Bundle the examples for bundlers."""
    for source in ("uppy/page.js", "react/uploads.jsx"):
        bundle(modules, EXAMPLES / source)


def open_example(users: Users, user: str, name: str, **values: str) -> Page:
    """Open a page of the examples, rendered as by a template engine."""
    html = (EXAMPLES / "web" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        html = html.replace(f"{{{{{key}}}}}", value)
    page = users.page(users.context(user=user))
    page.route("**/example", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{users.site}/example")
    return page


def make_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(bytes(1_000_000))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.locator("input[type=file]").set_input_files([str(path) for path in paths])


def test_plain_html(users: Users, user: str, tmp_path: Path) -> None:
    page = open_example(users, user, "plain.html")
    choose(page, make_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Upload").click()

    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_htmx(users: Users, user: str, modules: Path, tmp_path: Path) -> None:
    assert (modules / "htmx.org").is_dir()
    page = open_example(users, user, "htmx.html", upload_id=f"notes-{user}")
    choose(page, make_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Upload").click()

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    expect(page.locator("#response")).to_have_text("thanks")
    expect(page.get_by_text("counted")).to_be_visible()


@pytest.mark.usefixtures("bundles")
def test_react(users: Users, user: str, tmp_path: Path) -> None:
    body = '<div id="root"></div><script type="module" src="/bundles/uploads.js"></script>'
    page = users.open(body, user=user)
    expect(page.get_by_text("Received: no files")).to_be_visible()

    choose(page, make_file(tmp_path, "a.bin"), make_file(tmp_path, "b.bin"))

    expect(page.get_by_text(re.compile(r"Received: [ab]\.bin, [ab]\.bin"))).to_be_visible()
    for name in ("a.bin", "b.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()


UPPY = """
<input id="files" type="file" multiple aria-label="Files"><div id="bar"></div>
<script type="module" src="/bundles/page.js"></script>
"""


@pytest.mark.usefixtures("bundles")
def test_uppy_shows_the_progress_of_the_server(users: Users, user: str, tmp_path: Path) -> None:
    page = users.open(UPPY, user=user, before=hold_half)
    bar = page.locator(".uppy-StatusBar")

    choose(page, make_file(tmp_path, "a.bin"))

    # The browser has sent all bytes: Uppy alone would show 100 %.
    expect(bar.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[5-9]\d$")
    )
    release(page, "a.bin")
    expect(bar).to_contain_text("scanning")
    release(page, "a.bin.stage")
    expect(bar).to_contain_text("Complete")


@pytest.mark.usefixtures("bundles")
def test_uppy_shows_why_an_upload_was_rejected(users: Users, user: str, tmp_path: Path) -> None:
    page = users.open(UPPY, user=user, before=reject_large_files)

    choose(page, make_file(tmp_path, "a.bin"))

    expect(page.locator(".uppy-StatusBar")).to_contain_text("Upload failed")
    # Uppy also logs the error.
    [message] = [text for text in users.page_errors if "[Uppy]" in text]
    users.page_errors.remove(message)
    assert "Only small files are accepted." in message


@pytest.mark.usefixtures("bundles")
def test_uppy_cancels(users: Users, user: str, tmp_path: Path) -> None:
    page = users.open(UPPY, user=user, before=hold_half)
    choose(page, make_file(tmp_path, "a.bin"))
    bar = page.locator(".uppy-StatusBar")
    expect(bar.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[5-9]\d$")
    )

    with page.expect_request(lambda request: request.method == "DELETE"):
        bar.get_by_role("button", name="Cancel").click()

    release(page, "a.bin")


def hold_half(page: Page) -> None:
    """Let the server stop after half of each file, and report a stage."""
    add_query(page, "hold=0.5&stage=1")


def reject_large_files(page: Page) -> None:
    """Let the server accept only small files."""
    add_query(page, "most=1000")


def add_query(page: Page, query: str) -> None:
    """Add a query to the URLs of uploads."""
    page.route("**/files/*", lambda route: route.continue_(url=f"{route.request.url}?{query}"))
