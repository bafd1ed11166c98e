"""How the demo looks: pictures to be looked at, and what of it can be measured.

What they show is made up, and stands still. The pictures of the README and the guide are among
them: copy them from build/screenshots to docs/images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests._support.demo_process import DemoProcess
from tests.browser.conftest import SCREENSHOTS, People
from tests.browser.test_access import axe

WIDE = {"width": 920, "height": 900}
NARROW = {"width": 360, "height": 800}
LOOKS = {
    "wide-light": ("light", WIDE),
    "wide-dark": ("dark", WIDE),
    "narrow-light": ("light", NARROW),
    "narrow-dark": ("dark", NARROW),
}


def made_up(name: str, minute: int, **facts: object) -> dict[str, object]:
    """Return a snapshot of the file *name*, whose upload began in that minute."""
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
    return {**common, **facts}


UPLOADS = [
    made_up(
        "holiday-film.mkv", 9, state="receiving", bytes_transferred=1_320_000_000,
        total_bytes=2_640_000_000, bytes_per_second=42_400_000, eta_seconds=31,
    ),
    made_up(
        "model-weights.safetensors", 8, state="processing", bytes_transferred=860_000_000,
        total_bytes=860_000_000, stage={"name": "hashing", "done": 5, "total": 8},
    ),
    made_up("field-notes.tar", 7, state="pending", bytes_transferred=0, total_bytes=91_000_000),
    made_up(
        "nightly-backup.sql.gz", 6, state="failed", bytes_transferred=31_200_000,
        total_bytes=74_000_000, error={"code": "client_disconnected", "message": ""},
    ),
    made_up("old-draft.pdf", 5, state="cancelled", bytes_transferred=9e5, total_bytes=3_000_000),
    made_up(
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


def stage_scene(page: Page) -> None:
    """Answer in the server's place, with uploads in all kinds of states."""

    def show(route: Route) -> None:
        path = route.request.url.rpartition("/uploads/")[2].removesuffix("/progress")
        found = {str(one["upload_id"]): one for one in UPLOADS}.get(path)
        route.fulfill(json=found or {"uploads": UPLOADS})

    page.route_web_socket(re.compile("/progress$"), welcome)
    page.route(re.compile("/progress$"), show)
    page.route("**/files", lambda route: route.fulfill(json=FILES))


def pictures(page: Page, subject: str) -> Iterator[Page]:
    """Yield the page as each kind of screen shows it, and take a picture."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name, (scheme, viewport) in LOOKS.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # light or dark
        page.set_viewport_size(viewport)  # type: ignore[arg-type]  # a width and a height
        yield page
        page.screenshot(path=SCREENSHOTS / f"{subject}-{name}.png", full_page=True, scale="device")


def is_sound(page: Page, modules: Path) -> None:
    """Assert that axe finds nothing, and that nothing has to be scrolled sideways."""
    assert axe(page, modules) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_uploads_in_different_states(people: People, demo: DemoProcess, modules: Path) -> None:
    page = people.sign_in(demo, "alice", before=stage_scene, device_scale_factor=1.5)
    expect(page.locator("upload-progress li")).to_have_count(len(UPLOADS))
    expect(page.locator("#received li")).to_have_count(len(FILES))

    for one in pictures(page, "demo"):
        is_sound(one, modules)


def test_nothing_there_and_signing_in(people: People, demo: DemoProcess, modules: Path) -> None:
    page = people.sign_in(demo, "bob", before=stage_nothing)
    expect(page.get_by_text("Nothing is being uploaded.")).to_be_visible()
    for one in pictures(page, "empty"):
        is_sound(one, modules)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Name")).to_be_focused()
    for one in pictures(page, "login"):
        is_sound(one, modules)


def stage_nothing(page: Page) -> None:
    """Hide what other tests may have sent."""
    page.route("**/files", lambda route: route.fulfill(json=[]))
    page.route("**/uploads/progress", lambda route: route.fulfill(json={"uploads": []}))
    page.route_web_socket(re.compile("/progress$"), welcome)


def welcome(socket: WebSocketRoute) -> None:
    """Welcome, and say no more."""
    socket.send(json.dumps({"type": "welcome", "client_id": "c", "heartbeat_seconds": 15}))


@pytest.mark.parametrize("width", [320, 1400])
def test_languages_with_longer_words_fit(people: People, user: str, width: int) -> None:
    body = '<div lang="de"><upload-progress src="/uploads" all></upload-progress></div>'
    screen = {"width": width, "height": 700}
    page = people.open(body, user=user, before=stage_scene, viewport=screen)

    expect(page.locator("upload-progress li")).to_have_count(len(UPLOADS))

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
