"""Budget 19: script time of a page with 200 uploads, and the delay until a bar is shown.

Runs Chromium on the demo page. The component gets batches of 200 snapshots as if from a WebSocket.
Measured is the script time: parsing JSON, applying the snapshots, and rendering the frame. Then the
page starts uploads and measures the time until their bars are shown.
"""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import BenchmarkUnavailable, Figure, percentile, run
from tests._support.demo_process import running_demo

TITLE = "web page with uploads"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
UPLOADS = 200
BATCHES = 100
BARS = 20
FRAME_MS = 16
BAR_MS = 200

APPLY_BATCHES = """
async ([component, uploads, batches]) => {
  const { ProgressClient } = await import(component);
  const element = document.createElement("upload-progress");
  element.setAttribute("src", "/unused");
  document.body.append(element);
  const client = ProgressClient.of("/unused");
  const requestFrame = window.requestAnimationFrame;
  let scriptMs = 0;
  window.requestAnimationFrame = (draw) => requestFrame((now) => {
    const started = performance.now();
    draw(now);
    scriptMs += performance.now() - started;
  });
  const batchMs = [];
  for (let batch = 0; batch <= batches; batch++) {
    const messages = Array.from({ length: uploads }, (_, number) => {
      const id = `upload-${number}`;
      element.add(id);
      return JSON.stringify({ type: "progress", upload: {
        upload_id: id, group: null, sequence: batch + 1, attempt: 1, state: "receiving",
        bytes_transferred: batch * 1e6, total_bytes: 1e8, percent: batch, stage: null,
        bytes_per_second: 1e6 + batch, eta_seconds: 100 - batch, stalled: false, arrival: null,
        filename: `file-${number}.bin`,
        created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z", error: null,
      } });
    });
    const started = performance.now();
    for (const message of messages) client.apply(JSON.parse(message).upload);
    scriptMs = performance.now() - started;
    await new Promise((resolve) => requestFrame(() => requestFrame(resolve)));
    // The first batch creates the rows.
    batchMs.push(scriptMs);
  }
  element.remove();
  window.requestAnimationFrame = requestFrame;
  return batchMs;
}
"""
UPLOAD = """
async (name) => {
  const element = document.querySelector("upload-progress");
  const shown = (state) => new Promise((resolve) => {
    const check = () => {
      const rows = [...element.shadowRoot.querySelectorAll("li")];
      const row = rows.find((one) => one.querySelector(".name").textContent === name);
      if (!row || !row.matches(state)) return;
      observer.disconnect();
      resolve(performance.now() - started);
    };
    const observer = new MutationObserver(check);
    observer.observe(element.shadowRoot, { subtree: true, childList: true, attributes: true });
  });
  const started = performance.now();
  const times = [shown("li"), shown("[data-state=receiving]")];
  const transfer = element.upload(new File([new Uint8Array(2e6)], name), "/files/{name}");
  const shownAfterMs = await Promise.all(times);
  await transfer.cancel();
  await transfer.done;
  return shownAfterMs;
}
"""


def open_demo(browser: Browser, url: str) -> Page:
    """Return the demo page, signed in."""
    page = browser.new_page()
    page.goto(url)
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("alice")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("upload-progress[data-connection=websocket]")
    return page


def measure() -> list[Figure]:
    """Apply generated snapshots, then start real uploads."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise BenchmarkUnavailable("no Chromium or Chrome was found")
    with sync_playwright() as playwright, running_demo("--slow", "1M") as demo:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = open_demo(browser, demo.url)
        component = page.locator("script[integrity]").get_attribute("src")
        first_batch, *batches = page.evaluate(APPLY_BATCHES, [component, UPLOADS, BATCHES])
        bars = [page.evaluate(UPLOAD, f"bar-{number}.bin") for number in range(BARS)]
        browser.close()
    p95 = percentile(batches, 0.95)
    first = max(first for first, _ in bars)
    received = max(received for _, received in bars)
    return [
        Figure(name=f"script time to create {UPLOADS} rows", value=first_batch, unit="ms"),
        Figure(
            name=f"script time for {UPLOADS} snapshots, median",
            value=percentile(batches, 0.5),
            unit="ms",
        ),
        Figure(
            name=f"script time for {UPLOADS} snapshots, p95",
            value=p95,
            unit="ms",
            budget=f"<= {FRAME_MS}",
            is_met=p95 <= FRAME_MS,
        ),
        Figure(
            name=f"script time for {UPLOADS} snapshots, maximum of {BATCHES}",
            value=max(batches),
            unit="ms",
        ),
        Figure(
            name=f"from the start of an upload to its bar, maximum of {BARS}",
            value=first,
            unit="ms",
            budget=f"<= {BAR_MS}",
            is_met=first <= BAR_MS,
        ),
        Figure(
            name=f"until the first state from the server, maximum of {BARS}",
            value=received,
            unit="ms",
            budget=f"<= {BAR_MS}",
            is_met=received <= BAR_MS,
        ),
    ]


if __name__ == "__main__":
    run(TITLE, measure)
