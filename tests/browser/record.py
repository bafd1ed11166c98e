"""Record the animated picture of the demo: the real page, while it uploads two files.

``python -m tests.browser.record`` needs Pillow, and writes docs/images/demo.gif.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests._support.demo_process import running_demo
from tests._support.paths import ROOT
from tests.browser.conftest import CHROMIUM_ARGUMENTS

PICTURE = ROOT / "docs" / "images" / "demo.gif"
FILES = {"holiday-film.mkv": 34_000_000, "field-notes.tar": 17_000_000}
VIEWPORT = {"width": 820, "height": 380}
COLORS = 64
PAUSE_MS = 3000
TOP = """
scrollTo(0, document.querySelector("#uploads-title").getBoundingClientRect().top + scrollY - 16)
"""


def record(page: Page, folder: Path) -> list[tuple[float, Image.Image]]:
    """Upload the files; return pictures with their times, three in a second."""
    paths = [folder / name for name in FILES]
    for path, size in zip(paths, FILES.values(), strict=True):
        path.write_bytes(os.urandom(size))
    page.locator("#files").set_input_files(paths)
    frames: list[tuple[float, Image.Image]] = []
    is_running = True
    while is_running:
        is_running = page.locator("upload-progress li[data-state=completed]").count() < len(FILES)
        page.evaluate(TOP)
        frames.append((time.monotonic(), Image.open(io.BytesIO(page.screenshot()))))
        page.wait_for_timeout(250)
    return frames


def main() -> None:
    """Record, and write the picture."""
    with running_demo("--slow", "4M") as demo, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        page = browser.new_page(viewport=VIEWPORT)  # type: ignore[arg-type]  # a size
        page.goto(demo.url)
        page.get_by_label("Name").fill("alice")
        page.get_by_label("Password").fill("alice")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("upload-progress[data-connection=websocket]")
        with TemporaryDirectory() as folder:
            frames = record(page, Path(folder))
        browser.close()
    times = [at for at, _ in frames]
    durations = [round(1000 * (after - at)) for at, after in pairwise(times)]
    palette = frames[len(frames) // 2][1].convert("RGB").quantize(COLORS)
    first, *others = [
        image.convert("RGB").quantize(COLORS, palette=palette, dither=Image.Dither.NONE)
        for _, image in frames
    ]
    durations.append(PAUSE_MS)
    first.save(PICTURE, save_all=True, append_images=others, duration=durations, loop=0)


if __name__ == "__main__":
    main()
