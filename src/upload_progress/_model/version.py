"""The order of versions: which of two records or snapshots of an upload is newer."""

from typing import Final, NamedTuple

from upload_progress._model.models import TransferRecord, UploadProgress
from upload_progress._model.state import is_final

__all__ = ["MAX_UNSTORED_VERSIONS", "SKIPPED_VERSIONS", "Version", "version_of"]

MAX_UNSTORED_VERSIONS: Final = 100
"""How many versions in a row the worker that receives an upload may show without storing them."""
SKIPPED_VERSIONS: Final = 1000
"""How far another worker that ends or replaces an upload continues the stored sequence.

More than the versions that were shown and not stored, and those that the receiving worker may still
write until it learns of the end: of the snapshots of an attempt a receiver keeps the end, else the
one with the highest sequence.
"""


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
