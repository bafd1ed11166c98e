from __future__ import annotations

from pathlib import Path

import pytest

from upload_progress.cli.put import plan
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


def test_files_and_folders_become_single_uploads(folder: Path) -> None:
    errands = plan([str(folder), str(folder / "sub/b")], URL)

    assert [(each.name, each.target) for each in errands] == [
        ("a", "http://h/files/a"),
        ("sub/b", "http://h/files/sub/b"),
        ("sub/c", "http://h/files/sub/c"),
        ("b", "http://h/files/b"),
    ]
    assert errands[1].size_bytes == 5


def test_one_file_goes_to_just_that_url(folder: Path) -> None:
    [errand] = plan([str(folder / "a")], "http://ann:pw@h/other")

    assert errand.target == "http://h/other"
    assert "pw" not in repr(errand)


@pytest.mark.parametrize(
    ("names", "url", "words"),
    [
        (["missing"], URL, "missing: No such file"),
        (["empty"], URL, "has no file in it"),
        (["a", "sub/b"], "http://h/x", "must end with /"),
        (["sub"], "http://h/x", "must end with /"),
        (["a", "a"], URL, "would overwrite"),
        (["a"], "h/x", "URL: must begin with"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, names: list[str], url: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        plan([str(folder / name) for name in names], url)
