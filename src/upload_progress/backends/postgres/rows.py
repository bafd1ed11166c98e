"""Records as rows of a table, and batches of records as arrays, one for each column."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from upload_progress._model.codec import pack_record
from upload_progress._model.models import TransferRecord, UploadKey, without_store_times
from upload_progress.backends.store_records import changed_at, first_lease_seconds, state_code

__all__ = [
    "FORMAT",
    "Key",
    "TransferRow",
    "encode_name",
    "group_by_upload",
    "key_columns",
    "to_columns",
    "to_keys",
    "version_columns",
]

FORMAT: Final = 1

Key = tuple[bytes, str]


class TransferRow(NamedTuple):
    """A selected row of the table ``transfers``.

    Attributes:
        lease_seconds: How long the lease of the worker still lasts; None if it has no lease.
        created_at: When the upload was created; set by ``LIST`` only.
    """

    owner: bytes
    upload_id: str
    transfer_id: str
    attempt: int
    sequence: int
    format: int
    record: bytes
    lease_seconds: float | None
    created_at: float

    @property
    def key(self) -> Key:
        """The upload of this row."""
        return self.owner, self.upload_id

    def lease_until(self, now: float) -> float | None:
        """Return when the lease of the worker ends, on the clock of *now*."""
        return None if self.lease_seconds is None else now + self.lease_seconds


@lru_cache(maxsize=4096)
def encode_name(name: str) -> bytes:
    """Return *name* as bytes: PostgreSQL's ``text`` has neither zero bytes nor lone surrogates."""
    return name.encode("utf-8", "surrogatepass")


def to_columns(records: Sequence[TransferRecord], now: float) -> dict[str, object]:
    """Return *records* as the parameters of ``SAVE``.

    Args:
        records: The records.
        now: Seconds since the epoch.
    """
    workers = sorted({each.worker for each in records if each.worker is not None})
    return {
        "owner": [encode_name(record.owner) for record in records],
        "upload_id": [record.upload_id for record in records],
        "transfer_id": [record.transfer_id for record in records],
        "attempt": _text_array(str(record.attempt) for record in records),
        "sequence": _text_array(str(record.sequence) for record in records),
        "state_code": _text_array(state_code(record) for record in records),
        "changed_at": [changed_at(record) for record in records],
        "created_at": [float(record.created_at) for record in records],
        "group_name": [
            None if record.group is None else encode_name(record.group) for record in records
        ],
        "worker": [record.worker for record in records],
        "record": [pack_record(without_store_times(record)) for record in records],
        "workers": [*workers],
        "leases": [first_lease_seconds(worker, now) for worker in workers],
    }


def _text_array(values: Iterable[str]) -> str:
    """Return an array in text format, of values without special characters.

    psycopg makes a binary one in Python, value by value.
    """
    return f"{{{','.join(values)}}}"


def to_keys(keys: Iterable[UploadKey]) -> list[Key]:
    """Return *keys* as values of the first two columns."""
    return [(encode_name(key.owner), key.upload_id) for key in keys]


def key_columns(keys: Iterable[Key]) -> tuple[list[bytes], list[str]]:
    """Return the array of owners and the array of upload ids."""
    pairs = list(keys)
    return [owner for owner, _ in pairs], [upload_id for _, upload_id in pairs]


def version_columns(rows: Iterable[TransferRow]) -> tuple[list[object], ...]:
    """Return five arrays, which identify *rows* in the version that was read."""
    ordered = sorted(rows)
    return (
        [row.owner for row in ordered],
        [row.upload_id for row in ordered],
        [row.transfer_id for row in ordered],
        [row.attempt for row in ordered],
        [row.sequence for row in ordered],
    )


def group_by_upload(rows: Iterable[Sequence[object]]) -> list[list[TransferRow]]:
    """Return the selected *rows* of each upload, in the order of their first rows."""
    uploads: dict[Key, list[TransferRow]] = {}
    for values in rows:
        row = TransferRow(*values)  # type: ignore[arg-type]  # COLUMNS has these types
        uploads.setdefault(row.key, []).append(row)
    return list(uploads.values())
