"""The counters of a tracker."""

from collections.abc import Mapping

from attrs import frozen

from upload_progress._model.models import Arrival, ErrorCode, UploadState

__all__ = ["Readiness", "Statistics"]


@frozen(slots=False)
class Readiness:
    """Whether a process should get new requests, and how long it still needs for its uploads.

    Attributes:
        is_ready: Whether ``drain()`` was not called.
        open_uploads: Uploads that requests or tasks of this process carry.
        longest_eta_seconds: The longest remaining time of these; None if it is known of none. The
            application may need more time after the last byte.
    """

    is_ready: bool
    open_uploads: int
    longest_eta_seconds: float | None


@frozen
class Statistics:
    """Counters of one tracker in this process, at one moment.

    Attributes:
        live_uploads: Uploads being received now, or ended and not stored yet.
        open_uploads: How many of these have not ended, by state. Uploads that no request carries
            are in the store alone, and not counted here.
        open_bytes: The bytes that have arrived of these.
        stalled_uploads: How many of these are stalled.
        received_bytes: All body bytes of tracked uploads, also those that were refused.
        accepted_bytes: The bytes of the uploads that have completed here.
        uploads_ended: How many uploads have ended here, by state and error code.
        arrivals: How many of these were streamed, or held back by a proxy, as far as that is known.
        subscriptions: Open sockets, event streams, long polls and ``watch()`` loops.
        subscriptions_by_transport: The same for ``websocket``, ``event_stream``, ``long_poll`` and
            ``iterator``.
        store_writes: Batches written to the store.
        records_written: Records in these batches.
        store_interval_seconds: How long an upload waits at the moment until it is stored again,
            because more is to be written than ``store_records_per_second``; 0 within the budget.
        events_published: Events that the publisher has accepted.
        events_dropped: Events that were never published: too many waited, or the broker refused
            them.
        end_events_dropped: How many of these were ends of uploads.
        updates_delivered: Snapshots delivered to subscriptions.
        store_failures: Calls to the store that failed or took too long.
        publisher_failures: Calls to the publisher that failed or took too long.
        backend_failures: The same for each backend: ``store``, ``publisher``, ``subscriber``,
            ``transport`` and ``edge``, one that has several of these roles only under the first.
        open_circuits: Whether calls to that backend, or to a part of the store, are refused at the
            moment, after a failure.
        events_received: Events of other workers, received for subscriptions of this worker.
        events_rejected: Events of another owner than the one of their channel.
        messages_rejected: Messages of other workers that could not be read, or were too many.
        ends_dropped: Ends of uploads that were never stored, because the store was away too long.
        reaped: Uploads that expired or lost their worker, ended by this process.
        untracked: Uploads received without progress, because a limit was reached.
    """

    live_uploads: int
    open_uploads: Mapping[UploadState, int]
    open_bytes: int
    stalled_uploads: int
    received_bytes: int
    accepted_bytes: int
    uploads_ended: Mapping[tuple[UploadState, ErrorCode | None], int]
    arrivals: Mapping[Arrival, int]
    subscriptions: int
    subscriptions_by_transport: Mapping[str, int]
    store_writes: int
    records_written: int
    store_interval_seconds: float
    events_published: int
    events_dropped: int
    end_events_dropped: int
    updates_delivered: int
    store_failures: int
    publisher_failures: int
    backend_failures: Mapping[str, int]
    open_circuits: Mapping[str, bool]
    events_received: int
    events_rejected: int
    messages_rejected: int
    ends_dropped: int
    reaped: int
    untracked: int
