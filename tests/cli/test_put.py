from __future__ import annotations

from pathlib import Path

import pytest

from upload_progress.cli.put import find_files
from upload_progress.exceptions import InvalidValue

URL = "http://h/files/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "sub/b", "sub/c"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folder_is_expanded_to_its_files(folder: Path) -> None:
    files = find_files([str(folder), str(folder / "sub/b")], URL)

    assert [(each.name, each.target) for each in files] == [
        ("a", "http://h/files/a"),
        ("sub/b", "http://h/files/sub/b"),
        ("sub/c", "http://h/files/sub/c"),
        ("b", "http://h/files/b"),
    ]


def test_single_file_is_sent_to_the_given_url(folder: Path) -> None:
    [file] = find_files([str(folder / "a")], "http://ann:pw@h/other")

    assert file.target == "http://h/other"
    assert "pw" not in repr(file)


@pytest.mark.parametrize(
    ("names", "url", "text"),
    [
        (["missing"], URL, "missing: No such file"),
        (["empty"], URL, "contains no file"),
        (["a", "sub/b"], "http://h/x", "must end with /"),
        (["sub"], "http://h/x", "must end with /"),
        (["a", "a"], URL, "would overwrite"),
        (["a"], "h/x", "URL: must begin with"),
    ],
)
def test_invalid_arguments_are_rejected(
    folder: Path, names: list[str], url: str, text: str
) -> None:
    with pytest.raises(InvalidValue, match=text):
        find_files([str(folder / name) for name in names], url)
