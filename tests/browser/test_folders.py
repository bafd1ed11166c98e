"""Folders: chosen, and dropped as by a person, with a real folder of the file system."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests._support.browser_pages import in_state
from tests.browser.conftest import Users

FORM = """
<form action="/files/" data-upload-progress data-upload-url="/files/{url}" data-upload-auto{more}>
  <input type="file" name="file" webkitdirectory aria-label="Folder">
</form>
"""
NAMES = ["a.bin", "old/a.bin", "old/new/ü 1.bin", ".hidden", ".git/config", "old/.DS_Store"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with files, folders, an empty folder and hidden files."""
    folder = tmp_path / "photos"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    (folder / "empty").mkdir()
    return folder


def drop(page: Page, selector: str, *paths: Path) -> None:
    """Drop files and folders on an element, as the operating system does."""
    box = page.locator(selector).bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    place = {"x": box["x"] + 5, "y": box["y"] + 5, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place})


def sent_paths(page: Page) -> list[str]:
    """Return the paths of the uploads that the page has sent."""
    names: list[str] = page.evaluate(
        "performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    )
    return sorted(name for name in names if name.startswith("/files/"))


def test_dropped_folder_keeps_its_paths_without_hidden_files(
    users: Users, user: str, folder: Path, tmp_path: Path
) -> None:
    page = users.open(FORM.replace("{url}", "{path}").replace("{more}", ""), user=user)
    single = tmp_path / ".profile"
    single.write_bytes(bytes(1000))

    drop(page, "form", folder, single)

    # This file was chosen by its name.
    for name in ("photos/a.bin", "photos/old/a.bin", "photos/old/new/ü 1.bin", ".profile"):
        expect(in_state(page, name, "completed")).to_be_visible()
    expect(page.locator("upload-progress li")).to_have_count(4)
    expect(page.get_by_text("Hidden files skipped: 3.")).to_be_visible()
    assert sent_paths(page) == [
        "/files/.profile",
        "/files/photos/a.bin",
        "/files/photos/old/a.bin",
        "/files/photos/old/new/%C3%BC%201.bin",
    ]


def test_chosen_folder_keeps_its_paths(users: Users, user: str, folder: Path) -> None:
    form = FORM.replace("{url}", "{path}").replace("{more}", " data-upload-hidden")
    page = users.open(form, user=user)

    page.get_by_label("Folder").set_input_files(folder)

    for name in NAMES:
        expect(in_state(page, f"photos/{name}", "completed")).to_be_visible()
    expect(page.locator("upload-progress .note")).to_be_hidden()
    assert len(sent_paths(page)) == len(NAMES)


def test_large_folder_is_read_to_its_end(users: Users, user: str, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    # A browser returns a hundred entries at a time.
    for number in range(230):
        (folder / f"{number}.txt").touch()
    form = FORM.replace("{url}", "{path}").replace("{more}", "")
    body = f'{form}<upload-progress src="/uploads" panel></upload-progress>'
    page = users.open(
        body.replace("data-upload-progress", 'data-upload-progress="upload-progress"'), user=user
    )
    # Nothing is sent.
    page.route("**/files/**", lambda route: None)

    drop(page, "form", folder)

    expect(page.locator("upload-progress .total")).to_contain_text("0 of 230 files")


def test_file_that_cannot_be_read_is_said(users: Users, user: str, tmp_path: Path) -> None:
    page = users.open(FORM.replace("{url}", "{path}").replace("{more}", ""), user=user)
    # A folder that vanishes before it is read.
    page.evaluate(
        "DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true, name: 'gone',"
        " createReader: () => ({ readEntries: (_, reject) => reject(new Error('gone')) }) })"
    )

    drop(page, "form", tmp_path)

    expect(page.get_by_text("Files or folders that cannot be read: 1.")).to_be_visible()
