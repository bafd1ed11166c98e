"""The live uploads of this process, and which resources belong to which upload."""

from collections.abc import Callable
from typing import Final, NamedTuple

from attrs import define, field

from upload_progress._model.models import UploadKey
from upload_progress._model.state import CANCELLED
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.measurements import Measurements
from upload_progress._tracking.status import Moment
from upload_progress.config import Limits

__all__ = ["CANCELLED_SECONDS", "MAX_RESOURCES", "OwnersCancel", "Registry", "ResourceIndex"]

_Follow = Callable[[bool], None]
MAX_RESOURCES: Final = 10_000
CANCELLED_SECONDS: Final = 10.0
"""For how long a request that belongs to a cancelled upload is stopped before the store is read."""


class OwnersCancel(NamedTuple):
    """The owner has cancelled an upload.

    Attributes:
        at: When.
        number: The number of the newest request that had begun by then.
    """

    at: Moment
    number: int


@define(eq=False, repr=False)
class Registry:
    """Finds live uploads by key, and limits how many there are.

    Args:
        limits: The limits.
        measurements: Counts which uploads come, end and go.
    """

    limits: Limits
    measurements: Measurements
    _owners: dict[str, dict[str, LiveUpload]] = field(factory=dict, init=False)
    _size: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)
    _open: dict[str | None, int] = field(factory=dict, init=False)
    _cancelled: dict[UploadKey, OwnersCancel] = field(factory=dict, init=False)
    _waiting: dict[LiveUpload, dict[LiveUpload, _Follow]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of live uploads."""
        return self._size

    def next_number(self) -> int:
        """Return the number of a request that arrives: uploads are told apart by their order."""
        self._number += 1
        return self._number

    def find(self, owner: str, upload_id: str) -> LiveUpload | None:
        """Return the live upload of that key; None if this process has none."""
        return self._owners.get(owner, {}).get(upload_id)

    def is_receiving(self, owner: str, upload_id: str) -> bool:
        """Return whether this process receives the upload of that key."""
        upload = self.find(owner, upload_id)
        return upload is not None and not (upload.is_ended or upload.is_idle)

    def has_room(self, limit_key: str | None, replaced: LiveUpload | None = None) -> bool:
        """Return whether one more upload of a user or client may be tracked.

        Ended uploads that wait for a slow store do not count for the user.

        Args:
            limit_key: See ``Identity.limit_key``; None if only the total counts.
            replaced: The upload that the new one replaces.
        """
        freed = replaced is not None and replaced.limit_key == limit_key and not replaced.is_ended
        count = 0 if limit_key is None else self._open.get(limit_key, 0) - freed
        has_room = count < self.limits.tracked_per_owner
        return has_room and self._size - (replaced is not None) < self.limits.tracked_total

    def add(self, key: UploadKey, upload: LiveUpload) -> None:
        """Add *upload* under *key*, in place of an upload that it follows."""
        uploads = self._owners.setdefault(key.owner, {})
        replaced = uploads.pop(key.upload_id, None)
        self._size += replaced is None
        if replaced is not None:
            self._leave(replaced)
        uploads[key.upload_id] = upload
        if not upload.is_ended:
            self._open[upload.limit_key] = self._open.get(upload.limit_key, 0) + 1
        self.measurements.track(upload)
        if replaced is not None:
            self._admit_waiting(replaced)

    def add_waiting(self, upload: LiveUpload, waiting: LiveUpload, follow: _Follow) -> None:
        """Call *follow* when *upload*, for which *waiting* waits, is replaced or removed."""
        self._waiting.setdefault(upload, {})[waiting] = follow

    def forget_waiting(self, upload: LiveUpload, waiting: LiveUpload) -> None:
        """Forget that *waiting* waits for *upload*."""
        others = self._waiting.get(upload, {})
        others.pop(waiting, None)
        if not others:
            self._waiting.pop(upload, None)

    def _admit_waiting(self, upload: LiveUpload) -> None:
        for follow in self._waiting.pop(upload, {}).values():
            follow(True)

    def mark_ended(self, upload: LiveUpload) -> None:
        """Free the owner's place of *upload*; the upload stays until its end is stored."""
        owner = upload.owner or ""
        upload.ended_after = self._number
        if self.find(owner, upload.upload_id) is upload:
            self._decrement(upload.limit_key)
            self.measurements.end(upload)
            if upload.error is CANCELLED:
                key = UploadKey(owner, upload.upload_id)
                self.remember_cancelled(key, upload.context.now())

    def remember_cancelled(self, key: UploadKey, now: Moment) -> None:
        """Remember that the owner has cancelled an upload: the newest 10,000."""
        self._cancelled.pop(key, None)
        self._cancelled[key] = OwnersCancel(now, self._number)
        if len(self._cancelled) > MAX_RESOURCES:
            del self._cancelled[next(iter(self._cancelled))]

    @property
    def has_cancels(self) -> bool:
        """Whether an owner has cancelled an upload."""
        return bool(self._cancelled)

    def find_cancel(self, key: UploadKey, now: float) -> OwnersCancel | None:
        """Return the cancel of the newest upload of that key, if the owner has just cancelled it.

        Later the store says so, which also knows of uploads that began since at other workers.
        """
        cancel = self._cancelled.get(key)
        is_new = cancel is not None and now - cancel.at.monotonic < CANCELLED_SECONDS
        return cancel if is_new else None

    def forget_cancelled(self, key: UploadKey, number: int) -> None:
        """Forget that an upload was cancelled, if a request with that number is newer."""
        cancel = self._cancelled.get(key)
        if cancel is not None and cancel.number < number:
            del self._cancelled[key]

    def _decrement(self, limit_key: str | None) -> None:
        self._open[limit_key] -= 1
        if not self._open[limit_key]:
            del self._open[limit_key]

    def remove(self, upload: LiveUpload) -> None:
        """Remove *upload*, if it is still the one under its key."""
        owner = upload.owner or ""
        uploads = self._owners.get(owner, {})
        if uploads.get(upload.upload_id) is not upload:
            return
        del uploads[upload.upload_id]
        self._size -= 1
        self._leave(upload)
        if not uploads:
            del self._owners[owner]
        self._admit_waiting(upload)

    def _leave(self, upload: LiveUpload) -> None:
        if not upload.is_ended:
            self._decrement(upload.limit_key)
        self.measurements.remove(upload)

    def supersede(self, upload: LiveUpload) -> None:
        """Report *upload* no more: a newer upload has its id, here or at another worker."""
        upload.supersede()
        self.remove(upload)

    def of_owner(self, owner: str) -> list[LiveUpload]:
        """Return the live uploads of *owner*, newest first."""
        return list(reversed(self._owners.get(owner, {}).values()))

    def everything(self) -> list[LiveUpload]:
        """Return all live uploads; may be called from any thread."""
        owners = list(self._owners.values())
        return [upload for uploads in owners for upload in list(uploads.values())]


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
