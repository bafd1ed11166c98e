"""The uploads that this process is receiving right now, by owner."""

from collections import Counter
from typing import Final

from attrs import define, field

from upload_progress._model.models import UploadKey
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.config import Limits

__all__ = [
    "Bindings",
    "MOST_BINDINGS",
    "Registry",
]


@define(eq=False, repr=False)
class Registry:
    """Finds live uploads, and bounds how many there are."""

    limits: Limits
    _owners: dict[str, dict[str, LiveUpload]] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)
    _open: Counter[str] = field(factory=Counter, init=False)

    def find(self, owner: str, upload_id: str) -> LiveUpload | None:
        """Return the live upload of that key; None when this process receives none."""
        return self._owners.get(owner, {}).get(upload_id)

    def is_receiving(self, owner: str, upload_id: str) -> bool:
        """Tell whether that id is in use: an ended upload makes room for its next attempt."""
        upload = self.find(owner, upload_id)
        return upload is not None and not upload.is_ended

    def has_room(self, owner: str) -> bool:
        """Tell whether one more upload of *owner* may be tracked."""
        # What has ended and waits for a slow store takes nobody's place.
        is_mine = self._open[owner] < self.limits.tracked_per_owner
        return is_mine and self._size < self.limits.tracked_total

    def add(self, key: UploadKey, upload: LiveUpload) -> None:
        """Keep *upload* under *key*; what was there has ended."""
        uploads = self._owners.setdefault(key.owner, {})
        self._size += key.upload_id not in uploads
        uploads[key.upload_id] = upload
        self._open[key.owner] += 1

    def ended(self, upload: LiveUpload) -> None:
        """*upload* has just ended; it is kept until its end is stored."""
        owner = upload.owner or ""
        if self.find(owner, upload.upload_id) is upload:
            self._close(owner)

    def _close(self, owner: str) -> None:
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]

    def remove(self, upload: LiveUpload) -> None:
        """Forget *upload*, if it is still the one under its key."""
        owner = upload.owner or ""
        uploads = self._owners.get(owner, {})
        if uploads.get(upload.upload_id) is not upload:
            return
        del uploads[upload.upload_id]
        self._size -= 1
        if not upload.is_ended:
            self._close(owner)
        if not uploads:
            del self._owners[owner]

    def of_owner(self, owner: str) -> list[LiveUpload]:
        """Return the live uploads of *owner*, newest first."""
        return list(reversed(self._owners.get(owner, {}).values()))

    def everything(self) -> list[LiveUpload]:
        """Return all live uploads."""
        return [upload for uploads in self._owners.values() for upload in uploads.values()]

    def __len__(self) -> int:
        """How many there are."""
        return self._size


# FROM bindings: Which upload the requests to an address belong to, where that goes by an id of its own.

MOST_BINDINGS: Final = 10_000


@define(eq=False, repr=False)
class Bindings:
    """Remembers the last so many, in this process."""

    _ids: dict[tuple[str, str], str] = field(factory=dict, init=False)

    def remember(self, owner: str, address: str, upload_id: str) -> None:
        """Let *address* of *owner* stand for *upload_id*."""
        self._ids.pop((owner, address), None)
        self._ids[owner, address] = upload_id
        if len(self._ids) > MOST_BINDINGS:
            del self._ids[next(iter(self._ids))]

    def find(self, owner: str, address: str) -> str | None:
        """Return what *address* of *owner* stands for."""
        return self._ids.get((owner, address))
