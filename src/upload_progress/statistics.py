"""What a tracker has counted."""

from attrs import frozen

__all__ = ["Statistics"]


@frozen
class Statistics:
    """Figures of one tracker in this process, at one moment.

    Attributes:
        live_uploads: Being received now, or ended and not yet stored.
        watchers: Sockets, streams, long polls and ``watch()`` loops.
        store_writes: Batches stored; ``records_written`` counts what was in them.
        events_published: Handed to the publisher.
        updates_delivered: Snapshots put into watchers' slots.
        store_failures: Calls to the store that failed or took too long.
        publisher_failures: The same for the publisher.
        events_heard: Events of other workers that came for watchers here.
        events_refused: Events that were not of the owner whose channel they came over.
        letters_spoiled: Letters of other workers that could not be read, or were too many.
        ends_dropped: Ends that the store never got because it was away for too long.
        swept: Uploads that expired or lost their worker, ended by this process.
        untracked: Uploads received without progress, because a limit was reached.
    """

    live_uploads: int
    watchers: int
    store_writes: int
    records_written: int
    events_published: int
    updates_delivered: int
    store_failures: int
    publisher_failures: int
    events_heard: int
    events_refused: int
    letters_spoiled: int
    ends_dropped: int
    swept: int
    untracked: int
