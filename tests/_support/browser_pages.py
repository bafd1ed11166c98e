"""What a test does in a page, and what it looks for there."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import DEADLINE_MS

expect.set_options(timeout=DEADLINE_MS)

SEND = """
([name, size, url, options]) => {
  const file = new File([new Uint8Array(size)], name, { type: "application/octet-stream" });
  window.transfer = component.upload(file, url, options);
  return window.transfer.id;
}
"""

# Writes down each different look of a row.
RECORD = """
(name) => {
  window.looks = [];
  const root = document.querySelector("upload-progress").shadowRoot;
  const look = () => {
    const row = [...root.querySelectorAll("li")].find(
      (one) => one.querySelector(".name").textContent === name);
    if (!row) return;
    const stage = row.querySelector(".stage:not([hidden])");
    const seen = {
      state: row.dataset.state,
      words: row.querySelector("b").textContent,
      now: Number(row.querySelector(".bar").getAttribute("aria-valuenow")),
      stage: stage && Number(stage.getAttribute("aria-valuenow")),
    };
    if (JSON.stringify(window.looks.at(-1)) !== JSON.stringify(seen)) window.looks.push(seen);
  };
  const what = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(look).observe(root, what);
}
"""


def send(
    page: Page,
    name: str,
    *,
    megabytes: float = 1,
    hold: float | None = None,
    url: str = "/files/{name}",
    **options: object,
) -> str:
    """Send a file from the page; with *hold* the server stops reading there. Return its id."""
    query = "" if hold is None else f"?hold={hold}"
    arguments = [name, int(megabytes * 1_000_000), url + query, options]
    upload_id = page.evaluate(SEND, arguments)
    assert isinstance(upload_id, str)
    return upload_id


def release(page: Page, name: str) -> None:
    """Let the server read on."""
    page.evaluate("(name) => fetch(`/release/${name}`, { method: 'POST' })", name)


def row(page: Page, name: str) -> Locator:
    """Return the row of the file *name*."""
    return page.locator("upload-progress li", has=page.get_by_text(name, exact=True))


def in_state(page: Page, name: str, state: str) -> Locator:
    """Return the row of the file *name*, if it is in that state."""
    return page.locator(f'upload-progress li[data-state="{state}"]', has_text=name)


def looks(page: Page) -> list[dict[str, float | str | None]]:
    """Return what ``RECORD`` has written down."""
    found: list[dict[str, float | str | None]] = page.evaluate("window.looks")
    return found


def events(page: Page, name: str) -> list[str | None]:
    """Return the states that events of that name have told of."""
    return [state for event, state in page.evaluate("window.seen") if event == name]


def is_connected(page: Page, *, by: str) -> None:
    """Wait until the page is fed by that transport."""
    expect(page.locator("upload-progress").first).to_have_attribute("data-connection", by)
