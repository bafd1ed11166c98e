"""The state machine: every signal in every state."""

from __future__ import annotations

from itertools import product

import pytest

from upload_progress._model.models import UploadState
from upload_progress._model.state import (
    FINAL_STATES,
    OPEN_STATES,
    TRANSITIONS,
    WAITING_STATES,
    Signal,
    is_final,
    is_receiving,
    is_waiting,
    next_state,
)

S = UploadState

# A row per state, a column per signal, in the order of ``Signal``: begin, pause, body_end, accept,
# redirect, reject, raise, disconnect, cancel, lose, expire. A dash ignores the signal.
TABLE = {
    S.PENDING: "receiving - - - - failed - - cancelled - failed",
    S.RECEIVING: "- paused processing completed pending failed failed failed cancelled failed -",
    S.PAUSED: "receiving - - - - failed - - cancelled - failed",
    S.PROCESSING: "- paused - completed pending failed failed - cancelled failed failed",
    S.COMPLETED: "- - - - - - - - - - -",
    S.FAILED: "- - - - - - - - - - -",
    S.CANCELLED: "- - - - - - - - - - -",
}


@pytest.mark.parametrize(("state", "signal"), list(product(UploadState, Signal)))
def test_transition(state: UploadState, signal: Signal) -> None:
    expected = dict(zip(Signal, TABLE[state].split(), strict=True))[signal]

    assert next_state(state, signal) == (None if expected == "-" else expected)


def test_every_state_is_either_open_or_final() -> None:
    assert set(UploadState) == OPEN_STATES | FINAL_STATES
    assert not OPEN_STATES & FINAL_STATES
    assert WAITING_STATES < OPEN_STATES
    for state in UploadState:
        assert is_final(state) is (state in FINAL_STATES)
        assert is_waiting(state) is (state in WAITING_STATES)
        assert is_receiving(state) is (state is S.RECEIVING)


def test_every_open_state_can_end_and_every_state_is_reachable() -> None:
    reached = {S.PENDING} | set(TRANSITIONS.values())
    assert reached == set(UploadState)
    for state in OPEN_STATES:
        ends = {next_state(state, signal) for signal in Signal} & FINAL_STATES
        assert {S.FAILED, S.CANCELLED} <= ends
