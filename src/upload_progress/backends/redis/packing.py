"""The arguments of the scripts: many strings in one argument, which the driver sends faster."""

from collections.abc import Iterable
from struct import Struct
from typing import Final

from upload_progress._model.codec import pack_record
from upload_progress._model.models import TransferRecord, without_store_times
from upload_progress.backends.store_records import changed_at, first_lease_seconds, state_code
from upload_progress.backends.subscriptions import key_of

__all__ = ["FULL_WAY_EVERY", "pack_leases", "pack_rows", "pack_strings"]

FULL_WAY_EVERY: Final = 16
"""So many writes of a running transfer apart, the script restores whatever Redis has evicted."""

_length: Final = Struct(">I").pack
_numbers: Final = Struct(">IQdI").pack


def pack_strings(*strings: str | bytes) -> bytes:
    """Return many arguments as one, each preceded by its length."""
    packed: list[bytes] = []
    for each in strings:
        encoded = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
        packed += (_length(len(encoded)), encoded)
    return b"".join(packed)


def pack_leases(records: Iterable[TransferRecord], now: float) -> bytes:
    """Return the hashed workers of *records*, each followed by the lease that it has at first.

    Args:
        records: The records.
        now: Seconds since the epoch.
    """
    leases: list[str] = []
    for worker in {record.worker for record in records}:
        leases += (_hash(worker), f"{first_lease_seconds(worker or '', now):.6f}")
    return pack_strings(*leases)


def pack_rows(records: Iterable[TransferRecord]) -> bytes:
    """Return what ``save.lua`` needs of each record: where it is stored, and its value.

    Of the numbers, the first says how many bytes of the value are the same in all versions that
    only continue a running transfer; 0 for a version that takes the full way.
    """
    packed: list[bytes] = []
    for record in records:
        code, sequence = state_code(record), record.sequence
        begin = f"1\t{record.attempt}\t{code}\t{_hash(record.worker)}\t{_hash(record.group)}\t"
        header = f"{begin}{sequence}\t{int(changed_at(record))}\n"
        value = header.encode() + pack_record(without_store_times(record))
        same_bytes = len(begin) if code == "R" and sequence % FULL_WAY_EVERY else 0
        member = f"{key_of(record.owner)}:{record.upload_id}".encode()
        transfer_id = record.transfer_id.encode()
        owner = record.owner.encode("utf-8", "surrogatepass")
        packed += (
            _length(len(member)),
            member,
            _length(len(transfer_id)),
            transfer_id,
            _length(len(value)),
            value,
            _numbers(same_bytes, sequence, record.created_at, len(owner)),
            owner,
        )
    return b"".join(packed)


def _hash(name: str | None) -> str:
    return "" if name is None else key_of(name)
