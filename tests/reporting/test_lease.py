"""The lease of a worker on its own clock."""

from __future__ import annotations

from upload_progress._reporting.lease import Lease
from upload_progress.testing import FakeClock


def test_lease_is_renewed_several_times_while_it_lasts() -> None:
    clock = FakeClock()
    lease = Lease(clock=clock, seconds=15.0, is_shared=True)
    states = [(lease.due == [0], lease.has_run_out(0))]
    lease.mark_renewed(0, clock.monotonic())
    for seconds in (0.0, 2.0, 12.9, 0.1):
        clock.advance(seconds)
        states.append((lease.due == [0], lease.has_run_out(0)))
    lease.give_up()
    states.append((lease.due == [0], lease.has_run_out(0)))

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
    lease.mark_renewed(0, clock.monotonic())
    clock.advance(100.0)

    assert not lease.has_run_out(0)


def test_each_part_of_the_store_has_a_lease_of_its_own() -> None:
    clock = FakeClock()
    lease = Lease(clock=clock, seconds=15.0, is_shared=True, parts=2)
    due = [lease.due]
    lease.mark_renewed(1, clock.monotonic())
    due.append(lease.due)
    clock.advance(10.0)
    lease.mark_renewed(0, clock.monotonic())
    due.append(lease.due)
    clock.advance(5.0)

    assert due == [[0, 1], [0], [1]]
    assert [lease.has_run_out(part) for part in range(2)] == [False, True]
