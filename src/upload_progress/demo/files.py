"""Storage of received files: separate per user, and atomic.

``DIR/USER/incoming`` contains partial files, ``files`` complete files and ``sha256`` the checksum
of each. One rename moves a file from ``incoming`` to ``files``. The checksum is deleted before
and written after it, so a crash in between leaves a file without a checksum, never with a wrong
one.
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

__all__ = ["MAX_NAME_BYTES", "FileStorage", "StoredFile", "safe_name"]

MAX_NAME_BYTES: Final = 200


@frozen
class StoredFile:
    """A received file, as listed.

    Attributes:
        name: The file name.
        size: The size in bytes.
        sha256: The checksum in hexadecimal digits; None if unknown.
        uploaded_at: When the file was completed.
    """

    name: str
    size: int
    sha256: str | None
    uploaded_at: datetime


def safe_name(raw: str) -> str:
    """Return the last path segment of *raw*, printable characters only, without leading dots.

    Raises:
        InvalidValue: The result is empty or longer than ``MAX_NAME_BYTES``.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", raw))[-1]
    printable = "".join(character for character in last if character.isprintable())
    name = printable.strip(" ").lstrip(".").strip(" ")
    if not name:
        raise InvalidValue("filename", "is not a file name")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidValue("filename", f"is longer than {MAX_NAME_BYTES} bytes")
    return name


@frozen
class FileStorage:
    """The files of all users in one folder. The methods block: call them in a thread.

    Attributes:
        root: The folder.
    """

    root: Path

    def prepare(self) -> None:
        """Create the folder, and remove partial files of an earlier process."""
        self.root.mkdir(parents=True, exist_ok=True)
        for partial in self.root.glob("*/incoming/*"):
            partial.unlink()

    @contextmanager
    def partial(self, user: str) -> Iterator[Path]:
        """Provide the path of a partial file; remove the file afterwards if it still exists."""
        path = self._folder(user, "incoming") / secrets.token_hex(8)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def publish(self, partial: Path, user: str, name: str, sha256: str) -> StoredFile:
        """Move *partial* to the file *name* of *user*; replace an existing file."""
        checksum = self._folder(user, "sha256") / name
        checksum.unlink(missing_ok=True)
        path = partial.replace(self._folder(user, "files") / name)
        with self.partial(user) as new_checksum:
            new_checksum.write_text(sha256, encoding="ascii")
            new_checksum.replace(checksum)
        return self._stored(path)

    def list(self, user: str) -> list[StoredFile]:
        """Return the files of *user*, newest first."""
        files = [self._stored(path) for path in self._folder(user, "files").iterdir()]
        return sorted(files, key=lambda file: (file.uploaded_at, file.name), reverse=True)

    def find(self, user: str, name: str) -> Path | None:
        """Return the path of the file *name* of *user*; None if there is no such file."""
        path = self._folder(user, "files") / name
        return path if path.is_file() else None

    def _folder(self, user: str, purpose: str) -> Path:
        folder = self.root / user / purpose
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stored(self, path: Path) -> StoredFile:
        status = path.stat()
        checksum = path.parent.parent / "sha256" / path.name
        return StoredFile(
            name=path.name,
            size=status.st_size,
            sha256=checksum.read_text(encoding="ascii") if checksum.is_file() else None,
            uploaded_at=datetime.fromtimestamp(status.st_mtime, UTC),
        )
