"""Hand-over: the processing of an upload goes on in a task, when its request is over.

The worker that received the upload writes its last version: the record then waits for a task, until
a deadline that takes the place of the worker's lease. A task with the token takes over the record,
and is its only writer from then on. The store has only a hash of the token.
"""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from attrs import evolve, frozen

from upload_progress._model.fold import fold, newest
from upload_progress._model.models import (
    ErrorCode,
    HandOver,
    TransferRecord,
    UploadKey,
    UploadProgress,
    UploadState,
    new_upload_id,
)
from upload_progress._model.state import CANCELLED, is_final
from upload_progress._runtime.worker import deadline_worker
from upload_progress.exceptions import InvalidValue, UploadCancelled, UploadEnded

__all__ = [
    "MAX_EXPIRES_SECONDS",
    "Handed",
    "Token",
    "continued",
    "end_of",
    "find_handed_over",
    "hash_of",
    "make_token",
    "next_attempt",
    "read_token",
    "resumed",
    "with_inherited",
]

MAX_EXPIRES_SECONDS: Final = 86_400.0
"""How long an upload may wait for a task; stores keep a record without a writer for as long."""
_REPEATABLE: Final = frozenset({ErrorCode.WORKER_LOST, ErrorCode.APP_ERROR})
"""Ends after which a task may try again."""
_SEPARATOR: Final = "."
_MAX_TOKEN_CHARACTERS: Final = 4096
_INHERITED: Final = (
    "arrival",
    "byte_ranges",
    "confirmed_bytes",
    "former_sessions",
    "idle_at",
    "last_byte_at",
    "previous_ended_at",
    "protocol",
    "retransmitted_bytes",
    "session",
)
"""What a task leaves as the worker has stored it that received the upload."""


@frozen(repr=False)
class Handed:
    """That the application has asked to hand over an upload.

    Attributes:
        token: The secret with which a task resumes it.
        expires_seconds: How long it waits for the task.
    """

    token: str
    expires_seconds: float

    @property
    def record(self) -> HandOver:
        """What the store has of it."""
        return HandOver(hash_of(self.token))

    def worker(self, now: float) -> str:
        """Return the deadline that takes the place of the worker, at *now* since the epoch."""
        return deadline_worker(now, self.expires_seconds)


class Token(NamedTuple):
    """A token that was read.

    Attributes:
        key: The upload; None if it was not tracked.
        token_hash: The hash that the record of the upload has.
    """

    key: UploadKey | None
    token_hash: str


def make_token(key: UploadKey | None) -> str:
    """Return a new token: 128 random bits, and the key of the upload unless that is not tracked."""
    name = b"" if key is None else msgspec.json.encode((key.owner, key.upload_id))
    return f"{new_upload_id()}{_SEPARATOR}{urlsafe_b64encode(name).decode()}"


def hash_of(token: str) -> str:
    """Return the hash of a token; a fast one, as a token has 128 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_token(text: str) -> Token:
    """Read a token.

    Raises:
        InvalidValue: It is none.
    """
    _, separator, name = text[: _MAX_TOKEN_CHARACTERS + 1].partition(_SEPARATOR)
    if not separator or len(text) > _MAX_TOKEN_CHARACTERS:
        raise InvalidValue("token", "is not a token of hand_over()")
    try:
        key = UploadKey(*_names(name)) if name else None
        return Token(key, hash_of(text))
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        raise InvalidValue("token", "is not a token of hand_over()") from None


def _names(encoded: str) -> tuple[str, str]:
    return msgspec.json.decode(urlsafe_b64decode(encoded), type=tuple[str, str])


def find_handed_over(records: Iterable[TransferRecord], token_hash: str) -> TransferRecord | None:
    """Return the record that a token takes over; None if it takes over none of them."""
    for record in records:
        known = "" if record.hand_over is None else record.hand_over.token_hash
        if hmac.compare_digest(known, token_hash):
            return record
    return None


def with_inherited(
    record: TransferRecord, inherited: TransferRecord, set_by_app: Iterable[str]
) -> TransferRecord:
    """Return a version of a record by a task, with what the task continues."""
    values = {name: getattr(inherited, name) for name in _INHERITED}
    names = {*inherited.set_by_app, *set_by_app} if inherited.protocol is not None else ()
    return evolve(record, **values, set_by_app=tuple(sorted(names)))


def end_of(shown: UploadProgress) -> Exception:
    """Return the error of a task that would go on with an upload that has ended."""
    return UploadCancelled() if shown.error == CANCELLED else UploadEnded(shown.state)


def continued(
    record: TransferRecord,
    records: Iterable[TransferRecord],
    *,
    now: float,
    goes_on: bool = False,
) -> TransferRecord:
    """Return what a task goes on with: the record that waits for it, or the next attempt.

    Args:
        record: The record that was handed over.
        records: The records of its attempt, with *record*.
        now: Seconds since the epoch.
        goes_on: Whether the task has resumed the record before.

    Raises:
        UploadCancelled: The owner has cancelled the upload.
        UploadEnded: It has ended in a way after which no task tries again.
    """
    current = list(records)
    shown = fold(current, now=now)
    assert shown is not None  # noqa: S101  # there is a record
    if not is_final(shown.state):
        is_first = record.hand_over is not None and not record.hand_over.is_resumed
        return record if is_first or goes_on else next_attempt(record, current, now=now)
    if shown.error is None or shown.error.code not in _REPEATABLE:
        raise end_of(shown)
    return next_attempt(record, current, now=now)


def next_attempt(
    record: TransferRecord, records: Iterable[TransferRecord], *, now: float
) -> TransferRecord:
    """Return what a task takes over as the next attempt: all that is known of the upload.

    Args:
        record: The record that was handed over.
        records: The records of its attempt, with *record*.
        now: Seconds since the epoch.
    """
    current = newest(records)
    shown = fold(current, now=now)
    assert shown is not None  # noqa: S101  # there is a record
    return evolve(
        _with_description(record, shown),
        attempt=shown.attempt + 1,
        sequence=shown.sequence + 1,
        received_bytes=record.received_bytes,
        retransmitted_bytes=shown.retransmitted_bytes,
        byte_ranges=tuple(each for one in current for each in one.byte_ranges),
        confirmed_bytes=max(one.confirmed_bytes for one in current),
        created_at=min(one.created_at for one in current),
        state=UploadState.PROCESSING,
        error=None,
        stage=None,
        stored_bytes=None,
        finished_at=None,
    )


def _with_description(record: TransferRecord, shown: UploadProgress) -> TransferRecord:
    return evolve(
        record,
        group=shown.group,
        filename=shown.filename,
        content_type=shown.content_type,
        metadata=shown.metadata,
        total_bytes=shown.total_bytes,
    )


def resumed(record: TransferRecord, *, worker: str, now: float) -> TransferRecord:
    """Return the first version of a record that a task writes.

    Args:
        record: The record, as it is to be continued.
        worker: The worker of the task, or a deadline.
        now: Seconds since the epoch.
    """
    hand_over = record.hand_over
    assert hand_over is not None  # noqa: S101  # it was found by its token
    return evolve(
        record,
        sequence=record.sequence + 1,
        hand_over=HandOver(hand_over.token_hash, is_resumed=True),
        updated_at=now,
        worker=worker,
        lease_until=None,
        expires_at=None,
    )
