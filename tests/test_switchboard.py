"""What listeners keep of what they are offered."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from benchmarks.snapshots import snapshot
from upload_progress.switchboard import Box, Listener, key_of
from upload_progress.wire import CloudEvent, event_of

pytestmark = pytest.mark.anyio


def event(sequence: int, owner: str = "ann") -> CloudEvent:
    return event_of(owner, evolve(snapshot(), sequence=sequence), "/tests")


async def test_a_listener_keeps_the_newest_of_its_owner() -> None:
    listener = Listener("ann")
    for one in (event(2), event(9, "bob"), event(3), event(1)):
        listener.offer(one)

    assert await anext(listener) == event(3)


async def test_a_box_keeps_all_in_order() -> None:
    box = Box()
    for letter in (b"one", b"two", b"one"):
        box.offer(letter)

    assert [await anext(box), await anext(box), await anext(box)] == [b"one", b"two", b"one"]


def test_a_key_is_short_and_of_letters_that_every_broker_takes() -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{22}", key_of("ann"))
    assert key_of("\ud800").isascii()
    assert len({key_of(name) for name in ("", "a", "b", "a" * 1000)}) == 4
