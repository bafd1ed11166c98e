"""Received files on disk: a space per user, in which a file is whole or not there.

``DIR/USER/incoming`` holds what is arriving, ``files`` what has arrived, ``sha256`` a checksum
for each. A file moves from the first to the second by one rename. Its checksum is taken away
before and written after, so that a crash between leaves a file without a checksum, and never
one with the checksum of another.
"""

import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import frozen

from upload_progress.exceptions import InvalidValue

__all__ = ["LONGEST_NAME_BYTES", "FileSpace", "StoredFile", "safe_name"]

LONGEST_NAME_BYTES: Final = 200


@frozen
class StoredFile:
    """A received file, as it is listed; ``sha256`` None where it is not known."""

    name: str
    size: int
    sha256: str | None
    uploaded_at: datetime


def safe_name(raw: str) -> str:
    """Return *raw* as a file name: its last segment, visible characters only, no leading dot.

    Raises:
        InvalidValue: Nothing is left, or too much.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", raw))[-1]
    visible = "".join(character for character in last if character.isprintable())
    name = visible.strip(" ").lstrip(".").strip(" ")
    if not name:
        raise InvalidValue("filename", "names no file")
    if len(name.encode()) > LONGEST_NAME_BYTES:
        raise InvalidValue("filename", f"is longer than {LONGEST_NAME_BYTES} bytes")
    return name


@frozen
class FileSpace:
    """The files of all users, under one folder. Its methods block: call them in a thread."""

    root: Path

    def prepare(self) -> None:
        """Make the folder, and remove what an earlier run was receiving when it was killed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for partial in self.root.glob("*/incoming/*"):
            partial.unlink()

    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        """Lend a path for a file that arrives; what is still there afterwards is removed."""
        path = self._folder(user, "incoming") / secrets.token_hex(8)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def publish(self, partial: Path, user: str, name: str, sha256: str) -> StoredFile:
        """Make what has arrived the file *name* of *user*, in place of an older one."""
        checksum = self._folder(user, "sha256") / name
        checksum.unlink(missing_ok=True)
        path = partial.replace(self._folder(user, "files") / name)
        with self.partial(user) as note:
            note.write_text(sha256, encoding="ascii")
            note.replace(checksum)
        return self._stored(path)

    def list(self, user: str) -> list[StoredFile]:
        """Return the files of *user*, newest first."""
        files = [self._stored(path) for path in self._folder(user, "files").iterdir()]
        return sorted(files, key=lambda file: (file.uploaded_at, file.name), reverse=True)

    def find(self, user: str, name: str) -> Path | None:
        """Return where the file *name* of *user* is; None where there is none."""
        path = self._folder(user, "files") / name
        return path if path.is_file() else None

    def _folder(self, user: str, purpose: str) -> Path:
        folder = self.root / user / purpose
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stored(self, path: Path) -> StoredFile:
        facts = path.stat()
        checksum = path.parent.parent / "sha256" / path.name
        return StoredFile(
            name=path.name,
            size=facts.st_size,
            sha256=checksum.read_text(encoding="ascii") if checksum.is_file() else None,
            uploaded_at=datetime.fromtimestamp(facts.st_mtime, UTC),
        )
