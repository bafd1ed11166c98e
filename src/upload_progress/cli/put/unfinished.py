"""Uploads by tus that a later run of ``put`` goes on with: files that contain their addresses."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from attrs import frozen

__all__ = ["KEPT_SECONDS", "UnfinishedUpload", "state_folder"]

KEPT_SECONDS: Final = 30 * 86_400.0
"""How long an unfinished upload is remembered; servers of tus keep theirs for some days."""


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the files: that of the XDG base directory specification.

    >>> state_folder({"XDG_STATE_HOME": "/state"}).as_posix()
    '/state/upload-progress/tus'
    """
    home = environment.get("XDG_STATE_HOME")
    state = Path(home) if home else Path.home() / ".local" / "state"
    return state / "upload-progress" / "tus"


@frozen
class UnfinishedUpload:
    """What is remembered of the upload of one file to one URL.

    A file that has changed is another upload: its size and time of modification are part of the
    name under which the upload is remembered.

    Attributes:
        memory: Where it is remembered.
        origin: Scheme, host and port of the URL; an address elsewhere is not used.
    """

    memory: Path
    origin: str

    @classmethod
    def of(cls, file: Path, target: str, folder: Path) -> Self:
        """Return that of *file*, which is sent to *target*.

        Raises:
            OSError: The file cannot be read.
        """
        status = file.stat()
        parts = [str(file.resolve()), status.st_size, status.st_mtime_ns, target]
        name = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return cls(folder / f"{name}.json", "/".join(target.split("/", 3)[:3]))

    def load(self) -> tuple[str, str] | None:
        """Return the address of the upload and its id; None if none is remembered."""
        try:
            found = json.loads(self.memory.read_text(encoding="utf-8"))
            address, upload_id = str(found["address"]), str(found["upload_id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (address, upload_id) if address.startswith(f"{self.origin}/") else None

    def save(self, address: str, upload_id: str) -> None:
        """Remember the upload, and forget those that were left too long ago.

        Raises:
            OSError: It cannot be written.
        """
        folder = self.memory.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - KEPT_SECONDS
        for path in folder.glob("*.json"):
            with suppress(FileNotFoundError):  # another process has removed it
                if path.stat().st_mtime < oldest:
                    path.unlink()
        # An address may be all that is needed to write the upload: no other user may read it.
        content = json.dumps({"address": address, "upload_id": upload_id})
        self.memory.touch(mode=0o600)
        self.memory.write_text(content, encoding="utf-8")

    def forget(self) -> None:
        """Remember it no longer."""
        with suppress(OSError):
            self.memory.unlink()
