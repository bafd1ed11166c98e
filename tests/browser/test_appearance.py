"""Appearance of the demo: screenshots to look at, and layout properties that can be tested.

The content is fixed. The README and the guide use some of the screenshots: copy those from
build/screenshots to docs/images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests._support.demo_process import DemoProcess
from tests.browser.conftest import SCREENSHOTS, Users
from tests.browser.test_access import axe

WIDE = {"width": 920, "height": 900}
NARROW = {"width": 360, "height": 800}
SCREENS = {
    "wide-light": ("light", WIDE),
    "wide-dark": ("dark", WIDE),
    "narrow-light": ("light", NARROW),
    "narrow-dark": ("dark", NARROW),
}


def snapshot(name: str, minute: int, **fields: object) -> dict[str, object]:
    """Return a snapshot of an upload of the file *name* that was created in that minute."""
    time = f"2026-01-01T12:{minute:02}:00Z"
    none = ("group", "stage", "percent", "bytes_per_second", "eta_seconds", "arrival", "error")
    common = {
        **dict.fromkeys(none),
        "upload_id": f"upload-{minute}",
        "filename": name,
        "sequence": 1,
        "attempt": 1,
        "stalled": False,
        "created_at": time,
        "updated_at": time,
    }
    return {**common, **fields}


UPLOADS = [
    snapshot(
        "holiday-film.mkv", 9, state="receiving", bytes_transferred=1_320_000_000,
        total_bytes=2_640_000_000, bytes_per_second=42_400_000, eta_seconds=31,
    ),
    snapshot(
        "model-weights.safetensors", 8, state="processing", bytes_transferred=860_000_000,
        total_bytes=860_000_000, stage={"name": "hashing", "done": 5, "total": 8},
    ),
    snapshot("field-notes.tar", 7, state="pending", bytes_transferred=0, total_bytes=91_000_000),
    snapshot(
        "nightly-backup.sql.gz", 6, state="failed", bytes_transferred=31_200_000,
        total_bytes=74_000_000, error={"code": "client_disconnected", "message": ""},
    ),
    snapshot("old-draft.pdf", 5, state="cancelled", bytes_transferred=9e5, total_bytes=3_000_000),
    snapshot(
        "upload_progress-0.1.0-py3-none-any.whl", 4, state="completed",
        bytes_transferred=184_320, total_bytes=184_320,
    ),
]  # fmt: skip
FILES = [
    {
        "name": "upload_progress-0.1.0-py3-none-any.whl",
        "size": 184_320,
        "sha256": "5d41402abc4b2a76b9719d911017c592ae1f0cbe43d2a7c8b1e94b0a2f3c6d70",
        "uploaded_at": "2026-01-01T12:04:02Z",
    },
    {
        "name": "release-notes.md",
        "size": 4_210,
        "sha256": "9b74c9897bac770ffc029102a200c5de5f0a1d2e7c8b3f4a6d9e0c1b2a384756",
        "uploaded_at": "2026-01-01T11:58:40Z",
    },
]

ENDS = {
    number: {"state": "completed", "bytes_transferred": number * 40_000} for number in range(40, 60)
} | {
    37: {"state": "receiving", "bytes_transferred": 310_000, "bytes_per_second": 900_000},
    38: {"state": "receiving", "bytes_transferred": 840_000, "bytes_per_second": 950_000},
    39: {"state": "receiving", "bytes_transferred": 1_210_000, "bytes_per_second": 910_000},
    44: {
        "state": "failed",
        "bytes_transferred": 440_000,
        "error": {"code": "client_disconnected", "message": ""},
    },
    51: {"state": "cancelled", "bytes_transferred": 0},
}
MANY_UPLOADS = [
    snapshot(
        f"DSC_{2700 - number}.jpg", number, total_bytes=number * 40_000,
        **ENDS.get(number, {"state": "pending", "bytes_transferred": 0}),
    )
    for number in range(59, 0, -1)
]  # fmt: skip


def mock_uploads(page: Page, uploads: list[dict[str, object]] = UPLOADS) -> None:
    """Mock the server, with uploads in different states."""

    def respond(route: Route) -> None:
        path = route.request.url.rpartition("/uploads/")[2].removesuffix("/progress")
        found = {str(one["upload_id"]): one for one in uploads}.get(path)
        route.fulfill(json=found or {"uploads": uploads})

    page.route_web_socket(re.compile("/progress$"), welcome)
    page.route(re.compile("/progress$"), respond)
    page.route("**/files", lambda route: route.fulfill(json=FILES))


def screenshots(page: Page, subject: str) -> Iterator[Page]:
    """Yield the page for each colour scheme and width, then take a screenshot."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, (scheme, viewport) in SCREENS.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # light or dark
        page.set_viewport_size(viewport)  # type: ignore[arg-type]  # a width and a height
        yield page
        page.screenshot(path=SCREENSHOTS / f"{subject}-{name}.png", full_page=True, scale="device")


def assert_accessible(page: Page, modules: Path) -> None:
    """Assert that axe finds no violation, and that the page does not scroll sideways."""
    assert axe(page, modules) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_uploads_in_different_states(users: Users, demo: DemoProcess, modules: Path) -> None:
    page = users.sign_in(demo, "alice", before=mock_uploads, device_scale_factor=1.5)
    expect(page.locator("upload-progress li")).to_have_count(len(UPLOADS))
    expect(page.locator("#received li")).to_have_count(len(FILES))

    for one in screenshots(page, "demo"):
        assert_accessible(one, modules)


def test_many_uploads(users: Users, demo: DemoProcess, modules: Path) -> None:
    def mock_many_uploads(page: Page) -> None:
        mock_uploads(page, MANY_UPLOADS)

    page = users.sign_in(demo, "alice", before=mock_many_uploads, device_scale_factor=1.5)
    page.get_by_role("button", name="18 completed, 1 cancelled").click()

    for one in screenshots(page, "panel"):
        assert_accessible(one, modules)


def test_empty_page_and_sign_in_page(users: Users, demo: DemoProcess, modules: Path) -> None:
    page = users.sign_in(demo, "bob", before=mock_no_uploads)
    expect(page.get_by_text("No uploads.")).to_be_visible()
    for one in screenshots(page, "empty"):
        assert_accessible(one, modules)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Name")).to_be_focused()
    for one in screenshots(page, "login"):
        assert_accessible(one, modules)


def mock_no_uploads(page: Page) -> None:
    """Mock a server without uploads and files."""
    page.route("**/files", lambda route: route.fulfill(json=[]))
    page.route("**/uploads/progress", lambda route: route.fulfill(json={"uploads": []}))
    page.route_web_socket(re.compile("/progress$"), welcome)


def welcome(socket: WebSocketRoute) -> None:
    """Send the welcome message only."""
    socket.send(json.dumps({"type": "welcome", "client_id": "c", "heartbeat_seconds": 15}))


@pytest.mark.parametrize("width", [320, 1400])
def test_longer_german_texts_fit(users: Users, user: str, width: int) -> None:
    body = '<div lang="de"><upload-progress src="/uploads" all></upload-progress></div>'
    screen = {"width": width, "height": 700}
    page = users.open(body, user=user, before=mock_uploads, viewport=screen)

    expect(page.locator("upload-progress li")).to_have_count(len(UPLOADS))

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
