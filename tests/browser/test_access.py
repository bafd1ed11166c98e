"""Accessibility and languages: screen readers, keyboard, contrast, right-to-left, translations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import in_state, release, row, upload
from tests.browser.conftest import Users

ALL = '<upload-progress src="/uploads" all></upload-progress>'

# Records the texts for screen readers.
RECORD_ANNOUNCEMENTS = """
() => {
  window.announcements = [];
  const region = document.querySelector("upload-progress").shadowRoot.querySelector(".status");
  const record = () => region.textContent && announcements.push(region.textContent);
  const options = { childList: true, characterData: true, subtree: true };
  new MutationObserver(record).observe(region, options);
}
"""
VIOLATIONS = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(", ")}`)
"""
STYLE = "(node, name) => getComputedStyle(node).getPropertyValue(name)"
# Without a subscription: shows the snapshots that a test applies.
ELEMENT = '<upload-progress src="/uploads"></upload-progress>'
APPLY = """
(upload) => {
  const { upload_id = "test-id" } = upload;
  document.querySelector("upload-progress").add(upload_id);
  component.ProgressClient.of("/uploads").apply({
  upload_id, group: null, sequence: 1, attempt: 1, state: "receiving", stage: null,
  bytes_transferred: 0, total_bytes: 4e9, percent: 0, bytes_per_second: null, eta_seconds: null,
  stalled: false, arrival: null, filename: "test.bin", error: null,
  created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z", ...upload,
  });
}
"""


def apply(page: Page, **upload: object) -> None:
    """Apply a snapshot in the page, as if the server had sent it."""
    page.evaluate(APPLY, upload)


def axe(page: Page, modules: Path) -> list[str]:
    """Return the violations that axe-core finds in the page."""
    page.evaluate((modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    # During a transition it would see intermediate colours.
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished)).catch(() => 0)")
    violations: list[str] = page.evaluate(VIOLATIONS)
    return violations


def show_every_state(page: Page) -> None:
    """Show a row in each state."""
    states = ["pending", "receiving", "paused", "processing", "completed", "failed", "cancelled"]
    for number, state in enumerate(states):
        extra: dict[str, object] = {}
        if state == "failed":
            extra["error"] = {
                "code": "app_error",
                "message": "The virus scanner rejected it.",
            }
        if state == "processing":
            extra["stage"] = {"name": "scanning", "done": 1, "total": 4}
        share = {"pending": 0, "processing": 1, "completed": 1}.get(state, number / 8)
        names = {"upload_id": state, "filename": f"{state}.bin"}
        apply(page, state=state, bytes_transferred=share * 4e9, **names, **extra)
    apply(page, upload_id="stalled", filename="stalled.bin", bytes_transferred=1e9, stalled=True)
    apply(
        page, upload_id="unknown", filename="unknown.bin", bytes_transferred=1e6, total_bytes=None
    )
    expect(page.locator("upload-progress li")).to_have_count(9)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1000])
def test_axe_finds_no_violation(
    users: Users, user: str, modules: Path, scheme: str, width: int
) -> None:
    body = f"<style>body {{ background: Canvas; color: CanvasText }}</style>{ELEMENT}"
    screen = {"width": width, "height": 800}
    page = users.open(body, user=user, policy="", color_scheme=scheme, viewport=screen)
    show_every_state(page)

    assert axe(page, modules) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_actions_work_by_keyboard(users: Users, user: str) -> None:
    page = users.open(ALL, user=user)
    upload(page, "a.bin", megabytes=4, hold=0.01)
    cancel = row(page, "a.bin").get_by_role("button", name="Cancel a.bin")
    expect(in_state(page, "a.bin", "receiving")).to_be_visible()

    page.keyboard.press("Tab")
    expect(cancel).to_be_focused()
    assert cancel.evaluate(STYLE, "outline-style") == "solid"
    page.keyboard.press("Enter")
    expect(in_state(page, "a.bin", "cancelled")).to_be_visible()
    expect(row(page, "a.bin")).to_be_focused()
    page.keyboard.press("Tab")
    expect(row(page, "a.bin").get_by_role("button", name="Retry a.bin")).to_be_focused()
    page.keyboard.press("Space")
    release(page, "a.bin")

    expect(in_state(page, "a.bin", "completed")).to_be_visible()


