"""What the memory store keeps of one upload, and where that lies."""

from collections.abc import Sequence

from attrs import define

from upload_progress.lifecycle import is_final
from upload_progress.model import TransferRecord
from upload_progress.wire import unpack_record

__all__ = ["Bucket", "Entry", "advances"]


@define(eq=False, repr=False, weakref_slot=False)
class Entry:
    """One upload: its packed records, and where it lies until it is looked at again.

    There may be a hundred thousand of these, most of them idle: what can be shared is shared.
    """

    owner: str
    upload_id: str
    packed: bytes | tuple[bytes, ...] = b""
    place: "Bucket | str | None" = None
    is_ended: bool = False

    @property
    def records(self) -> list[TransferRecord]:
        """What is kept of each transfer."""
        packed = (self.packed,) if isinstance(self.packed, bytes) else self.packed
        return [unpack_record(self.owner, self.upload_id, each) for each in packed]


class Bucket(set[Entry]):
    """Those whose time is over by the second *number*."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number: int = number

    def __repr__(self) -> str:
        """Say which, and not what is in it: that may be ten thousand uploads."""
        return f"<Bucket {self.number}>"


def advances(record: TransferRecord, known: Sequence[TransferRecord]) -> bool:
    """Tell whether *record* is newer than what is known, and revives nothing that ended."""
    if any(other.attempt > record.attempt for other in known):
        return False
    return not any(
        other.transfer_id == record.transfer_id
        and other.attempt == record.attempt
        and (is_final(other.state) or other.sequence >= record.sequence)
        for other in known
    )
