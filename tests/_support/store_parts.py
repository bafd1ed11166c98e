"""A store of two parts, each of which can be made to fail."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from tests._support.simulation import Simulation
from upload_progress import MemoryStore, ProgressTracker
from upload_progress.testing import FakeClock, FaultyStore

__all__ = ["StoreOfTwoParts", "simulate_two_parts"]


@define(eq=False, repr=False, slots=False)
class StoreOfTwoParts(FaultyStore):
    """A store for the owner Bob, and one for all others."""

    parts: Sequence[FaultyStore] = field(kw_only=True)

    @classmethod
    def create(cls, clock: FakeClock) -> StoreOfTwoParts:
        """Return one whose parts are in memory; the whole store is empty."""
        parts = [FaultyStore(MemoryStore(clock=clock)) for _ in range(2)]
        return cls(MemoryStore(clock=clock), parts=parts)

    def part_of(self, owner: str) -> int:
        """Return 1 for Bob, also for the entries of his ends in the outbox, and 0 for others."""
        return int(owner.endswith("bob"))


def simulate_two_parts(sim: Simulation) -> StoreOfTwoParts:
    """Let the tracker of *sim* use such a store, which is returned."""
    store = StoreOfTwoParts.create(sim.clock)
    sim.tracker = ProgressTracker(store=store, publisher=sim.publisher, clock=sim.clock)
    return store
