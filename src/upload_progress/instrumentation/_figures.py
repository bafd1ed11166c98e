"""What is measured, once for all systems that collect it.

No label has a value that a client chooses: their number is bounded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum, unique
from typing import Final, TypeVar

from attrs import frozen

from upload_progress._fanout.subscription import Transport
from upload_progress._model.models import Arrival, ErrorCode, UploadState
from upload_progress._reporting.statistics import Statistics
from upload_progress._tracking.measurements import Distribution

__all__ = ["DISTRIBUTIONS", "FIGURES", "Figure", "Kind", "MeasuredDistribution"]

Name = TypeVar("Name", bound=str)

_Value = tuple[tuple[str, ...], float]
"""The values of the labels, and the number."""


@unique
class Kind(StrEnum):
    """How a figure changes."""

    COUNTER = "counter"
    """It only grows."""
    GAUGE = "gauge"
    """It goes up and down."""


@frozen(kw_only=True)
class Figure:
    """A number, or one for each combination of labels.

    Attributes:
        name: Its name, without prefix and suffix.
        kind: How it changes.
        help: What it counts.
        labels: The names of its labels.
        read: Returns its values.
        unit: Its unit in OpenTelemetry (UCUM).
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    read: Callable[[Statistics], Iterator[_Value]]
    unit: str = "1"


@frozen(kw_only=True)
class MeasuredDistribution:
    """The distribution of a quantity.

    Attributes:
        name: Its name, without prefix and unit.
        unit_name: Its unit, the end of the name in Prometheus.
        unit: Its unit in OpenTelemetry (UCUM).
        help: What it measures.
    """

    name: str
    unit_name: str
    unit: str
    help: str


def _one(number: Callable[[Statistics], float]) -> Callable[[Statistics], Iterator[_Value]]:
    def read(statistics: Statistics) -> Iterator[_Value]:
        yield (), number(statistics)

    return read


def _each(
    numbers: Callable[[Statistics], Mapping[Name, float]], names: Iterable[Name] = ()
) -> Callable[[Statistics], Iterator[_Value]]:
    """Return a function that reads a number by name; those in *names* are always there."""

    def read(statistics: Statistics) -> Iterator[_Value]:
        found = numbers(statistics)
        for name in names or found:
            yield (str(name),), found.get(name, 0)

    return read


_ENDS: Final = (
    (UploadState.COMPLETED, None),
    *((UploadState.FAILED, code) for code in ErrorCode if code is not ErrorCode.CANCELLED_BY_OWNER),
    (UploadState.CANCELLED, ErrorCode.CANCELLED_BY_OWNER),
    (UploadState.CANCELLED, ErrorCode.APP_ERROR),
)
"""The ends of uploads: each is there from the start, so that its first increase is seen."""


def _ends(statistics: Statistics) -> Iterator[_Value]:
    for state, code in dict.fromkeys((*_ENDS, *statistics.uploads_ended)):
        labels = str(state), "" if code is None else str(code)
        yield labels, statistics.uploads_ended.get((state, code), 0)


def _dropped(statistics: Statistics) -> Iterator[_Value]:
    yield ("end",), statistics.end_events_dropped
    yield ("report",), statistics.events_dropped - statistics.end_events_dropped


