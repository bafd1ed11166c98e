"""What is due, and when it may go out.

A set, never a queue: however often one asks, an upload's newest state goes out once. None goes
out twice within an interval. A new one that nobody watches is held back for one: most uploads
are over by then, and are one report instead of several. What goes out anyway takes it along.
"""

from math import inf
from typing import Final

from attrs import define, field

from upload_progress.live import LiveUpload
from upload_progress.ports import Clock

__all__ = ["FLUSH_SECONDS", "Due"]

FLUSH_SECONDS: Final = 0.1


@define(eq=False, repr=False)
class Due:
    """The uploads that are to be reported.

    Threads of an application may add to it: hence lists, where they are gone through.
    """

    clock: Clock
    _uploads: dict[LiveUpload, None] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._uploads)

    def add(self, upload: LiveUpload, *, is_watched: bool) -> bool:
        """Take *upload*; return whether it may go out now."""
        now = self.clock.monotonic()
        if _is_new(upload) and not upload.not_before and not is_watched:
            upload.not_before = now + FLUSH_SECONDS
        self._uploads[upload] = None
        return upload.not_before <= now

    def early_seconds(self) -> float:
        """Return for how long none of them may go out."""
        now = self.clock.monotonic()
        moments = (0 if _is_over(each) else each.not_before for each in list(self._uploads))
        return max(0.0, min(moments, default=inf) - now)

    def take(self, *, ends: bool, everything: bool) -> list[LiveUpload]:
        """Hand out what may go out now; see ``Flusher.flush``."""
        now, uploads = self.clock.monotonic(), list(self._uploads)
        ready = [
            upload
            for upload in uploads
            if everything
            or upload.not_before <= now
            or _is_over(upload)
            or (ends and upload.is_ended)
        ]
        if ready:
            ready = list(dict.fromkeys([*ready, *filter(_is_new, uploads)]))
        for upload in ready:
            del self._uploads[upload]
        return ready


def _is_new(upload: LiveUpload) -> bool:
    return upload.sequence == 0


def _is_over(upload: LiveUpload) -> bool:
    """Tell whether nothing came before, and nothing will follow."""
    return _is_new(upload) and upload.is_ended
