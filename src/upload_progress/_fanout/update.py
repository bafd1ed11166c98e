"""A snapshot on its way to subscriptions; each of its encodings is made once."""

from datetime import datetime
from functools import cached_property

from attrs import define, evolve, field, frozen

from upload_progress._model.codec import encode_json
from upload_progress._model.models import ErrorCode, UploadProgress
from upload_progress._model.state import is_waiting
from upload_progress._model.version import Version, version_of

__all__ = ["SnapshotVersion", "Topic", "Update"]

Topic = tuple[str, str]
"""An owner, and an upload id or a group."""


@frozen
class SnapshotVersion:
    """The part of a snapshot that decides whether another snapshot is newer."""

    version: Version
    received_bytes: int
    is_waiting: bool
    updated_at: datetime

    @property
    def is_end(self) -> bool:
        """Whether the upload has ended."""
        return self.version.is_final

    def supersedes(self, known: "SnapshotVersion") -> bool:
        """Return whether this snapshot may follow *known*.

        Events may arrive twice or late. Nothing follows an end but the next attempt, whose sequence
        is lower if its worker did not know yet how the one before has ended. Bytes fall within an
        attempt only if it ends, or if the response of the application shows that it does not have
        them: then the upload waits.

        An end may follow a higher sequence of its attempt: another worker that ends the upload
        of a crashed one knows only what is stored, and events may have been ahead of that.
        """
        version, older = self.version, known.version
        # The order of tuples, except between two ends of an attempt.
        if version <= older:
            return False
        if version.attempt != older.attempt:
            return True
        if older.is_final:
            return False
        return version.is_final or self.is_waiting or self.received_bytes >= known.received_bytes


@define(eq=False, repr=False)
class Update:
    """A snapshot on its way to subscriptions.

    The JSON, the WebSocket text, the event-stream text and the version are computed once, when
    they are first needed, and shared by all subscriptions.
    """

    owner: str
    progress: UploadProgress
    topic: Topic = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Compute the topic, by which subscriptions are looked up."""
        self.topic = (self.owner, self.progress.upload_id)

    @cached_property
    def version(self) -> SnapshotVersion:
        """The version, by which a subscription recognises what it has delivered."""
        progress = self.progress
        return SnapshotVersion(
            version_of(progress),
            progress.bytes_transferred,
            is_waiting(progress.state),
            progress.updated_at,
        )

    @cached_property
    def with_owner(self) -> "Update":
        """The same for operators, who see whose upload it is."""
        return Update(self.owner, evolve(self.progress, owner=self.owner))

    @property
    def is_end(self) -> bool:
        """Whether the upload ends with this snapshot."""
        return self.version.is_end

    @property
    def is_inferred_end(self) -> bool:
        """Whether it is an end that the worker of the upload may still overrule."""
        error = self.progress.error
        return error is not None and error.code is ErrorCode.WORKER_LOST

    @cached_property
    def json(self) -> bytes:
        """The snapshot as JSON."""
        return encode_json(self.progress)

    @cached_property
    def websocket_text(self) -> str:
        """The snapshot as the text of a WebSocket message."""
        return f'{{"type":"progress","upload":{self.json.decode()}}}'

    @cached_property
    def sse(self) -> bytes:
        """The snapshot as an event of an event stream; its id is the sequence."""
        return b"id: %d\ndata: %b\n\n" % (self.progress.sequence, self.json)
