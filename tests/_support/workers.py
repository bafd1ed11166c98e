"""Workers that share a store, and the uploads that they show."""

from __future__ import annotations

from tests._support.protocol_apps import ResponseHead, ScriptedApp, send_request
from tests._support.scripted_server import ALICE
from upload_progress import MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of

__all__ = ["OK", "Workers", "facts_of"]

OK: ResponseHead = 200, {}


class Workers:
    """Workers that share a store; requests go to one after the other."""

    def __init__(self, count: int = 2) -> None:
        store = MemoryStore()
        self.trackers = [ProgressTracker(store=store) for _ in range(count)]
        self.requests = 0

    async def send(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        size: int = 0,
        response: ResponseHead = OK,
    ) -> None:
        """Send a request with that many bytes, which gets that response."""
        tracker = self.trackers[self.requests % len(self.trackers)]
        self.requests += 1
        app = ScriptedApp(responses=[response])
        await send_request(app, tracker, method, path, headers=headers, content=bytes(size))
        for _ in range(2):
            for each in self.trackers:
                await internals_of(each).flusher.flush(everything=True)

    async def put(
        self, path: str, content_range: str, size: int = 0, response: ResponseHead = OK
    ) -> None:
        """Send a range of a file; a range of no bytes asks."""
        await self.send("PUT", path, {"content-range": content_range}, size, response)

    async def shown(self) -> list[UploadProgress]:
        """Return all uploads; all workers show the same."""
        states = set(UploadState)
        lists = [(await each.list(owner=ALICE, states=states)).uploads for each in self.trackers]
        facts = [[(each.state, each.bytes_transferred) for each in uploads] for uploads in lists]
        assert all(each == facts[0] for each in facts)
        return list(lists[0])

    async def only(self) -> UploadProgress:
        """Return the only upload."""
        [found] = await self.shown()
        return found


def facts_of(progress: UploadProgress) -> tuple[UploadState, int, int | None, int]:
    """Return state, received bytes, total and attempt."""
    return progress.state, progress.bytes_transferred, progress.total_bytes, progress.attempt
