"""The oracle finds faults: three that are put into the core are each found within 200 sequences.

Sequence N of a nightly run is the sequence with the number N // 7 of protocol N % 7. Only those of
one protocol are tested here: if one of them fails, the fault is found among all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.oracle.generation import Dimensions, random_scenario
from tests.oracle.steps import PROTOCOLS
from tests.oracle.test_oracle import WITH_RACES, fails
from upload_progress._model import fold
from upload_progress._model.models import ByteRange, TransferRecord, UploadProgress
from upload_progress._tracking.continuation import belonging, prior_state
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import Transfer

WITHIN = 200


def is_found(protocol: str) -> bool:
    """Return whether a sequence of that protocol fails, of the first 200 of all protocols."""
    dimensions = Dimensions(races=protocol in WITH_RACES)
    seeds = range(-(-(WITHIN - PROTOCOLS.index(protocol)) // len(PROTOCOLS)))
    return any(fails(random_scenario(protocol, seed, dimensions)) for seed in seeds)


def test_refused_bytes_that_count_as_accepted_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(transfer: Transfer, end: int) -> ByteRange | None:
        received = transfer.byte_range(end)
        return received and (*received[:3], True)

    monkeypatch.setattr(Transfer, "kept_range", everything)
    assert is_found("oci")


def test_plain_uploads_that_are_added_up_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(upload: LiveUpload, records: Iterable[TransferRecord], before: UploadProgress) -> None:
        upload.attempt, upload.prior_records = before.attempt, tuple(records)

    monkeypatch.setattr(fold, "_of_newest_session", list)
    # Without this the second upload is the next attempt, and few snapshots show the sum.
    monkeypatch.setattr(prior_state, "_supersede_records", join)
    assert is_found("plain")


def test_requests_that_are_admitted_after_the_end_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(belonging, "belongs_to_ended", lambda *_: False)
    assert is_found("s3")
