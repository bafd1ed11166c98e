"""How it looks: pictures to be looked at, and what of it can be measured.

The README's picture is the wide light one: copy it from build/screenshots to docs/images.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import define
from playwright.sync_api import Page, expect

from tests.browser.conftest import SCREENSHOTS, Curl, SignedIn
from tests.browser.test_page import choose, file_of, in_state, row
from tests.demo_process import DemoProcess

WIDE = {"width": 920, "height": 900}
NARROW = {"width": 360, "height": 800}
LOOKS = [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)]
NAMES = ["wide-light", "wide-dark", "narrow-light", "narrow-dark"]

# The contrast of WCAG 2.2 (section 1.4.3) of each text that is shown, against what is behind it.
CONTRASTS = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentNode ?? one.host) {
      if (one instanceof ShadowRoot || one instanceof Document) continue;
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3) return color;
    }
    return [255, 255, 255];
  };
  const roots = [document, document.querySelector("upload-progress").shadowRoot];
  const nodes = roots.flatMap((root) => [...root.querySelectorAll("*")]);
  return nodes
    .filter((node) => [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim()))
    .filter((node) => node.checkVisibility() && !node.closest("head"))
    .map((node) => {
      const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
      return [node.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}
"""


def stage_scene(page: Page, curl: Curl, url: str, folder: Path) -> None:
    """Bring uploads into different states, and return while they are."""
    big = file_of(folder, "app-2.4.1-linux-x86_64.tar.zst", 40)
    choose(page, file_of(folder, "upload_progress-0.1.0-py3-none-any.whl", 0.18))
    expect(in_state(page, "upload_progress", "completed")).to_be_visible()
    choose(page, file_of(folder, "holiday-film.mkv", 90))
    expect(in_state(page, "holiday-film", "receiving")).to_be_visible()
    page.get_by_role("button", name="Cancel holiday-film").click()
    broken = curl("--upload-file", str(big), f"{url}/files/nightly-backup.sql.gz")
    expect(row(page, "nightly-backup").locator(".percent")).to_have_text(re.compile(r"^[1-9]"))
    broken.kill()
    expect(in_state(page, "nightly-backup", "failed")).to_be_visible()
    choose(page, big)
    expect(row(page, "app-2.4.1").locator(".percent")).to_have_text(re.compile(r"^[45]\d %"))
    choose(page, file_of(folder, "model-weights.safetensors", 60))
    expect(in_state(page, "app-2.4.1", "processing")).to_contain_text(re.compile(r"[2-7]\d %"))


@define
class Camera:
    """A kind of screen, and where its pictures go."""

    name: str
    options: dict[str, object]

    def shoot(self, page: Page, subject: str) -> None:
        page.mouse.move(0, 0)
        page.screenshot(path=SCREENSHOTS / f"{subject}-{self.name}.png", full_page=True)


@pytest.fixture(params=LOOKS, ids=NAMES)
def camera(request: pytest.FixtureRequest) -> Camera:
    scheme, viewport = request.param
    options = {"color_scheme": scheme, "viewport": viewport, "device_scale_factor": 1.5}
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return Camera(f"{'wide' if viewport is WIDE else 'narrow'}-{scheme}", options)


def fits(page: Page) -> bool:
    """Tell whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_uploads_in_different_states(
    signed_in: SignedIn, curl: Curl, demo: DemoProcess, camera: Camera, tmp_path: Path
) -> None:
    page = signed_in("alice", **camera.options)

    stage_scene(page, curl, demo.url, tmp_path)
    camera.shoot(page, "demo")

    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
    assert fits(page)


def test_nothing_there_and_signing_in(signed_in: SignedIn, camera: Camera) -> None:
    page = signed_in("bob", **camera.options)
    expect(page.get_by_text("Nothing is being uploaded.")).to_be_visible()
    camera.shoot(page, "empty")
    assert fits(page)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Name")).to_be_focused()
    camera.shoot(page, "login")

    assert fits(page)
