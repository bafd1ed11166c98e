"""Fixtures for the tests of live uploads, their reports and queries."""

from __future__ import annotations

import pytest

from tests._support.simulation import Simulation
from upload_progress._runtime import circuit_breaker


@pytest.fixture
def sim() -> Simulation:
    """Return a tracker with a fake clock."""
    return Simulation()


@pytest.fixture
def short_call_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limit of calls to a backend that does not answer."""
    monkeypatch.setattr(circuit_breaker, "CALL_SECONDS", 0.01)
