"""The queue that serves owners in turn."""

from __future__ import annotations

import pytest

from upload_progress._reading.fair_queue import FairQueue
from upload_progress.exceptions import StoreBusy


def test_queue_is_bounded_for_each_owner_and_in_total() -> None:
    queue: FairQueue[int] = FairQueue(max_items=3, max_per_owner=2)
    queue.put("ann", 1)
    queue.put("ann", 2)
    with pytest.raises(StoreBusy):
        queue.put("ann", 3)
    queue.put("bob", 4)
    with pytest.raises(StoreBusy):
        queue.put("eve", 5)

    assert [queue.take(), queue.take(), queue.take(), queue.take()] == [1, 4, 2, None]


def test_several_items_are_of_several_owners() -> None:
    queue: FairQueue[str] = FairQueue()
    for owner in ("ann", "bob"):
        for number in range(4):
            queue.put(owner, f"{owner}{number}")
    queue.put("eve", "eve0")

    assert queue.take_several(5, per_owner=3) == ["ann0", "bob0", "eve0", "ann1", "bob1"]
    assert queue.take_several(9, per_owner=1) == ["ann2", "bob2"]
    assert queue.take_several(9, per_owner=3) == ["ann3", "bob3"]
    assert queue.take_several(9, per_owner=3) == []


def test_discarded_item_is_not_taken() -> None:
    queue: FairQueue[int] = FairQueue()
    for owner, item in [("ann", 1), ("ann", 2), ("bob", 3)]:
        queue.put(owner, item)

    for owner, item in [("ann", 1), ("bob", 3), ("bob", 3), ("eve", 4)]:
        queue.discard(owner, item)

    assert (len(queue), queue.take(), len(queue)) == (1, 2, 0)


def test_owners_are_held_and_resumed() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.hold("ann")
    for owner in ("ann", "bob"):
        for number in range(2):
            queue.put(owner, f"{owner}{number}")
    queue.hold("bob")
    assert (queue.take(), queue.owners, len(queue), "ann" in queue) == (None, 0, 4, True)

    queue.discard("ann", "ann0")
    for owner in ("bob", "ann", "eve"):
        queue.resume(owner)

    assert (queue.owners, queue.take_several(9, per_owner=9)) == (2, ["bob0", "ann1", "bob1"])
    assert (queue.owners, "ann" in queue) == (0, False)
