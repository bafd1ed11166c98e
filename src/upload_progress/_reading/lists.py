"""Lists of an owner's uploads: one page of the store for a page of the list, and the sum.

A page merges the uploads that are received here, as they are now, with those of the store. Its
cursor contains the position of its last upload, after which the received ones continue, and the
cursor of the store.

The sum covers at most ``MAX_SUMMED`` uploads, and says so if there are more.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Sequence
from contextlib import aclosing
from typing import Final

from anyio.lowlevel import checkpoint
from attrs import define, field, frozen

from upload_progress._model.fold import UploadShare, share_of, sum_of
from upload_progress._model.models import (
    TransferRecord,
    UploadKey,
    UploadPage,
    UploadProgress,
    UploadState,
    UploadTotal,
)
from upload_progress._reading.client_lane import ClientLane
from upload_progress._reading.record_loader import RecordLoader
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.registry import Registry
from upload_progress.exceptions import InvalidValue

__all__ = [
    "KEPT_TOTALS",
    "MAX_SCANNED",
    "MAX_SUMMED",
    "RECENT_SECONDS",
    "SUM_PAGE",
    "TOTAL_SECONDS",
    "ListCursor",
    "ListSelection",
    "UploadLists",
]

RECENT_SECONDS: Final = 300.0
"""By default a list contains uploads that have ended within this time."""
MAX_SCANNED: Final = 1000
"""Uploads of the store that a page is selected from: with filters it may have fewer than asked."""
MAX_SUMMED: Final = 2000
"""Uploads of the store that a sum covers: as many as the default retention keeps for an owner."""
SUM_PAGE: Final = 500
TOTAL_SECONDS: Final = 5.0
"""How long the sum of the first page is kept for the pages that follow."""
KEPT_TOTALS: Final = 1000

_Position = tuple[float, str]


@frozen
class ListSelection:
    """What is listed.

    Attributes:
        owner: The owner of the uploads.
        states: Only uploads in these states; None for open and recently ended ones.
        group: Only uploads of this group; None for all.
    """

    owner: str
    states: frozenset[UploadState] | None
    group: str | None

    def matches(self, upload: UploadProgress) -> bool:
        """Tell whether *upload*, which is received here, is listed."""
        return self.group in {None, upload.group} and self.includes(upload.state)

    def includes(self, state: UploadState) -> bool:
        """Tell whether uploads in *state* are listed."""
        return self.states is None or state in self.states


@frozen
class ListCursor:
    """Where a page begins.

    Attributes:
        position: Time of creation and id of the last upload of the page before.
        stored: The cursor of the store; None for its first page.
    """

    position: _Position = (float("inf"), "")
    stored: str | None = None

    @classmethod
    def parse(cls, text: str | None) -> "ListCursor":
        """Return the cursor that ``str`` has made; the first page for None.

        Raises:
            InvalidValue: *text* is not a cursor.
        """
        if text is None:
            return cls()
        try:
            created_at, upload_id, stored = text.split(":", 2)
            return cls((float(created_at), upload_id), stored or None)
        except ValueError:
            problem = "is not valid: use the value of `next` in the previous page"
            raise InvalidValue("query.cursor", problem) from None

    def __str__(self) -> str:
        """Return the cursor as text; an id contains no colon."""
        created_at, upload_id = self.position
        return f"{created_at!r}:{upload_id}:{self.stored or ''}"

    def after(self, upload: UploadProgress, stored: str | None = None) -> "ListCursor":
        """Return the cursor after *upload*, which the store has under the cursor *stored*."""
        return ListCursor(_position(upload), stored or self.stored)


@define(eq=False, repr=False)
class UploadLists:
    """Reads pages of lists, and their sums.

    Args:
        registry: The uploads that are received here.
        loader: Reads the store.
        lane: Limits how many lists are read at once.
        snapshot_of: Returns the snapshot of an upload that is received here, if it is one.
    """

    registry: Registry
    loader: RecordLoader
    lane: ClientLane
    snapshot_of: Callable[[LiveUpload, UploadKey], Awaitable[UploadProgress | None]]
    _totals: dict[ListSelection, tuple[float, UploadTotal]] = field(factory=dict, init=False)

    async def read(self, query: ListSelection, start: ListCursor, limit: int) -> UploadPage:
        """Return the page after *start*, of at most *limit* uploads.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        uploads, following = await self._read_page(query, start, limit)
        is_first = start == ListCursor()
        if is_first and following is None:
            total = sum_of(uploads)
        else:
            total = await self._total(query, may_be_kept=not is_first)
        return UploadPage(tuple(uploads), total, None if following is None else str(following))

    async def _read_page(
        self, query: ListSelection, start: ListCursor, limit: int
    ) -> tuple[Sequence[UploadProgress], ListCursor | None]:
        """Return the uploads of a page, and where the next one begins."""
        received = await self._received(query.owner)
        matching = sorted(filter(query.matches, received.values()), key=_position, reverse=True)
        live = deque(each for each in matching if _position(each) < start.position)
        found: list[UploadProgress] = []
        cursor, scanned = start, 0
        size = min(limit + len(received) + 1, MAX_SCANNED)
        async with aclosing(self._stored(query, received, start.stored, size)) as pages:
            async for records, after in pages:
                upload = self.loader.fold(records)
                while live and len(found) < limit and _position(live[0]) > _position(upload):
                    cursor = cursor.after(live[0])
                    found.append(live.popleft())
                if len(found) >= limit or scanned >= MAX_SCANNED:
                    return found, cursor
                cursor = cursor.after(upload, after)
                scanned += 1
                found += [upload] if query.includes(upload.state) else []
        found += live
        if len(found) > limit:
            return found[:limit], cursor.after(found[limit - 1])
        return found, None

    async def _received(self, owner: str) -> dict[str, UploadProgress]:
        """Return the uploads that are received here, by id."""
        received = {}
        for upload in self.registry.of_owner(owner):
            progress = await self.snapshot_of(upload, UploadKey(owner, upload.upload_id))
            if progress is not None:
                received[upload.upload_id] = progress
        return received

    async def _stored(
        self, query: ListSelection, received: Container[str], cursor: str | None, size: int
    ) -> AsyncGenerator[tuple[Sequence[TransferRecord], str]]:
        """Yield the uploads of the store that are not received here, each with the cursor after it.

        Args:
            query: What is listed, except for the states.
            received: The ids of the uploads that are received here.
            cursor: Where to begin.
            size: How many uploads are read at once.
        """
        recent_seconds = RECENT_SECONDS if query.states is None else None
        while True:
            position = cursor
            page = await self.lane.call(
                query.owner,
                lambda: self.loader.page(
                    query.owner,
                    group=query.group,
                    ended_within_seconds=recent_seconds,
                    cursor=position,  # noqa: B023  # it is called at once
                    limit=size,
                ),
            )
            for number, upload in enumerate(zip(page.uploads, page.cursors, strict=True), start=1):
                if upload[0][0].upload_id not in received:
                    yield upload
                if number % YIELD_EVERY == 0:
                    await checkpoint()
            cursor = page.next
            if cursor is None:
                return

    async def _total(self, query: ListSelection, *, may_be_kept: bool) -> UploadTotal:
        """Return the sum over all pages, which may be a few seconds old if *may_be_kept*."""
        now = self.loader.clock.monotonic()
        kept = self._totals.pop(query, None)
        if kept is None or not may_be_kept or now - kept[0] > TOTAL_SECONDS:
            kept = (now, await self._read_total(query))
        self._totals[query] = kept
        if len(self._totals) > KEPT_TOTALS:
            del self._totals[next(iter(self._totals))]
        return kept[1]

    async def _read_total(self, query: ListSelection) -> UploadTotal:
        now, scanned = self.loader.clock.time(), 0
        received = await self._received(query.owner)
        uploads: list[UploadProgress | UploadShare] = [*filter(query.matches, received.values())]
        async with aclosing(self._stored(query, received, None, SUM_PAGE)) as pages:
            async for records, _ in pages:
                if scanned == MAX_SUMMED:
                    return sum_of(uploads, approximate=True)
                scanned += 1
                share = share_of(records, now=now)
                uploads += [share] if query.includes(share.state) else []
        return sum_of(uploads)


def _position(progress: UploadProgress) -> _Position:
    return (progress.created_at.timestamp(), progress.upload_id)
