"""The live uploads of this process, and which resources belong to which upload."""

from collections import Counter
from typing import Final

from attrs import define, field

from upload_progress._model.models import UploadKey
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.config import Limits

__all__ = ["MAX_RESOURCES", "Registry", "ResourceIndex"]

MAX_RESOURCES: Final = 10_000


@define(eq=False, repr=False)
class Registry:
    """Finds live uploads by key, and limits how many there are."""

    limits: Limits
    _owners: dict[str, dict[str, LiveUpload]] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)
    _open: Counter[str] = field(factory=Counter, init=False)

    def __len__(self) -> int:
        """Return the number of live uploads."""
        return self._size

    def find(self, owner: str, upload_id: str) -> LiveUpload | None:
        """Return the live upload of that key; None if this process has none."""
        return self._owners.get(owner, {}).get(upload_id)

    def is_receiving(self, owner: str, upload_id: str) -> bool:
        """Return whether the key is in use, and not by an upload that can be replaced."""
        upload = self.find(owner, upload_id)
        return upload is not None and not upload.is_replaceable

    def has_room(self, owner: str) -> bool:
        """Return whether one more upload of *owner* may be tracked.

        Ended uploads that wait for a slow store do not count for the owner.
        """
        has_room = self._open[owner] < self.limits.tracked_per_owner
        return has_room and self._size < self.limits.tracked_total

    def add(self, key: UploadKey, upload: LiveUpload) -> None:
        """Add *upload* under *key*, in place of an upload that has ended or was redirected."""
        uploads = self._owners.setdefault(key.owner, {})
        replaced = uploads.get(key.upload_id)
        self._size += replaced is None
        if replaced is not None and not replaced.is_ended:
            self._decrement(key.owner)
        uploads[key.upload_id] = upload
        self._open[key.owner] += 1

    def mark_ended(self, upload: LiveUpload) -> None:
        """Free the owner's place of *upload*; the upload stays until its end is stored."""
        owner = upload.owner or ""
        if self.find(owner, upload.upload_id) is upload:
            self._decrement(owner)

    def _decrement(self, owner: str) -> None:
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]

    def remove(self, upload: LiveUpload) -> None:
        """Remove *upload*, if it is still the one under its key."""
        owner = upload.owner or ""
        uploads = self._owners.get(owner, {})
        if uploads.get(upload.upload_id) is not upload:
            return
        del uploads[upload.upload_id]
        self._size -= 1
        if not upload.is_ended:
            self._decrement(owner)
        if not uploads:
            del self._owners[owner]

    def of_owner(self, owner: str) -> list[LiveUpload]:
        """Return the live uploads of *owner*, newest first."""
        return list(reversed(self._owners.get(owner, {}).values()))

    def everything(self) -> list[LiveUpload]:
        """Return all live uploads."""
        return [upload for uploads in self._owners.values() for upload in uploads.values()]


@define(eq=False, repr=False)
class ResourceIndex:
    """Which upload a resource belongs to, if the upload has another id: the newest 10,000."""

    _upload_ids: dict[tuple[str, str], str] = field(factory=dict, init=False)

    def remember(self, owner: str, resource_id: str, upload_id: str) -> None:
        """Let requests of *owner* to the resource belong to the upload."""
        self._upload_ids.pop((owner, resource_id), None)
        self._upload_ids[owner, resource_id] = upload_id
        if len(self._upload_ids) > MAX_RESOURCES:
            del self._upload_ids[next(iter(self._upload_ids))]

    def find(self, owner: str, resource_id: str) -> str | None:
        """Return the id of the upload that the resource of *owner* belongs to."""
        return self._upload_ids.get((owner, resource_id))
