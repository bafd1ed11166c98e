"""What is measured of the uploads of a process: at their ends and at each pass of the flusher.

Nothing is measured per chunk. Bytes that are still being received are read from the live uploads
when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum, unique
from typing import Final, TypeVarTuple

from attrs import define, field

from upload_progress._model.models import Arrival, ErrorCode, UploadState
from upload_progress._model.state import FINAL_STATES
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.live_upload import LiveUpload

__all__ = [
    "BOUNDS",
    "Distribution",
    "Histogram",
    "Measurements",
    "UploadObserver",
]

Arguments = TypeVarTuple("Arguments")


@unique
class Distribution(StrEnum):
    """A quantity of which the distribution is measured."""

    DURATION = "duration"
    """Seconds from the first byte of an upload to its end."""
    RATE = "rate"
    """Bytes per second of an upload, without the time that the application needs after that."""
    FLUSH = "flush"
    """Seconds of one pass of the flusher: to store and publish what is due."""
    LAG = "lag"
    """Seconds from a change at another worker until this one delivers it to those who watch."""


BOUNDS: Final = {
    Distribution.DURATION: (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0),
    Distribution.RATE: tuple(float(base * 10**n) for n in range(4, 10) for base in (1, 3)),
    Distribution.FLUSH: (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    Distribution.LAG: (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""The upper bounds of the buckets, in seconds or bytes per second."""


@define(eq=False, repr=False)
class Histogram:
    """Counts values by buckets.

    Args:
        bounds: The upper bound of each bucket, which belongs to it; the last bucket has none.
    """

    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = field(default=0.0, init=False)

    @counts.default
    def _no_counts(self) -> list[int]:
        return [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count *value*."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class UploadObserver:
    """Is called with what happens to live uploads; each method does nothing by default.

    It may be called by any thread of the application, must not block, and what it raises is logged.
    """

    def on_tracked(self, upload: LiveUpload) -> None:
        """Is called when *upload* is tracked, in the context of its first request."""

    def on_request(self, upload: LiveUpload) -> None:
        """Is called for each further request of *upload*, in the context of that request."""

    def on_stage(self, upload: LiveUpload) -> None:
        """Is called when another stage of *upload* is shown, or none."""

    def on_end(self, upload: LiveUpload) -> None:
        """Is called when *upload* has ended."""

    def on_removed(self, upload: LiveUpload) -> None:
        """Is called when *upload* is not followed here any more; it may continue elsewhere."""

    def on_value(self, distribution: Distribution, value: float) -> None:
        """Is called with each value of a distribution."""


@define(eq=False, repr=False)
class Measurements:
    """Counts what ends at this worker, and notifies observers.

    Args:
        log_limiter: Logs what a observer raises.

    Attributes:
        ends: The number of uploads by final state and error code.
        arrivals: The number of ended uploads by how their bodies arrived, if that is known.
        accepted_bytes: The bytes of the uploads that have completed.
        removed_bytes: The bytes received of uploads that are no longer in the registry.
        received_bytes: The result of ``count_received`` that was returned last.
        histograms: The distributions.
        observers: Are notified of what happens.
    """

    log_limiter: LogLimiter
    ends: Counter[tuple[UploadState, ErrorCode | None]] = field(factory=Counter, init=False)
    arrivals: Counter[Arrival] = field(factory=Counter, init=False)
    accepted_bytes: int = field(default=0, init=False)
    removed_bytes: int = field(default=0, init=False)
    received_bytes: int = field(default=0, init=False)
    histograms: dict[Distribution, Histogram] = field(init=False)
    observers: list[UploadObserver] = field(factory=list, init=False)

    @histograms.default
    def _no_values(self) -> dict[Distribution, Histogram]:
        return {each: Histogram(BOUNDS[each]) for each in Distribution}

    def add(self, distribution: Distribution, value: float) -> None:
        """Count a value of *distribution*."""
        self.histograms[distribution].add(value)
        for observer in self.observers:
            self._notify(observer.on_value, distribution, value)

    def count_end(self, state: UploadState, code: ErrorCode | None) -> None:
        """Count an upload that has ended, also one that this worker has not received."""
        self.ends[state, code] += 1

    def count_received(self, removed_bytes: int, live: Iterable[LiveUpload]) -> int:
        """Return how many bytes of all uploads have been received; it never decreases.

        A thread may see an upload between two steps, of which fewer bytes are counted.

        Args:
            removed_bytes: The attribute of that name, before *live* was listed.
            live: The uploads in the registry.
        """
        counted = removed_bytes + sum(upload.wire_bytes for upload in live)
        self.received_bytes = max(self.received_bytes, counted)
        return self.received_bytes

    def track(self, upload: LiveUpload) -> None:
        """Note that *upload* is tracked; it may have ended before its owner was known."""
        for observer in self.observers:
            self._notify(observer.on_tracked, upload)
        if upload.is_ended:
            self.end(upload)

    def join(self, upload: LiveUpload) -> None:
        """Note that a further request carries *upload*."""
        for observer in self.observers:
            self._notify(observer.on_request, upload)

    def show_stage(self, upload: LiveUpload) -> None:
        """Note that *upload* has another stage, or none."""
        for observer in self.observers:
            self._notify(observer.on_stage, upload)

    def end(self, upload: LiveUpload) -> None:
        """Count a tracked upload that has ended, here, and not by its hand-over to a task."""
        if upload.state not in FINAL_STATES or upload.has_ended_elsewhere:
            return
        self.count_end(upload.state, None if upload.error is None else upload.error.code)
        if upload.state is UploadState.COMPLETED:
            self.accepted_bytes += upload.received_bytes
        if upload.arrival is not None:
            self.arrivals[upload.arrival] += 1
        if upload.started_at is not None and upload.finished_at is not None:
            self.add(Distribution.DURATION, max(0.0, upload.finished_at - upload.started_at))
        rate = None if upload.activity is None else upload.activity.average_bytes_per_second
        if rate is not None:
            self.add(Distribution.RATE, rate)
        for observer in self.observers:
            self._notify(observer.on_end, upload)

    def remove(self, upload: LiveUpload) -> None:
        """Keep the number of bytes of an upload that leaves the registry."""
        self.removed_bytes += upload.wire_bytes
        for observer in self.observers:
            self._notify(observer.on_removed, upload)

    def _notify(self, call: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  # of an exporter: no upload fails for it
            self.log_limiter.log_warning("measuring an upload failed", error)
