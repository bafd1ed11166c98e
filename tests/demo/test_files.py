"""Files on disk: whole or not there, each user's own, under names that stay in their folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress.demo.files import LONGEST_NAME_BYTES, FileSpace, safe_name
from upload_progress.exceptions import InvalidValue


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("app.whl", "app.whl"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/abs/olute.bin", "olute.bin"),
        (" .bashrc ", "bashrc"),
        ("Zürich.txt", "Zürich.txt"),
        ("Zu\u0308rich.txt", "Zürich.txt"),
        ("a\r\nb\x00c.txt", "abc.txt"),
        ("invoice\u202etxt.exe", "invoicetxt.exe"),
        ("a" * LONGEST_NAME_BYTES, "a" * LONGEST_NAME_BYTES),
    ],
)
def test_a_name_is_one_visible_segment(raw: str, name: str) -> None:
    assert safe_name(raw) == name


@pytest.mark.parametrize("raw", ["", ".", "..", "a/", "\\", "...", "\ud800", "ü" * 101])
def test_what_cannot_be_a_name_is_refused(raw: str) -> None:
    with pytest.raises(InvalidValue, match="filename"):
        safe_name(raw)


@given(st.text())
def test_a_safe_name_is_safe_whatever_it_was(raw: str) -> None:
    try:
        name = safe_name(raw)
    except InvalidValue:
        return
    assert Path(name).name == name
    assert name not in {"", ".", ".."}
    assert safe_name(name) == name


@pytest.fixture
def space(tmp_path: Path) -> FileSpace:
    space = FileSpace(tmp_path / "space")
    space.prepare()
    return space


def store(space: FileSpace, name: str, content: bytes, *, user: str = "alice") -> None:
    with space.partial(user) as partial:
        partial.write_bytes(content)
        space.publish(partial, user, name, f"sha of {content!r}")


def test_a_file_is_listed_with_its_checksum_and_found(space: FileSpace) -> None:
    store(space, "a.bin", b"one")

    [file] = space.list("alice")
    assert (file.name, file.size, file.sha256) == ("a.bin", 3, "sha of b'one'")
    path = space.find("alice", "a.bin")
    assert path is not None
    assert path.read_bytes() == b"one"


def test_a_second_file_of_a_name_replaces_the_first(space: FileSpace) -> None:
    store(space, "a.bin", b"one")
    store(space, "a.bin", b"three")

    assert [(file.size, file.sha256) for file in space.list("alice")] == [(5, "sha of b'three'")]


def test_nobody_sees_the_files_of_others(space: FileSpace) -> None:
    store(space, "a.bin", b"one")

    assert space.list("bob") == []
    assert space.find("bob", "a.bin") is None


def test_what_does_not_arrive_leaves_nothing(space: FileSpace) -> None:
    with space.partial("alice") as partial:
        partial.write_bytes(b"half")

    assert [path for path in space.root.rglob("*") if path.is_file()] == []
    assert space.list("alice") == []


class Crashing(FileSpace):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield self.root / "no such folder" / user


def test_a_crash_between_file_and_checksum_leaves_no_wrong_checksum(space: FileSpace) -> None:
    store(space, "a.bin", b"one")

    with space.partial("alice") as partial:
        partial.write_bytes(b"three")
        with pytest.raises(FileNotFoundError):
            Crashing(space.root).publish(partial, "alice", "a.bin", "sha of b'three'")

    assert [(file.size, file.sha256) for file in space.list("alice")] == [(5, None)]


def test_what_a_killed_run_left_is_removed(space: FileSpace) -> None:
    left = space.root / "alice" / "incoming" / "1234"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    store(space, "a.bin", b"one")

    space.prepare()

    assert not left.exists()
    assert [file.name for file in space.list("alice")] == ["a.bin"]
