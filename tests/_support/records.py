"""Records for the tests of stores."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from upload_progress._model.models import TransferRecord, UploadState

__all__ = ["record"]


def record(upload_id: str = "up", **changes: Any) -> TransferRecord:  # noqa: ANN401  # any field
    """Return a record of an upload by the owner ``ann``, received by the worker ``w``."""
    made = TransferRecord(
        owner="ann",
        upload_id=upload_id,
        transfer_id="t",
        attempt=1,
        sequence=1,
        state=UploadState.RECEIVING,
        worker="w",
        created_at=1_800_000_000.0,
        updated_at=1_800_000_000.0,
    )
    return evolve(made, **changes)
