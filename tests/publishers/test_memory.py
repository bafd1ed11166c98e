"""The memory publisher: the contract of all publishers, and its bound."""

from __future__ import annotations

import anyio
import pytest
from attrs import evolve

from upload_progress.model import TransferRecord
from upload_progress.ports import EventPublisher
from upload_progress.publishers import MemoryPublisher
from upload_progress.publishers.memory import MAX_WAITING
from upload_progress.testing import PATIENCE_SECONDS, PublisherContract


class TestMemoryPublisher(PublisherContract):
    @pytest.fixture
    def publisher(self) -> EventPublisher:
        return MemoryPublisher()

    async def test_a_listener_that_does_not_read_is_bounded(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.listen("ann") as events:
            for number in range(MAX_WAITING + 5):
                one = evolve(record, upload_id=f"u{number}")
                await publisher.publish(self._events(one, 1))

            [listener] = publisher._listeners
            assert len(listener._waiting) == MAX_WAITING
            assert (await anext(events)).subject == "u5"
        assert not publisher._listeners

    async def test_a_listener_that_waits_is_woken(self, record: TransferRecord) -> None:
        publisher = MemoryPublisher()
        async with publisher.listen() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.publish, self._events(record, 1))
            with anyio.fail_after(PATIENCE_SECONDS):
                assert (await anext(events)).data.sequence == 1
