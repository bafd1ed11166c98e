"""The Web Component with a push server, which holds its stream."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests._support.browser_pages import in_state, release, row, upload, wait_for_connection
from tests._support.child_process import run_python_server
from tests._support.paths import ROOT
from tests._support.server_factories import centrifugo, pushpin
from tests._support.server_processes import free_port
from tests.browser.conftest import SERVER, STRICT_POLICY, Users
from tests.conftest import RequireProgram

KEY = "0123456789abcdef0123456789abcdef"
ALL = '<upload-progress src="/uploads" all></upload-progress>'

AUTHORIZE = """async (user) => {
    const { authorize } = await import("/uploads/upload-progress.js");
    authorize("/uploads", { headers: { authorization: `Bearer ${user}` } });
}"""


def test_page_follows_uploads_by_a_held_stream(
    users: Users, user: str, require_program: RequireProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_port = free_port()
    monkeypatch.setenv("TEST_CONTROL_URL", f"http://127.0.0.1:{control_port}")
    monkeypatch.setenv("TEST_KEY", KEY)
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        app_port = int(url.rpartition(":")[2])
        proxy = pushpin(require_program, app_port=app_port, control_port=control_port, key=KEY)
        try:
            page = users.open(ALL, user=user, url=proxy.start().url)
            wait_for_connection(page, "sse")

            upload(page, "a.bin", hold=0.5)
            expect(row(page, "a.bin")).to_contain_text(re.compile(r"[5-9]\d%"))
            release(page, "a.bin")
            expect(in_state(page, "a.bin", "completed")).to_be_visible()
            wait_for_connection(page, "sse")
        finally:
            proxy.stop()


@pytest.mark.parametrize("has_token", [False, True])
def test_page_follows_uploads_through_centrifugo(
    users: Users,
    user: str,
    require_program: RequireProgram,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_token: bool,
) -> None:
    """With a cookie, and with a token in a header; Centrifugo is restarted between two uploads."""
    process = centrifugo(require_program, api_key=KEY, token_key=KEY, origin="http://127.0.0.1:*")
    monkeypatch.setenv("TEST_CENTRIFUGO_URL", process.url)
    monkeypatch.setenv("TEST_KEY", KEY)
    with run_python_server(*SERVER, "0", cwd=ROOT) as url:
        try:
            process.start()
            policy = STRICT_POLICY.replace("connect-src", f"connect-src {process.url}")
            page = users.open(ALL, user=user, url=url, policy=policy)
            requests = list[str]()
            page.on("request", lambda request: requests.append(request.url))
            if has_token:
                page.evaluate(AUTHORIZE, user)
            wait_for_connection(page, "sse")

            upload(page, "a.bin", hold=0.5)
            expect(row(page, "a.bin")).to_contain_text(re.compile(r"[5-9]\d%"))
            process.kill()
            wait_for_connection(page, "polling")
            process.ensure_running()
            wait_for_connection(page, "sse")
            release(page, "a.bin")
            expect(in_state(page, "a.bin", "completed")).to_be_visible()
            upload(page, "b.bin")
            expect(in_state(page, "b.bin", "completed")).to_be_visible()
            wait_for_connection(page, "sse")
        finally:
            process.stop()
    followed = f"{process.url}/connection/uni_http_stream"
    # No token is in an address.
    assert {each for each in requests if each.startswith(process.url)} == {followed}
