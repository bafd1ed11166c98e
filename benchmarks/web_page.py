"""Budget 19: what a page costs that follows 200 uploads, and how soon it shows a bar.

In a real Chromium, on the demo's page. Batches of 200 snapshots are handed to the component as if a
socket had brought them; timed is the script alone: reading the JSON, keeping the newest, and the
frame that changes what is shown. Then uploads are begun, and the page says when their bars were
there.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.common import CannotRun, Figure, percentile, run
from tests._support.demo_process import running_demo

CLAIM = "a page that follows uploads"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
UPLOADS = 200
BATCHES = 100
BARS = 20
FRAME_MS = 16
BAR_MS = 200

FOLLOW = """
async ([component, uploads, batches]) => {
  const { ProgressFeed } = await import(component);
  const bars = document.createElement("upload-progress");
  bars.setAttribute("src", "/nowhere");
  document.body.append(bars);
  const feed = ProgressFeed.of("/nowhere");
  const real = window.requestAnimationFrame;
  let spent = 0;
  window.requestAnimationFrame = (draw) => real((now) => {
    const begun = performance.now();
    draw(now);
    spent += performance.now() - begun;
  });
  const taken = [];
  for (let batch = 0; batch <= batches; batch++) {
    const messages = Array.from({ length: uploads }, (_, number) => {
      const id = `upload-${number}`;
      bars.add(id);
      return JSON.stringify({ type: "progress", upload: {
        upload_id: id, group: null, sequence: batch + 1, attempt: 1, state: "receiving",
        bytes_transferred: batch * 1e6, total_bytes: 1e8, percent: batch, stage: null,
        bytes_per_second: 1e6 + batch, eta_seconds: 100 - batch, stalled: false, arrival: null,
        filename: `file-${number}.bin`,
        created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z", error: null,
      } });
    });
    const begun = performance.now();
    for (const message of messages) feed.accept(JSON.parse(message).upload);
    spent = performance.now() - begun;
    await new Promise((resolve) => real(() => real(resolve)));
    // In the first, the rows are made.
    taken.push(spent);
  }
  bars.remove();
  window.requestAnimationFrame = real;
  return taken;
}
"""
SEND = """
async (name) => {
  const bars = document.querySelector("upload-progress");
  const shown = (state) => new Promise((resolve) => {
    const look = () => {
      const rows = [...bars.shadowRoot.querySelectorAll("li")];
      const row = rows.find((one) => one.querySelector(".name").textContent === name);
      if (!row || !row.matches(state)) return;
      watcher.disconnect();
      resolve(performance.now() - begun);
    };
    const watcher = new MutationObserver(look);
    watcher.observe(bars.shadowRoot, { subtree: true, childList: true, attributes: true });
  });
  const begun = performance.now();
  const times = [shown("li"), shown("[data-state=receiving]")];
  const transfer = bars.upload(new File([new Uint8Array(2e6)], name), "/files/{name}");
  const found = await Promise.all(times);
  await transfer.cancel();
  await transfer.done;
  return found;
}
"""


def open_demo(browser: Browser, url: str) -> Page:
    """Return the demo's page, signed in."""
    page = browser.new_page()
    page.goto(url)
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("alice")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("upload-progress[data-connection=websocket]")
    return page


def measure() -> list[Figure]:
    """Follow made-up uploads, and begin real ones."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise CannotRun("no Chromium or Chrome was found")
    with sync_playwright() as playwright, running_demo("--slow", "1M") as demo:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = open_demo(browser, demo.url)
        component = page.locator("script[integrity]").get_attribute("src")
        made, *batches = page.evaluate(FOLLOW, [component, UPLOADS, BATCHES])
        bars = [page.evaluate(SEND, f"bar-{number}.bin") for number in range(BARS)]
        browser.close()
    most = percentile(batches, 0.95)
    first = max(first for first, _ in bars)
    received = max(received for _, received in bars)
    return [
        Figure(what=f"script to make {UPLOADS} rows", value=made, unit="ms"),
        Figure(
            what=f"script for a batch of {UPLOADS} snapshots, median",
            value=percentile(batches, 0.5),
            unit="ms",
        ),
        Figure(
            what=f"script for a batch of {UPLOADS} snapshots, p95",
            value=most,
            unit="ms",
            budget=f"<= {FRAME_MS}",
            holds=most <= FRAME_MS,
        ),
        Figure(
            what=f"script for a batch of {UPLOADS} snapshots, longest of {BATCHES}",
            value=max(batches),
            unit="ms",
        ),
        Figure(
            what=f"from the beginning of an upload to its bar, longest of {BARS}",
            value=first,
            unit="ms",
            budget=f"<= {BAR_MS}",
            holds=first <= BAR_MS,
        ),
        Figure(
            what=f"until the server's word is in it, longest of {BARS}",
            value=received,
            unit="ms",
            budget=f"<= {BAR_MS}",
            holds=received <= BAR_MS,
        ),
    ]


if __name__ == "__main__":
    run(CLAIM, measure)
