"""The arguments of the scripts: many strings in one argument, which the driver sends faster."""

import time
from struct import Struct
from typing import Final

from upload_progress._model.codec import pack_record
from upload_progress._model.models import TransferRecord, without_store_times
from upload_progress.backends.store_records import changed_at, first_lease_seconds, state_code
from upload_progress.backends.subscriptions import key_of

__all__ = ["pack_row", "pack_strings"]

_length: Final = Struct(">I").pack


def pack_strings(*strings: str | bytes) -> bytes:
    """Return many arguments as one, each preceded by its length."""
    packed: list[bytes] = []
    for each in strings:
        encoded = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
        packed += (_length(len(encoded)), encoded)
    return b"".join(packed)


def pack_row(record: TransferRecord) -> bytes:
    """Return what ``save.lua`` needs of one record: where it is stored, and its value."""
    hashed_owner = key_of(record.owner)
    worker = "" if record.worker is None else key_of(record.worker)
    group = "" if record.group is None else key_of(record.group)
    begin = f"1\t{record.attempt}\t{state_code(record)}\t{worker}\t{group}"
    header = f"{begin}\t{record.sequence}\t{changed_at(record):.6f}\n"
    value = header.encode() + pack_record(without_store_times(record))
    created_at = f"{record.created_at:.6f}"
    lease = f"{first_lease_seconds(record.worker or '', time.time()):.6f}"
    return pack_strings(
        hashed_owner, record.owner, record.upload_id, record.transfer_id, value, created_at, lease
    )
