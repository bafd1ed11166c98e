"""The rules that all stores share: which record replaces which, and which records are overdue."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests._support.records import record
from upload_progress._model.models import TransferRecord, UploadState, without_store_times
from upload_progress.backends.store_records import (
    changed_at,
    decode_record,
    latest_records,
    overdue_records,
    state_code,
    supersedes,
    with_store_times,
)
from upload_progress.config import Retention

S = UploadState
KNOWN = record(attempt=2, sequence=5)
ENDED = evolve(KNOWN, state=S.FAILED, finished_at=9.0)


@pytest.mark.parametrize(
    ("new", "known", "is_accepted"),
    [
        (KNOWN, [], True),
        (evolve(KNOWN, sequence=6), [KNOWN], True),
        (KNOWN, [KNOWN], False),
        (evolve(KNOWN, sequence=4), [KNOWN], False),
        (evolve(KNOWN, sequence=6), [ENDED], False),
        (evolve(ENDED, sequence=6), [ENDED], False),
        (evolve(ENDED, sequence=4), [KNOWN], False),
        (evolve(KNOWN, attempt=3, sequence=1), [ENDED], True),
        (evolve(KNOWN, attempt=1, sequence=9), [KNOWN], False),
        (evolve(KNOWN, transfer_id="other", sequence=1), [KNOWN], True),
        (evolve(KNOWN, transfer_id="other", attempt=1, sequence=9), [KNOWN], False),
    ],
)
def test_record_is_accepted_if_newer(
    new: TransferRecord, known: list[TransferRecord], is_accepted: bool
) -> None:
    assert supersedes(new, known) is is_accepted


def test_latest_records_are_those_saved_one_after_the_other() -> None:
    newer = evolve(KNOWN, sequence=6)
    other = evolve(KNOWN, transfer_id="a")
    retried = record("retried", transfer_id="second", attempt=2)
    batch = [
        record("retried", attempt=1),
        newer,
        KNOWN,
        other,
        retried,
        record("retried", attempt=1, sequence=9),
    ]

    assert latest_records(batch) == [retried, other, newer]
    assert latest_records([retried, KNOWN]) == [retried, KNOWN]


@pytest.mark.parametrize(
    ("state", "protocol", "code"),
    [
        (S.PENDING, None, "N"),
        (S.PAUSED, "tus", "P"),
        (S.RECEIVING, None, "R"),
        (S.PROCESSING, "tus", "R"),
        (S.FAILED, None, "S"),
        (S.CANCELLED, "tus", "S"),
        (S.COMPLETED, None, "C"),
        (S.COMPLETED, "tus", "D"),
    ],
)
def test_state_code_distinguishes_what_stores_need(
    state: UploadState, protocol: str | None, code: str
) -> None:
    assert state_code(record(state=state, protocol=protocol)) == code


def test_state_changed_when_record_ended_or_was_updated() -> None:
    assert changed_at(evolve(KNOWN, updated_at=7.0)) == 7.0
    assert changed_at(evolve(ENDED, updated_at=7.0)) == 9.0
    assert changed_at(evolve(ENDED, updated_at=7.0, finished_at=None)) == 7.0


def test_data_that_is_not_a_record_is_not_decoded() -> None:
    assert decode_record("ann", "up", b"\xc1") is None


def test_store_times_depend_on_state() -> None:
    retention = Retention(waiting_seconds=10.0)
    waiting = evolve(KNOWN, state=S.PENDING, updated_at=5.0)

    assert with_store_times(waiting, retention, 99.0).expires_at == 15.0
    assert with_store_times(KNOWN, retention, 99.0).lease_until == 99.0
    assert with_store_times(ENDED, retention, 99.0) == ENDED
    assert without_store_times(with_store_times(KNOWN, retention, 99.0)) == KNOWN
    assert without_store_times(KNOWN) is KNOWN


def test_overdue_records_are_expired_or_of_dead_workers() -> None:
    expired = evolve(KNOWN, state=S.PENDING, expires_at=8.0)
    lost = evolve(KNOWN, lease_until=8.0)
    alive = evolve(KNOWN, transfer_id="alive", lease_until=12.0)

    assert list(overdue_records([expired], 10.0)) == [expired]
    # The clock of the store is ahead.
    assert list(overdue_records([expired], 7.0)) == [evolve(expired, expires_at=7.0)]
    assert list(overdue_records([lost, alive], 10.0)) == [lost]
    assert list(overdue_records([ENDED], 10.0)) == []
