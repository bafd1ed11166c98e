"""The reaper: what makes it fail must not end it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests._support.simulation import Simulation
from upload_progress._model.models import TransferRecord

pytestmark = pytest.mark.anyio


async def test_store_that_returns_nonsense_does_not_end_the_reaper(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation()

    async def overdue(*, limit: int) -> Sequence[TransferRecord]:
        return [object()] * limit  # type: ignore[list-item]  # nonsense

    with monkeypatch.context() as patch:
        patch.setattr(sim.store, "overdue", overdue)
        await sim.parts.reaper.run_once()
    await sim.parts.reaper.run_once()

    assert caplog.messages == [
        "ending lost uploads failed (AttributeError); uploads are not affected"
    ]
