"""Records as rows of PostgreSQL, and whole batches of them as a few arrays."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from upload_progress._model.codec import pack_record
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.store_records import changed_at, state_code, without_store_times

__all__ = [
    "FORMAT",
    "Key",
    "Row",
    "columns_of",
    "cursor_of",
    "keys_of",
    "raw",
    "read_cursor",
    "split",
    "uploads_of",
    "versions_of",
]

FORMAT: Final = 1

Key = tuple[bytes, str]


class Row(NamedTuple):
    """A record as it lies there.

    Attributes:
        lease_seconds: How long the lease of its worker still lasts; None where it has none.
        created_at: When the upload was, in a list.
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
        """The upload that it is of."""
        return self.owner, self.upload_id

    def lease_until(self, now: float) -> float | None:
        """Return when the lease of its worker ends, by the clock that says *now*."""
        return None if self.lease_seconds is None else now + self.lease_seconds


@lru_cache(maxsize=4096)
def raw(name: str) -> bytes:
    """Return *name* as bytes: a text of PostgreSQL cannot hold everything that a name may."""
    return name.encode("utf-8", "surrogatepass")


def columns_of(records: Sequence[TransferRecord]) -> dict[str, list[object]]:
    """Return *records* as the statement that saves them takes them."""
    return {
        "owner": [raw(record.owner) for record in records],
        "upload_id": [record.upload_id for record in records],
        "transfer_id": [record.transfer_id for record in records],
        "attempt": [record.attempt for record in records],
        "sequence": [record.sequence for record in records],
        "kind": [state_code(record) for record in records],
        "at": [changed_at(record) for record in records],
        "created_at": [float(record.created_at) for record in records],
        "group_name": [None if record.group is None else raw(record.group) for record in records],
        "worker": [record.worker for record in records],
        "record": [pack_record(without_store_times(record)) for record in records],
        "workers": [*sorted({each.worker for each in records if each.worker is not None})],
    }


def keys_of(keys: Iterable[UploadKey]) -> list[Key]:
    """Return *keys* as they are here."""
    return [(raw(key.owner), key.upload_id) for key in keys]


def split(keys: Iterable[Key]) -> tuple[list[bytes], list[str]]:
    """Return two arrays."""
    pairs = list(keys)
    return [owner for owner, _ in pairs], [upload_id for _, upload_id in pairs]


def versions_of(rows: Iterable[Row]) -> tuple[list[object], ...]:
    """Return five arrays: which rows, and in which version."""
    seen = sorted(rows)
    return (
        [row.owner for row in seen],
        [row.upload_id for row in seen],
        [row.transfer_id for row in seen],
        [row.attempt for row in seen],
        [row.sequence for row in seen],
    )


def uploads_of(rows: Iterable[Sequence[object]]) -> list[list[Row]]:
    """Return what was found, each upload's rows together."""
    uploads: dict[Key, list[Row]] = {}
    for values in rows:
        row = Row(*values)  # type: ignore[arg-type]  # as the statements select them
        uploads.setdefault(row.key, []).append(row)
    return list(uploads.values())


def cursor_of(row: Row) -> str:
    """Return where a list goes on behind the upload of *row*."""
    return f"{row.created_at!r}:{row.upload_id}"


def read_cursor(cursor: str | None) -> tuple[float | None, str]:
    """Return the time and the id in *cursor*; of what is none, the beginning."""
    moment, _, upload_id = (cursor or "").partition(":")
    try:
        return float(moment), upload_id
    except ValueError:
        return None, ""
