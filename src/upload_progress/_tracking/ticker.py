"""The part that looks at the clock: silence, stalls, heartbeats, leases and expiry.

Nobody scans all uploads. What has to be looked at lies in a timing wheel under the moment at
which it has to; the store hands out what is overdue in small portions; and between two
portions of work the event loop gets its turn.
"""

from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._fanout.hub import Hub
from upload_progress._model.activity import LOOK_SECONDS
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.timing_wheel import TimingWheel
from upload_progress._tracking.flusher import Flusher
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.interfaces import Clock

__all__ = [
    "PORTION",
    "TICK_SECONDS",
    "Ticker",
]

TICK_SECONDS: Final = 0.1
PORTION: Final = 200


@define(eq=False, repr=False)
class Ticker:
    """Looks at live uploads when their time has come, and makes watchers' hearts beat."""

    hub: Hub
    flusher: Flusher
    clock: Clock
    log_limiter: LogLimiter
    _wheel: TimingWheel[LiveUpload] = field(factory=lambda: TimingWheel(TICK_SECONDS), init=False)

    def watch(self, upload: LiveUpload) -> None:
        """Look at *upload* within a second, and from then on until its end."""
        at = self.clock.monotonic() + LOOK_SECONDS
        if not upload.is_ended and (upload.timer_at is None or upload.timer_at > at):
            self._schedule(upload, at)

    def _schedule(self, upload: LiveUpload, at: float | None) -> None:
        upload.timer_at = at
        if at is not None:
            self._wheel.add(upload, at)

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Do what is due now; never raises."""
        try:
            while self._tick_portion():
                await checkpoint()
        except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
            self.log_limiter.say("a tick failed", error)

    def _tick_portion(self) -> bool:
        now = self.clock.monotonic()
        looked = 0
        for upload in self._wheel.take(now, PORTION):
            looked += 1
            # One that lies further on in the wheel was looked at meanwhile.
            if upload.timer_at is not None and upload.timer_at <= now:
                self._schedule(upload, upload.tick())
        more = self.hub.beat(now, PORTION)
        self.flusher.wake()
        return more or looked == PORTION
