"""The lease of a worker on its own clock."""

from __future__ import annotations

from upload_progress._reporting.lease import Lease
from upload_progress.testing import FakeClock


def test_lease_is_renewed_several_times_while_it_lasts() -> None:
    clock = FakeClock()
    lease = Lease(clock=clock, seconds=15.0, is_shared=True)
    states = [(lease.is_due, lease.has_run_out)]
    lease.mark_renewed(clock.monotonic())
    for seconds in (0.0, 2.0, 12.9, 0.1):
        clock.advance(seconds)
        states.append((lease.is_due, lease.has_run_out))
    lease.give_up()
    states.append((lease.is_due, lease.has_run_out))

    assert states == [
        (True, False),
        (False, False),
        (True, False),
        (True, False),
        (True, True),
        (True, False),
    ]


def test_lease_that_nobody_else_knows_never_runs_out() -> None:
    clock = FakeClock()
    lease = Lease(clock=clock, seconds=15.0, is_shared=False)
    lease.mark_renewed(clock.monotonic())
    clock.advance(100.0)

    assert not lease.has_run_out
