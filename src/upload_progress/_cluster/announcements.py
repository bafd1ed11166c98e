"""The pending uploads that clients without a user have announced at this worker.

The store counts the pending uploads of an owner. An anonymous client has no owner: each of its
uploads has another one. So this worker remembers what each client announced. What has been used,
cancelled or expired since is found out when a limit is reached, at most once a second for each
client, so that a refused client causes almost no work.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from attrs import define, field

from upload_progress._model.fold import deciding, newest
from upload_progress._model.models import UploadKey, UploadState
from upload_progress._reading.record_loader import RecordLoader
from upload_progress.config import Limits
from upload_progress.exceptions import QuotaExceeded

__all__ = ["CHECKED_AT_ONCE", "CHECK_SECONDS", "AnonymousAnnouncements"]

CHECK_SECONDS: Final = 1.0
CHECKED_AT_ONCE: Final = 100
"""Uploads that are looked up when the limit for all clients is reached."""


@define
class _Client:
    keys: dict[UploadKey, None] = field(factory=dict)
    next_check_at: float = float("-inf")


@define(eq=False, repr=False)
class AnonymousAnnouncements:
    """Limits the pending uploads of each anonymous client, and of all of them together.

    Args:
        loader: Reads the store.
        limits: The limits for each client, and in total.
    """

    loader: RecordLoader
    limits: Limits
    _clients: dict[str, _Client] = field(factory=dict, init=False)
    _names: dict[UploadKey, str] = field(factory=dict, init=False)
    _next_check_at: float = field(default=float("-inf"), init=False)

    def __len__(self) -> int:
        """Return how many uploads are counted."""
        return len(self._names)

    async def add(self, client: str | None, key: UploadKey) -> None:
        """Count the upload *key*, which is about to be announced.

        Args:
            client: What the limits count by; None if only the total counts.
            key: The upload.

        Raises:
            QuotaExceeded: The client, or all clients together, have the most pending uploads.
            StoreUnavailable: The store does not answer.
        """
        if client is not None:
            await self._check_client(client)
        await self._check_total()
        name = client or ""
        self._names[key] = name
        self._clients.setdefault(name, _Client()).keys[key] = None

    async def _check_client(self, name: str) -> None:
        known, allowed = self._clients.get(name), self.limits.announced_per_owner
        if known is None or len(known.keys) < allowed:
            return
        now = self.loader.clock.monotonic()
        if now >= known.next_check_at:
            known.next_check_at = now + CHECK_SECONDS
            await self._forget_used(list(known.keys))
        if len(known.keys) >= allowed:
            raise QuotaExceeded("announced_per_owner", allowed)

    async def _check_total(self) -> None:
        allowed, now = self.limits.announced_total, self.loader.clock.monotonic()
        if len(self) >= allowed and now >= self._next_check_at:
            self._next_check_at = now + CHECK_SECONDS
            await self._forget_used(list(islice(self._names, CHECKED_AT_ONCE)))
        if len(self) >= allowed:
            raise QuotaExceeded("announced_total", allowed)

    async def _forget_used(self, keys: Sequence[UploadKey]) -> None:
        """Forget those of *keys* that are not pending; the others are checked last next time."""
        known = await self.loader.load(keys)
        for key in keys:
            name = self._names.pop(key, None)
            if name is None:
                continue  # forgotten meanwhile
            if key in known and deciding(newest(known[key])).state is UploadState.PENDING:
                self._names[key] = name
                continue
            client = self._clients[name]
            del client.keys[key]
            if not client.keys:
                del self._clients[name]
