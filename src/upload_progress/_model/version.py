"""The order of versions: which of two records or snapshots of an upload is newer."""

from typing import NamedTuple

from upload_progress._model.models import TransferRecord, UploadProgress
from upload_progress._model.state import is_final

__all__ = ["Version", "version_of"]


class Version(NamedTuple):
    """The version of a record or snapshot; versions of one record are compared as tuples.

    Attributes:
        attempt: The attempt, from 1.
        is_final: Whether the state is final: within an attempt the end is the newest version.
        sequence: The sequence within the record or upload.
    """

    attempt: int
    is_final: bool
    sequence: int

    def supersedes(self, known: "Version") -> bool:
        """Return whether this version may replace *known*: nothing follows the end of an attempt.

        Args:
            known: The version that is stored or shown.
        """
        if self.attempt != known.attempt:
            return self.attempt > known.attempt
        return not known.is_final and self.sequence > known.sequence


def version_of(item: TransferRecord | UploadProgress) -> Version:
    """Return the version of a record or snapshot."""
    return Version(item.attempt, is_final(item.state), item.sequence)