FIGURES: Final = (
    Figure(
        name="open_uploads",
        kind=Kind.GAUGE,
        help="Uploads that this worker receives or processes, by state.",
        labels=("state",),
        read=_each(lambda statistics: statistics.open_uploads),
    ),
    Figure(
        name="open_bytes",
        kind=Kind.GAUGE,
        help="Bytes that have arrived of open uploads.",
        read=_one(lambda statistics: statistics.open_bytes),
        unit="By",
    ),
    Figure(
        name="stalled_uploads",
        kind=Kind.GAUGE,
        help="Open uploads of which no byte has arrived for stall_after_seconds.",
        read=_one(lambda statistics: statistics.stalled_uploads),
    ),
    Figure(
        name="subscriptions",
        kind=Kind.GAUGE,
        help="Open WebSockets, event streams, long polls and watch() loops.",
        labels=("transport",),
        read=_each(
            lambda statistics: statistics.subscriptions_by_transport, tuple(map(str, Transport))
        ),
    ),
    Figure(
        name="circuit_open",
        kind=Kind.GAUGE,
        help="1 while a store or broker is not called, because it has just failed.",
        labels=("backend",),
        read=_each(lambda statistics: statistics.open_circuits),
    ),
    Figure(
        name="store_interval_seconds",
        kind=Kind.GAUGE,
        help="How long uploads wait to be stored again, beyond store_records_per_second; else 0.",
        read=_one(lambda statistics: statistics.store_interval_seconds),
        unit="s",
    ),
    Figure(
        name="received_bytes",
        kind=Kind.COUNTER,
        help="Body bytes of tracked uploads, also those that were refused later.",
        read=_one(lambda statistics: statistics.received_bytes),
        unit="By",
    ),
    Figure(
        name="accepted_bytes",
        kind=Kind.COUNTER,
        help="Bytes of uploads that have completed.",
        read=_one(lambda statistics: statistics.accepted_bytes),
        unit="By",
    ),
    Figure(
        name="uploads_ended",
        kind=Kind.COUNTER,
        help="Uploads that have ended, by final state and error code.",
        labels=("state", "code"),
        read=_ends,
    ),
    Figure(
        name="arrivals",
        kind=Kind.COUNTER,
        help="Ended uploads that were streamed, or held back by a proxy (buffered), where known.",
        labels=("arrival",),
        read=_each(lambda statistics: statistics.arrivals, tuple(Arrival)),
    ),
    Figure(
        name="untracked_uploads",
        kind=Kind.COUNTER,
        help="Uploads received without progress, because a limit was reached.",
        read=_one(lambda statistics: statistics.untracked),
    ),
    Figure(
        name="reaped_uploads",
        kind=Kind.COUNTER,
        help="Uploads that expired or lost their worker, ended by this worker.",
        read=_one(lambda statistics: statistics.reaped),
    ),
    Figure(
        name="stored_records",
        kind=Kind.COUNTER,
        help="Records written to the store.",
        read=_one(lambda statistics: statistics.records_written),
    ),
    Figure(
        name="store_batches",
        kind=Kind.COUNTER,
        help="Batches of records written to the store.",
        read=_one(lambda statistics: statistics.store_writes),
    ),
    Figure(
        name="dropped_ends",
        kind=Kind.COUNTER,
        help="Ends that were never stored, because the store was away for too long.",
        read=_one(lambda statistics: statistics.ends_dropped),
    ),
    Figure(
        name="backend_failures",
        kind=Kind.COUNTER,
        help="Calls to a store or broker that failed or took too long.",
        labels=("backend",),
        read=_each(lambda statistics: statistics.backend_failures),
    ),
    Figure(
        name="published_events",
        kind=Kind.COUNTER,
        help="Events that the broker has accepted.",
        read=_one(lambda statistics: statistics.events_published),
    ),
    Figure(
        name="dropped_events",
        kind=Kind.COUNTER,
        help="Events that were never published: ends of uploads, and other reports.",
        labels=("kind",),
        read=_dropped,
    ),
    Figure(
        name="received_events",
        kind=Kind.COUNTER,
        help="Events of other workers, received for watchers of this one.",
        read=_one(lambda statistics: statistics.events_received),
    ),
    Figure(
        name="rejected_events",
        kind=Kind.COUNTER,
        help="Events of another system, or of an owner without subscriptions here.",
        read=_one(lambda statistics: statistics.events_rejected),
    ),
    Figure(
        name="rejected_messages",
        kind=Kind.COUNTER,
        help="Messages of other workers that could not be read, or were too many.",
        read=_one(lambda statistics: statistics.messages_rejected),
    ),
    Figure(
        name="delivered_updates",
        kind=Kind.COUNTER,
        help="Snapshots delivered to watchers.",
        read=_one(lambda statistics: statistics.updates_delivered),
    ),
)
"""All figures but the distributions."""

DISTRIBUTIONS: Final[Mapping[Distribution, MeasuredDistribution]] = {
    Distribution.DURATION: MeasuredDistribution(
        name="upload_duration",
        unit_name="seconds",
        unit="s",
        help="From the first byte of an upload to its end.",
    ),
    Distribution.RATE: MeasuredDistribution(
        name="upload_rate",
        unit_name="bytes_per_second",
        unit="By/s",
        help="Average rate of an upload, from its first byte to its last.",
    ),
    Distribution.FLUSH: MeasuredDistribution(
        name="flush_duration",
        unit_name="seconds",
        unit="s",
        help="One pass of the flusher: to store and publish all that is due.",
    ),
    Distribution.LAG: MeasuredDistribution(
        name="update_lag",
        unit_name="seconds",
        unit="s",
        help="From a change of a watched upload, here or at another worker, to its delivery here.",
    ),
}
"""All distributions."""
