"""File storage of the demo: atomic, separate per user, with safe names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress.demo.files import MAX_NAME_BYTES, FileStorage, safe_name
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
        ("a" * MAX_NAME_BYTES, "a" * MAX_NAME_BYTES),
    ],
)
def test_a_name_is_one_visible_segment(raw: str, name: str) -> None:
    assert safe_name(raw) == name


@pytest.mark.parametrize("raw", ["", ".", "..", "a/", "\\", "...", "\ud800", "ü" * 101])
def test_invalid_name_is_rejected(raw: str) -> None:
    with pytest.raises(InvalidValue, match="filename"):
        safe_name(raw)


@given(st.text())
def test_safe_name_is_safe_for_any_text(raw: str) -> None:
    try:
        name = safe_name(raw)
    except InvalidValue:
        return
    assert Path(name).name == name
    assert name not in {"", ".", ".."}
    assert safe_name(name) == name


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    storage = FileStorage(tmp_path / "storage")
    storage.prepare()
    return storage


def store(storage: FileStorage, name: str, content: bytes, *, user: str = "alice") -> None:
    with storage.partial(user) as partial:
        partial.write_bytes(content)
        storage.publish(partial, user, name, f"sha of {content!r}")


def test_published_file_is_listed_with_its_checksum(storage: FileStorage) -> None:
    store(storage, "a.bin", b"one")

    [file] = storage.list("alice")
    assert (file.name, file.size, file.sha256) == ("a.bin", 3, "sha of b'one'")
    path = storage.find("alice", "a.bin")
    assert path is not None
    assert path.read_bytes() == b"one"


def test_second_file_of_the_same_name_replaces_the_first(storage: FileStorage) -> None:
    store(storage, "a.bin", b"one")
    store(storage, "a.bin", b"three")

    assert [(file.size, file.sha256) for file in storage.list("alice")] == [(5, "sha of b'three'")]


def test_users_do_not_see_files_of_each_other(storage: FileStorage) -> None:
    store(storage, "a.bin", b"one")

    assert storage.list("bob") == []
    assert storage.find("bob", "a.bin") is None


def test_incomplete_file_is_removed(storage: FileStorage) -> None:
    with storage.partial("alice") as partial:
        partial.write_bytes(b"half")

    assert [path for path in storage.root.rglob("*") if path.is_file()] == []
    assert storage.list("alice") == []


class CrashingStorage(FileStorage):
    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        yield self.root / "no such folder" / user


def test_crash_between_file_and_checksum_leaves_no_wrong_checksum(storage: FileStorage) -> None:
    store(storage, "a.bin", b"one")

    with storage.partial("alice") as partial:
        partial.write_bytes(b"three")
        with pytest.raises(FileNotFoundError):
            CrashingStorage(storage.root).publish(partial, "alice", "a.bin", "sha of b'three'")

    assert [(file.size, file.sha256) for file in storage.list("alice")] == [(5, None)]


def test_partial_files_of_a_killed_process_are_removed(storage: FileStorage) -> None:
    partial = storage.root / "alice" / "incoming" / "1234"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"half")
    store(storage, "a.bin", b"one")

    storage.prepare()

    assert not partial.exists()
    assert [file.name for file in storage.list("alice")] == ["a.bin"]
