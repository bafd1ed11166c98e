"""Helpers of browser tests: upload a file in a page, find rows, record what a row shows."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import DEADLINE_MS

expect.set_options(timeout=DEADLINE_MS)

UPLOAD = """
([name, size, url, options]) => {
  const file = new File([new Uint8Array(size)], name, { type: "application/octet-stream" });
  window.transfer = component.upload(file, url, options);
  return window.transfer.id;
}
"""

# Records each change of what a row shows.
RECORD = """
(name) => {
  window.rowStates = [];
  const root = document.querySelector("upload-progress").shadowRoot;
  const record = () => {
    const row = [...root.querySelectorAll("li")].find(
      (one) => one.querySelector(".name").textContent === name);
    if (!row) return;
    const stage = row.querySelector(".stage:not([hidden])");
    const rowState = {
      state: row.dataset.state,
      text: row.querySelector("b").textContent,
      now: Number(row.querySelector(".bar").getAttribute("aria-valuenow")),
      stage: stage && Number(stage.getAttribute("aria-valuenow")),
    };
    const previous = JSON.stringify(window.rowStates.at(-1));
    if (previous !== JSON.stringify(rowState)) window.rowStates.push(rowState);
  };
  const options = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(record).observe(root, options);
}
"""


def upload(
    page: Page,
    name: str,
    *,
    megabytes: float = 1,
    hold: float | None = None,
    url: str = "/files/{name}",
    **options: object,
) -> str:
    """Upload a file from the page and return the upload id.

    With *hold*, the server stops reading after that share of the body, until ``release``.
    """
    query = "" if hold is None else f"?hold={hold}"
    arguments = [name, int(megabytes * 1_000_000), url + query, options]
    upload_id = page.evaluate(UPLOAD, arguments)
    assert isinstance(upload_id, str)
    return upload_id


def release(page: Page, name: str) -> None:
    """Let the server continue to read the body."""
    page.evaluate("(name) => fetch(`/release/${name}`, { method: 'POST' })", name)


def row(page: Page, name: str) -> Locator:
    """Return the row of the file *name*."""
    return page.locator("upload-progress li", has=page.get_by_text(name, exact=True))


def in_state(page: Page, name: str, state: str) -> Locator:
    """Return the row of the file *name* in that state."""
    return page.locator(f'upload-progress li[data-state="{state}"]', has_text=name)


def row_states(page: Page) -> list[dict[str, float | str | None]]:
    """Return what ``RECORD`` has recorded."""
    states: list[dict[str, float | str | None]] = page.evaluate("window.rowStates")
    return states


def events(page: Page, name: str) -> list[str | None]:
    """Return the states of the uploads of all events of that name."""
    return [state for event, state in page.evaluate("window.events") if event == name]


def wait_for_connection(page: Page, connection: str) -> None:
    """Wait until the element shows that kind of connection."""
    expect(page.locator("upload-progress").first).to_have_attribute("data-connection", connection)
