"""Uploads of the own widgets of Gradio, NiceGUI and Streamlit.

The servers are those on the page about frameworks.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests.browser.conftest import DEADLINE_MS

GUIDE = (ROOT / "docs/guides/frameworks.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'^``` \{\.python \.page title="(\w+)"\}\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SERVERS = dict(BLOCK.findall(GUIDE))
SCRIPT = re.compile(
    r'^``` \{\.python \.script title="(\S+)"\}\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
SIZE = 2_000_000
# The upload takes some seconds.
UPLOAD_LIMITS = {
    "offline": False,
    "latency": 0,
    "downloadThroughput": -1,
    "uploadThroughput": SIZE / 4,
}


@contextmanager
def running(folder: Path) -> Iterator[str]:
    with run_python_server("-m", "uvicorn", "app:app", "--port", "0", cwd=folder) as url:
        yield url


def signed_in(context: BrowserContext, url: str, user: str) -> Page:
    page = context.new_page()
    page.goto(f"{url}/login/{user}")
    page.wait_for_selector("upload-progress[data-connection=websocket]", state="attached")
    return page


@pytest.mark.parametrize("name", SERVERS)
def test_upload_of_the_own_widget_is_shown_by_two_workers(
    name: str, browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    pytest.importorskip(name)
    shared = f'authenticate=user_of, store="{redis_url}"'
    source = SERVERS[name].replace("authenticate=user_of", shared)
    for file, text in [("app.py", source), *SCRIPT.findall(GUIDE)]:
        (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / "large.bin").write_bytes(bytes(SIZE))
    user = f"user-{uuid.uuid4().hex}"

    with running(tmp_path) as one, running(tmp_path) as two, browser.new_context() as context:
        context.set_default_timeout(DEADLINE_MS)
        pages = [signed_in(context, url, user) for url in (one, two)]
        session = context.new_cdp_session(pages[0])
        session.send("Network.emulateNetworkConditions", UPLOAD_LIMITS)
        pages[0].locator("input[type=file]").first.set_input_files(tmp_path / "large.bin")

        for state, text in (("receiving", "of 2.0 MB"), ("completed", "2.0 MB")):
            for page in pages:
                row = page.locator(f"upload-progress li[data-state={state}]")
                expect(row).to_contain_text(text, timeout=DEADLINE_MS)
                expect(row).to_contain_text("large.bin")
