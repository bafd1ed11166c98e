"""Bars for everybody: who listens, types, sees little, reads right to left or another language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import in_state, release, row, send
from tests.browser.conftest import People

ALL = '<upload-progress src="/uploads" all></upload-progress>'

# What a screen reader is told, in order.
LISTEN = """
() => {
  window.told = [];
  const region = document.querySelector("upload-progress").shadowRoot.querySelector(".spoken");
  const note = () => region.textContent && told.push(region.textContent);
  const what = { childList: true, characterData: true, subtree: true };
  new MutationObserver(note).observe(region, what);
}
"""
FAULTS = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
  .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(", ")}`)
"""
STYLE = "(node, name) => getComputedStyle(node).getPropertyValue(name)"
# Of nothing that a server has to confirm: it follows what a test makes up.
BARE = '<upload-progress src="/uploads"></upload-progress>'
FEED = """
(upload) => {
  const { upload_id = "made-up" } = upload;
  document.querySelector("upload-progress").add(upload_id);
  component.ProgressFeed.of("/uploads").accept({
  upload_id, group: null, sequence: 1, attempt: 1, state: "receiving", stage: null,
  bytes_transferred: 0, total_bytes: 4e9, percent: 0, bytes_per_second: null, eta_seconds: null,
  stalled: false, arrival: null, filename: "made-up.bin", error: null,
  created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z", ...upload,
  });
}
"""


def feed(page: Page, **upload: object) -> None:
    """Give the page a snapshot, as if the server had said it."""
    page.evaluate(FEED, upload)


def axe(page: Page, modules: Path) -> list[str]:
    """Return what axe-core finds wrong with the page."""
    page.evaluate((modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    # Where colours are still changing, it sees those of no state.
    page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished)).catch(() => 0)")
    found: list[str] = page.evaluate(FAULTS)
    return found


def show_every_state(page: Page) -> None:
    """Bring a row of each look onto the page."""
    states = ["pending", "receiving", "paused", "processing", "completed", "failed", "cancelled"]
    for number, state in enumerate(states):
        more: dict[str, object] = {}
        if state == "failed":
            more["error"] = {"code": "app_error", "message": "The virus scanner said no."}
        if state == "processing":
            more["stage"] = {"name": "scanning", "done": 1, "total": 4}
        share = {"pending": 0, "processing": 1, "completed": 1}.get(state, number / 8)
        names = {"upload_id": state, "filename": f"{state}.bin"}
        feed(page, state=state, bytes_transferred=share * 4e9, **names, **more)
    feed(page, upload_id="stalled", filename="stalled.bin", bytes_transferred=1e9, stalled=True)
    feed(page, upload_id="unknown", filename="unknown.bin", bytes_transferred=1e6, total_bytes=None)
    expect(page.locator("upload-progress li")).to_have_count(9)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1000])
def test_axe_finds_nothing(
    people: People, user: str, modules: Path, scheme: str, width: int
) -> None:
    body = f"<style>body {{ background: Canvas; color: CanvasText }}</style>{BARE}"
    screen = {"width": width, "height": 800}
    page = people.open(body, user=user, policy="", color_scheme=scheme, viewport=screen)
    show_every_state(page)

    assert axe(page, modules) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_everything_can_be_done_by_keyboard(people: People, user: str) -> None:
    page = people.open(ALL, user=user)
    send(page, "a.bin", megabytes=4, hold=0.01)
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


def test_a_quarter_is_told_once_and_the_end_instead_of_what_nobody_heard(
    people: People, user: str
) -> None:
    page = people.open(BARE, user=user, clock=True)
    page.clock.run_for(1000)
    page.evaluate(LISTEN)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))

    for number, share in enumerate((0, 0.26, 0.3, 0.49, 0.5, 0.8)):
        feed(page, sequence=number + 1, bytes_transferred=share * 4e9)
        page.clock.run_for(1000)
    feed(page, sequence=8, bytes_transferred=4e9, state="completed")
    page.clock.run_for(1000)

    names = ["Receiving", "25%", "50%", "75%", "Completed"]
    assert page.evaluate("told") == [f"made-up.bin: {name}" for name in names]


def test_many_at_once_are_told_in_one_sentence(people: People, user: str) -> None:
    page = people.open(BARE, user=user, clock=True)
    page.clock.run_for(1000)
    page.evaluate(LISTEN)

    for number in range(5):
        feed(page, upload_id=f"{number}", filename=f"{number}.bin", bytes_transferred=2e9)
    page.clock.run_for(1000)

    assert page.evaluate("told") == ["0 of 5 uploads, 50%"]


def test_the_region_that_speaks_does_so_politely(people: People, user: str) -> None:
    page = people.open(BARE, user=user)

    expect(page.locator("upload-progress .spoken")).to_have_role("status")


