"""The part that watches the clock: reports by time, stalls, and heartbeats of subscriptions.

Uploads are never scanned: each lies in a timing wheel under the time at which it has to be looked
at, and between two portions of work the event loop gets its turn.
"""

from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define

from upload_progress._fanout.hub import Hub
from upload_progress._reporting.flusher import Flusher
from upload_progress._reporting.timers import TICK_SECONDS, UploadTimers
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.interfaces import Clock

__all__ = ["PORTION", "Ticker"]

PORTION: Final = 200


@define(eq=False, repr=False)
class Ticker:
    """Looks at live uploads when their time has come, and wakes subscriptions for heartbeats."""

    timers: UploadTimers
    hub: Hub
    flusher: Flusher
    clock: Clock
    log_limiter: LogLimiter

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Do what is due now; never raises."""
        try:
            while self._tick_portion():
                await checkpoint()
        except Exception as error:  # noqa: BLE001  # it is logged, and ends nothing else
            self.log_limiter.log_warning("a tick failed", error)

    def _tick_portion(self) -> bool:
        now = self.clock.monotonic()
        taken = 0
        for upload in self.timers.take(now, PORTION):
            taken += 1
            if upload is not None:
                self.flusher.update_watched(upload)
                self.timers.schedule(upload, upload.tick())
        has_more = self.hub.wake_for_heartbeats(now, PORTION)
        self.flusher.wake()
        return has_more or taken == PORTION
