"""The words on the wire: JSON snapshots, CloudEvents, frames, and packed records.

A reader ignores fields that it does not know, so that an older process understands a newer
one. What is sent to many watchers is encoded once: see ``Update``.

Sources: RFC 8259 (JSON), RFC 3339 (times), CloudEvents 1.0 JSON format, the HTML standard's
event stream format (section 9.2).
"""

from attrs import define, field, frozen

from upload_progress._model.codec import encode_json
from upload_progress._model.models import UploadProgress
from upload_progress._model.state import is_final

__all__ = [
    "SnapshotVersion",
    "Update",
]


@frozen
class SnapshotVersion:
    """Of a snapshot, what decides whether another one is news."""

    sequence: int
    attempt: int
    received_bytes: int
    is_end: bool

    def is_before(self, other: "SnapshotVersion") -> bool:
        """Tell whether *other* is news: events may come twice, late, or from a stranger.

        Nothing follows an end but the next attempt, and bytes never fall, unless it ends.
        """
        if other.sequence <= self.sequence or other.attempt < self.attempt:
            return False
        if other.attempt > self.attempt:
            return True
        return not self.is_end and (other.received_bytes >= self.received_bytes or other.is_end)


@define(eq=False, repr=False)
class Update:
    """A snapshot on its way to watchers.

    Each encoding, and what watchers remember of it, is made once, when first asked for: a
    thousand of them share it.
    """

    owner: str
    progress: UploadProgress
    topic: tuple[str, str] = field(init=False)
    _mark: SnapshotVersion | None = field(default=None, init=False)
    _json: bytes | None = field(default=None, init=False)
    _websocket_text: str | None = field(default=None, init=False)
    _sse: bytes | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Name the upload, as watchers look it up."""
        self.topic = (self.owner, self.progress.upload_id)

    @property
    def mark(self) -> SnapshotVersion:
        """What a watcher remembers of the snapshot that it was shown last."""
        if self._mark is None:
            shown = self.progress
            self._mark = SnapshotVersion(
                shown.sequence, shown.attempt, shown.bytes_transferred, is_final(shown.state)
            )
        return self._mark

    @property
    def is_end(self) -> bool:
        """Whether the upload has ended with it."""
        return self.mark.is_end

    @property
    def json(self) -> bytes:
        """The snapshot as JSON."""
        if self._json is None:
            self._json = encode_json(self.progress)
        return self._json

    @property
    def websocket_text(self) -> str:
        """The snapshot as the text of a WebSocket message."""
        if self._websocket_text is None:
            self._websocket_text = f'{{"type":"progress","upload":{self.json.decode()}}}'
        return self._websocket_text

    @property
    def sse(self) -> bytes:
        """The snapshot as an event of a stream; its id is the sequence."""
        if self._sse is None:
            self._sse = b"id: %d\ndata: %b\n\n" % (self.progress.sequence, self.json)
        return self._sse