def test_nothing_moves_for_those_who_asked_for_that(people: People, user: str) -> None:
    page = people.open(BARE, user=user, reduced_motion="reduce")
    feed(page, bytes_transferred=1e6, total_bytes=None)
    bar = row(page, "made-up.bin").locator(".got").first
    expect(bar).to_be_visible()

    moving = page.evaluate(
        "document.querySelector('upload-progress').shadowRoot.getAnimations().length"
    )

    assert moving == 0
    assert bar.evaluate(STYLE, "transition-duration") in {"0s", "all 0s"}


def test_from_right_to_left_a_bar_grows_from_the_right(people: People, user: str) -> None:
    page = people.open(f'<div dir="rtl" lang="ar">{BARE}</div>', user=user)
    feed(page, bytes_transferred=1e9)
    bar = row(page, "made-up.bin").locator(".bar").first
    expect(bar).to_have_attribute("aria-valuenow", "25")

    outer, inner = bar.bounding_box(), bar.locator(".got").bounding_box()

    assert outer
    assert inner
    assert inner["x"] + inner["width"] == pytest.approx(outer["x"] + outer["width"], abs=1)
    # Its name, and what can be done, read from the right, too.
    name, percent = (
        row(page, "made-up.bin").locator(one).bounding_box() for one in (".name", ".percent")
    )
    assert name
    assert percent
    assert percent["x"] < name["x"]
    assert row(page, "made-up.bin").locator(".name").evaluate(STYLE, "text-align") == "right"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", r"25%Cancel.*Receiving1\.0\sGB\sof\s4\.0\sGB10\.0\sMB/s5\smin\sleft"),
        ("es-MX", r"25\s?%Cancelar.*Recibiendo1\.0\sGB\sde\s4\.0\sGB10\.0\sMB/squedan\s5\smin"),
        ("de", r"25\s%Abbrechen.*Wird\sempfangen1,0\sGB\svon\s4,0\sGB10,0\sMB/snoch\s5\sMin\."),
        # A language that is not here is English, with English numbers.
        ("fr", r"25%Cancel.*Receiving1\.0\sGB\sof\s4\.0\sGB10\.0\sMB/s5\smin\sleft"),
    ],
)
def test_it_speaks_the_language_of_the_page(
    people: People, user: str, language: str, words: str
) -> None:
    page = people.open(f'<div lang="{language}">{BARE}</div>', user=user)

    feed(page, bytes_transferred=1e9, bytes_per_second=1e7, eta_seconds=299)

    expect(row(page, "made-up.bin")).to_have_text(re.compile(words))


def test_a_language_of_your_own(people: People, user: str) -> None:
    labels = '{"receiving": "Réception", "of": "{0} sur {1}", "cancel": "Annuler"}'
    body = (
        f"<div lang='fr'><upload-progress src='/uploads' labels='{labels}'></upload-progress></div>"
    )
    page = people.open(body, user=user)

    feed(page, bytes_transferred=1e9)

    expect(row(page, "made-up.bin")).to_have_text(
        re.compile(r"25\s%Annuler.*Réception1,0\sGo\ssur\s4,0\sGo")
    )


def test_every_language_has_every_word(people: People) -> None:
    page = people.open("")

    keys = page.evaluate("Object.values(component.LABELS).map((one) => Object.keys(one).sort())")

    assert len(keys) == 3
    assert keys[0] == keys[1] == keys[2]


def test_the_digits_of_speed_and_time_stay_calm(people: People, user: str) -> None:
    page = people.open(BARE, user=user, clock=True)
    page.clock.run_for(1000)
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    facts = row(page, "made-up.bin").locator(".facts")

    feed(page, sequence=1, bytes_transferred=1e9, bytes_per_second=1e7, eta_seconds=50)
    page.clock.run_for(1000)
    expect(facts).to_contain_text("10.0 MB/s")
    feed(page, sequence=2, bytes_transferred=1.1e9, bytes_per_second=2e7, eta_seconds=49)
    page.clock.run_for(200)
    feed(page, sequence=3, bytes_transferred=1.2e9, bytes_per_second=3e7, eta_seconds=48)
    page.clock.run_for(200)

    expect(facts).to_contain_text("1.2 GB of 4.0 GB")
    expect(facts).to_contain_text("20.0 MB/s")


def test_a_proxy_that_holds_bytes_back_is_named(people: People, user: str) -> None:
    page = people.open(BARE, user=user)

    feed(page, state="completed", bytes_transferred=4e9, arrival="buffered")

    expect(row(page, "made-up.bin")).to_contain_text("a proxy held the bytes back")


def test_the_page_may_dress_it(people: People, user: str) -> None:
    style = (
        "<style>upload-progress { --upload-progress-accent: rgb(1, 2, 3) }"
        "upload-progress::part(name) { color: rgb(4, 5, 6) }</style>"
    )
    page = people.open(style + BARE, user=user, policy="")
    feed(page, bytes_transferred=1e9)
    one = row(page, "made-up.bin")
    expect(one).to_be_visible()

    assert one.locator(".got").first.evaluate(STYLE, "background-color") == "rgb(1, 2, 3)"
    assert one.locator(".name").evaluate(STYLE, "color") == "rgb(4, 5, 6)"
