"""When to look at each live upload again."""

from collections.abc import Iterator
from typing import Final

from attrs import define, field

from upload_progress._model.activity import OBSERVE_SECONDS
from upload_progress._runtime.timing_wheel import TimingWheel
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.interfaces import Clock

__all__ = ["TICK_SECONDS", "UploadTimers"]

TICK_SECONDS: Final = 0.1


@define(eq=False, repr=False)
class UploadTimers:
    """A timing wheel of live uploads; each upload has at most one time that counts."""

    clock: Clock
    _times: dict[LiveUpload, float] = field(factory=dict, init=False)
    _wheel: TimingWheel[LiveUpload] = field(factory=lambda: TimingWheel(TICK_SECONDS), init=False)

    def watch(self, upload: LiveUpload) -> None:
        """Look at *upload* within a second, or sooner if it is watched, until its end."""
        watched_seconds = upload.meter.watched_seconds
        at = self.clock.monotonic() + min(OBSERVE_SECONDS, watched_seconds or OBSERVE_SECONDS)
        known = self._times.get(upload)
        if not upload.is_ended and (known is None or known > at):
            self.schedule(upload, at)

    def schedule(self, upload: LiveUpload, at_seconds: float | None) -> None:
        """Look at *upload* at that monotonic time; None for never."""
        if at_seconds is None:
            self._times.pop(upload, None)
        else:
            self._times[upload] = at_seconds
            self._wheel.add(upload, at_seconds)

    def time_of(self, upload: LiveUpload) -> float | None:
        """Return when to look at *upload* again, in monotonic seconds; None for never."""
        return self._times.get(upload)

    def take(self, now: float, limit: int) -> Iterator[LiveUpload | None]:
        """Return up to *limit* uploads to look at; None for one that was scheduled again since."""
        for upload in self._wheel.take(now, limit):
            at = self._times.get(upload)
            yield upload if at is not None and at <= now else None