def test_each_quarter_is_announced_once_and_the_end_replaces_pending_announcements(
    users: Users, user: str
) -> None:
    page = users.open(ELEMENT, user=user, clock=True)
    page.clock.run_for(1000)
    page.evaluate(RECORD_ANNOUNCEMENTS)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    for number, share in enumerate((0, 0.26, 0.3, 0.49, 0.5, 0.8)):
        apply(page, sequence=number + 1, bytes_transferred=share * 4e9)
        page.clock.run_for(1000)
    apply(page, sequence=8, bytes_transferred=4e9, state="completed")
    page.clock.run_for(1000)

    names = ["Receiving", "25%", "50%", "75%", "Completed"]
    assert page.evaluate("announcements") == [f"test.bin: {name}" for name in names]


def test_many_simultaneous_changes_are_announced_as_a_summary(users: Users, user: str) -> None:
    page = users.open(ELEMENT, user=user, clock=True)
    page.clock.run_for(1000)
    page.evaluate(RECORD_ANNOUNCEMENTS)

    for number in range(5):
        apply(page, upload_id=f"{number}", filename=f"{number}.bin", bytes_transferred=2e9)
    page.clock.run_for(1000)

    assert page.evaluate("announcements") == ["0 of 5 uploads, 50%"]


def test_announcements_are_polite(users: Users, user: str) -> None:
    page = users.open(ELEMENT, user=user)

    expect(page.locator("upload-progress .status")).to_have_role("status")


def test_reduced_motion_disables_animations(users: Users, user: str) -> None:
    page = users.open(ELEMENT, user=user, reduced_motion="reduce")
    apply(page, bytes_transferred=1e6, total_bytes=None)
    bar = row(page, "test.bin").locator(".received").first
    expect(bar).to_be_visible()

    animations = page.evaluate(
        "document.querySelector('upload-progress').shadowRoot.getAnimations().length"
    )

    assert animations == 0
    assert bar.evaluate(STYLE, "transition-duration") in {"0s", "all 0s"}


def test_bar_grows_from_the_right_in_right_to_left_pages(users: Users, user: str) -> None:
    page = users.open(f'<div dir="rtl" lang="ar">{ELEMENT}</div>', user=user)
    apply(page, bytes_transferred=1e9)
    bar = row(page, "test.bin").locator(".bar").first
    expect(bar).to_have_attribute("aria-valuenow", "25")

    outer, inner = bar.bounding_box(), bar.locator(".received").bounding_box()

    assert outer
    assert inner
    assert inner["x"] + inner["width"] == pytest.approx(outer["x"] + outer["width"], abs=1)
    # The name and the buttons start at the right, too.
    name, percent = (
        row(page, "test.bin").locator(one).bounding_box() for one in (".name", ".percent")
    )
    assert name
    assert percent
    assert percent["x"] < name["x"]
    assert row(page, "test.bin").locator(".name").evaluate(STYLE, "text-align") == "right"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", r"25%Cancel.*Receiving1\.0\sGB\sof\s4\.0\sGB10\.0\sMB/s5\smin\sleft"),
        ("es-MX", r"25\s?%Cancelar.*Recibiendo1\.0\sGB\sde\s4\.0\sGB10\.0\sMB/squedan\s5\smin"),
        ("de", r"25\s%Abbrechen.*Wird\sempfangen1,0\sGB\svon\s4,0\sGB10,0\sMB/snoch\s5\sMin\."),
        # English is the fallback, also for numbers.
        ("fr", r"25%Cancel.*Receiving1\.0\sGB\sof\s4\.0\sGB10\.0\sMB/s5\smin\sleft"),
    ],
)
def test_texts_are_in_the_language_of_the_page(
    users: Users, user: str, language: str, text: str
) -> None:
    page = users.open(f'<div lang="{language}">{ELEMENT}</div>', user=user)

    apply(page, bytes_transferred=1e9, bytes_per_second=1e7, eta_seconds=299)

    expect(row(page, "test.bin")).to_have_text(re.compile(text))


def test_labels_add_a_language(users: Users, user: str) -> None:
    labels = '{"receiving": "Réception", "of": "{0} sur {1}", "cancel": "Annuler"}'
    body = (
        f"<div lang='fr'><upload-progress src='/uploads' labels='{labels}'></upload-progress></div>"
    )
    page = users.open(body, user=user)

    apply(page, bytes_transferred=1e9)

    expect(row(page, "test.bin")).to_have_text(
        re.compile(r"25\s%Annuler.*Réception1,0\sGo\ssur\s4,0\sGo")
    )


def test_end_is_shown_although_events_were_ahead_of_it(users: Users, user: str) -> None:
    """Another worker has ended the upload of a crashed one, and knows only what was stored."""
    page = users.open(ELEMENT, user=user)
    apply(page, sequence=9, bytes_transferred=2e9)
    expect(in_state(page, "test.bin", "receiving")).to_be_visible()

    apply(page, sequence=5, bytes_transferred=1e9, state="failed")
    expect(in_state(page, "test.bin", "failed")).to_be_visible()

    apply(page, sequence=10, bytes_transferred=3e9)
    expect(in_state(page, "test.bin", "failed")).to_be_visible()


