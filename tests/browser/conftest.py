"""A real Chromium, the real demo, and people who are signed in to it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.conftest import RequireProgram
from tests.demo_process import DemoProcess, running_demo

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
SLOW_BYTES_PER_SECOND = 4_000_000
FAILED_REQUEST = "^error: (Failed to load resource|WebSocket connection to .* failed)"

SignedIn = Callable[..., Page]
Curl = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def browser(require_program: RequireProgram) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = require_program(*names, install="get it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def demo() -> Iterator[DemoProcess]:
    with running_demo("--slow", str(SLOW_BYTES_PER_SECOND)) as demo:
        yield demo


def complaints_of(message: ConsoleMessage) -> list[str]:
    """Return what the browser complains of; what it merely remarks is none."""
    said = f"{message.type}: {message.text}"
    return [said] if message.type in {"error", "warning", "assert"} else []


@pytest.fixture
def signed_in(browser: Browser, demo: DemoProcess) -> Iterator[SignedIn]:
    """Open the page in a browser of its own for each call; nothing may go wrong in it."""
    contexts = []
    complaints: list[str] = []

    def sign_in(
        user: str, *, url: str = "", script: str = "", clock: bool = False, **options: object
    ) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]  # options of Playwright
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.extend(complaints_of(message)))
        page.add_init_script(script)
        if clock:
            page.clock.install()
        page.goto(url or demo.url)
        page.get_by_label("Name").fill(user)
        page.get_by_label("Password").fill(user)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("upload-progress[data-connection]")
        return page

    yield sign_in
    for context in contexts:
        context.close()
    # Chromium reports each failed request, also those that are part of a test.
    assert [text for text in complaints if not re.search(FAILED_REQUEST, text)] == []


@pytest.fixture
def curl(require_program: RequireProgram, demo: DemoProcess) -> Iterator[Curl]:
    """Start curl as alice; what still runs at the end is stopped."""
    path = require_program("curl", install="get it with: apt-get install curl")
    running = []

    def start(*arguments: str, user: str = "alice") -> subprocess.Popen[bytes]:
        command = [path, "--silent", "--fail", "--user", f"{user}:{user}", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
