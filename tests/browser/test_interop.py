"""What others build on it: plain HTML, htmx, React, and Uppy with its own status bar."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import in_state, release
from tests._support.npm_packages import bundle
from tests._support.paths import ROOT
from tests.browser.conftest import People

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="session")
def bundles(modules: Path) -> None:
    """Bundle what is written for bundlers."""
    for source in ("uppy/page.js", "react/uploads.jsx"):
        bundle(modules, EXAMPLES / source)


def open_example(people: People, user: str, name: str, **words: str) -> Page:
    """Open a page of the examples, as a server with templates would answer it."""
    html = (EXAMPLES / "web" / name).read_text(encoding="utf-8")
    for word, value in words.items():
        html = html.replace(f"{{{{{word}}}}}", value)
    page = people.page(people.context(user=user))
    page.route("**/example", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(f"{people.site}/example")
    return page


def a_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(bytes(1_000_000))
    return path


def choose(page: Page, *paths: Path) -> None:
    page.locator("input[type=file]").set_input_files([str(path) for path in paths])


def test_plain_html(people: People, user: str, tmp_path: Path) -> None:
    page = open_example(people, user, "plain.html")
    choose(page, a_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Send").click()

    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_htmx(people: People, user: str, modules: Path, tmp_path: Path) -> None:
    assert (modules / "htmx.org").is_dir()
    page = open_example(people, user, "htmx.html", upload_id=f"notes-{user}")
    choose(page, a_file(tmp_path, "a.bin"))

    page.get_by_role("button", name="Send").click()

    expect(in_state(page, "a.bin", "completed")).to_be_visible()
    expect(page.locator("#answer")).to_have_text("thanks")
    expect(page.get_by_text("counted")).to_be_visible()


@pytest.mark.usefixtures("bundles")
def test_react(people: People, user: str, tmp_path: Path) -> None:
    body = '<div id="root"></div><script type="module" src="/bundles/uploads.js"></script>'
    page = people.open(body, user=user)
    expect(page.get_by_text("Received: nothing yet")).to_be_visible()

    choose(page, a_file(tmp_path, "a.bin"), a_file(tmp_path, "b.bin"))

    expect(page.get_by_text(re.compile(r"Received: [ab]\.bin, [ab]\.bin"))).to_be_visible()
    for name in ("a.bin", "b.bin"):
        expect(in_state(page, name, "completed")).to_be_visible()


UPPY = """
<input id="files" type="file" multiple aria-label="Files"><div id="bar"></div>
<script type="module" src="/bundles/page.js"></script>
"""


@pytest.mark.usefixtures("bundles")
def test_uppy_shows_the_words_of_the_server(people: People, user: str, tmp_path: Path) -> None:
    page = people.open(UPPY, user=user, before=hold_half)
    bar = page.locator(".uppy-StatusBar")

    choose(page, a_file(tmp_path, "a.bin"))

    # All of it has left the browser by now: Uppy alone would say 100 %.
    expect(bar.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[5-9]\d$")
    )
    release(page, "a.bin")
    expect(bar).to_contain_text("scanning")
    release(page, "a.bin.stage")
    expect(bar).to_contain_text("Complete")


@pytest.mark.usefixtures("bundles")
def test_uppy_shows_why_a_file_was_refused(people: People, user: str, tmp_path: Path) -> None:
    page = people.open(UPPY, user=user, before=refuse)

    choose(page, a_file(tmp_path, "a.bin"))

    expect(page.locator(".uppy-StatusBar")).to_contain_text("Upload failed")
    # Uppy writes it to the console, too.
    [complaint] = [text for text in people.log_limiter if "[Uppy]" in text]
    people.log_limiter.remove(complaint)
    assert "Only small files are taken here." in complaint


@pytest.mark.usefixtures("bundles")
def test_uppy_cancels(people: People, user: str, tmp_path: Path) -> None:
    page = people.open(UPPY, user=user, before=hold_half)
    choose(page, a_file(tmp_path, "a.bin"))
    bar = page.locator(".uppy-StatusBar")
    expect(bar.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[5-9]\d$")
    )

    with page.expect_request(lambda request: request.method == "DELETE"):
        bar.get_by_role("button", name="Cancel").click()

    release(page, "a.bin")


def hold_half(page: Page) -> None:
    """Let the server read half of each file, and tell of a stage."""
    query(page, "hold=0.5&stage=1")


def refuse(page: Page) -> None:
    """Let the server take small files only."""
    query(page, "most=1000")


def query(page: Page, text: str) -> None:
    """Add a query to what the page sends its files to."""
    page.route("**/files/*", lambda route: route.continue_(url=f"{route.request.url}?{text}"))