def test_speed_and_time_left_are_updated_at_most_once_per_second(users: Users, user: str) -> None:
    page = users.open(ELEMENT, user=user, clock=True)
    page.clock.run_for(1000)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    details = row(page, "test.bin").locator(".details")

    apply(page, sequence=1, bytes_transferred=1e9, bytes_per_second=1e7, eta_seconds=50)
    page.clock.run_for(1000)
    expect(details).to_contain_text("10.0 MB/s")
    apply(page, sequence=2, bytes_transferred=1.1e9, bytes_per_second=2e7, eta_seconds=49)
    page.clock.run_for(200)
    apply(page, sequence=3, bytes_transferred=1.2e9, bytes_per_second=3e7, eta_seconds=48)
    page.clock.run_for(200)

    expect(details).to_contain_text("1.2 GB of 4.0 GB")
    expect(details).to_contain_text("20.0 MB/s")


def test_speed_and_time_left_vanish_when_nothing_moves_and_the_row_keeps_its_height(
    users: Users, user: str
) -> None:
    page = users.open(ELEMENT, user=user, clock=True, viewport={"width": 390, "height": 700})
    page.clock.run_for(1000)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    apply(page, sequence=1, bytes_transferred=1e9, bytes_per_second=1e7, eta_seconds=50)
    page.clock.run_for(1000)
    details = row(page, "test.bin").locator(".details")
    expect(details).to_contain_text("10.0 MB/s")
    height = row(page, "test.bin").evaluate("(node) => node.offsetHeight")

    page.clock.run_for(4000)

    expect(details).to_contain_text("1.0 GB of 4.0 GB")
    expect(details).not_to_contain_text("MB/s")
    expect(details).not_to_contain_text("left")
    assert row(page, "test.bin").evaluate("(node) => node.offsetHeight") == height
    apply(page, sequence=2, state="cancelled", bytes_transferred=1e9)
    page.clock.run_for(1000)
    expect(in_state(page, "test.bin", "cancelled")).to_be_visible()
    assert row(page, "test.bin").evaluate("(node) => node.offsetHeight") == height


@pytest.mark.parametrize(
    ("language", "text"), [("en", "10 bytes"), ("es", "10 bytes"), ("de", "10 Byte")]
)
def test_few_bytes_are_named_in_full(users: Users, user: str, language: str, text: str) -> None:
    page = users.open(f'<div lang="{language}">{ELEMENT}</div>', user=user)

    apply(page, state="completed", bytes_transferred=10, total_bytes=10)

    expect(row(page, "test.bin").locator(".details")).to_have_text(re.compile(rf"\w+{text}$"))


def test_long_name_keeps_its_extension_visible_and_is_whole_in_a_tooltip(
    users: Users, user: str
) -> None:
    page = users.open(ELEMENT, user=user, viewport={"width": 390, "height": 700})
    name = f"{'panorama-of-the-south-coast-' * 4}final.tar.gz"

    apply(page, filename=name, bytes_transferred=1e9)

    shown = page.locator("upload-progress li .name")
    expect(shown).to_have_attribute("title", name)
    expect(shown).to_have_text(name)
    start, end = (shown.locator("span").nth(place) for place in (0, 1))
    expect(end).to_have_text("tar.gz")
    assert start.evaluate("(node) => node.scrollWidth > node.offsetWidth")
    assert end.evaluate("(node) => node.scrollWidth <= node.offsetWidth")
    assert shown.evaluate("(node) => node.offsetHeight") < 30


def test_buffering_proxy_is_reported(users: Users, user: str) -> None:
    page = users.open(ELEMENT, user=user)

    apply(page, state="completed", bytes_transferred=4e9, arrival="buffered")

    expect(row(page, "test.bin")).to_contain_text("buffered by a proxy")


def test_page_can_style_the_element(users: Users, user: str) -> None:
    style = (
        "<style>upload-progress { --upload-progress-accent: rgb(1, 2, 3) }"
        "upload-progress::part(name) { color: rgb(4, 5, 6) }</style>"
    )
    page = users.open(style + ELEMENT, user=user, policy="")
    apply(page, bytes_transferred=1e9)
    element = row(page, "test.bin")
    expect(element).to_be_visible()

    assert element.locator(".received").first.evaluate(STYLE, "background-color") == "rgb(1, 2, 3)"
    assert element.locator(".name").evaluate(STYLE, "color") == "rgb(4, 5, 6)"
