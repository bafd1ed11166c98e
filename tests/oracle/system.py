"""The store and the broker that the workers of the oracle share: slow, and losing events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Protocol

import anyio
from attrs import define, evolve, field

from tests.oracle.steps import Scenario
from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.interfaces import (
    ConnectionLost,
    EventPublisher,
    EventsMissed,
    EventStream,
    EventSubscriber,
    MessageTransport,
    RecordPage,
    SessionStore,
)

__all__ = ["Broker", "SlowBroker", "SlowStore", "SlowStream", "WithoutLeases", "at_once"]

at_once: ContextVar[bool] = ContextVar("at_once", default=False)
"""Whether the store answers without delay, because a check asks it."""


@define(eq=False)
class SlowStore:
    """A store that takes its time.

    Attributes:
        inner: The store.
        scenario: The delays.
    """

    inner: SessionStore
    scenario: Scenario

    async def _wait(self, seconds: float) -> None:
        if seconds and not at_once.get():
            await anyio.sleep(seconds)

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        before, after = self.scenario.save_seconds
        await self._wait(before)
        refused = await self.inner.save(records)
        await self._wait(after)
        return refused

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        before, after = self.scenario.save_seconds
        await self._wait(before)
        is_stored = await self.inner.announce(record, limit=limit)
        await self._wait(after)
        return is_stored

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        await self._wait(self.scenario.load_seconds / 2)
        records = await self.inner.load(*keys)
        await self._wait(self.scenario.load_seconds / 2)
        return records

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        page = await self.inner.list(
            owner,
            group=group,
            ended_within_seconds=ended_within_seconds,
            cursor=cursor,
            limit=limit,
        )
        await self._wait(self.scenario.load_seconds)
        return page

    async def renew(self, worker: str, *, seconds: float) -> None:
        await self.inner.renew(worker, seconds=seconds)

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        return await self.inner.running(worker, limit=limit)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        return await self.inner.overdue(limit=limit)


@define(eq=False)
class WithoutLeases:
    """A store with a clock of its own, which is slower than virtual time: leases never end.

    Attributes:
        inner: The store.
    """

    inner: SessionStore

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        return await self.inner.save(records)

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        return await self.inner.announce(record, limit=limit)

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        return [_without_lease(record) for record in await self.inner.load(*keys)]

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        page = await self.inner.list(
            owner,
            group=group,
            ended_within_seconds=ended_within_seconds,
            cursor=cursor,
            limit=limit,
        )
        uploads = tuple(tuple(map(_without_lease, records)) for records in page.uploads)
        return evolve(page, uploads=uploads)

    async def renew(self, worker: str, *, seconds: float) -> None:
        await self.inner.renew(worker, seconds=seconds)

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        return await self.inner.running(worker, limit=limit)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        return []


def _without_lease(record: TransferRecord) -> TransferRecord:
    return evolve(record, lease_until=None, expires_at=None)


@define(eq=False)
class SlowStream:
    """A stream of events that arrive late."""

    inner: EventStream
    seconds: float

    async def subscribe(self, *owners: str | None) -> None:
        await self.inner.subscribe(*owners)

    async def unsubscribe(self, *owners: str | None) -> None:
        await self.inner.unsubscribe(*owners)

    def __aiter__(self) -> AsyncIterator[CloudEvent | EventsMissed | ConnectionLost]:
        return self

    async def __anext__(self) -> CloudEvent | EventsMissed | ConnectionLost:
        item = await anext(self.inner)
        await anyio.sleep(self.seconds)
        return item


class Broker(EventPublisher, EventSubscriber, MessageTransport, Protocol):
    """A publisher that also delivers events and messages."""


@define(eq=False)
class SlowBroker:
    """A broker that delivers late, and loses some events.

    Attributes:
        inner: The broker.
        scenario: The delay, and which events are lost.
        published: How many events were published.
    """

    inner: Broker
    scenario: Scenario
    published: int = field(default=0, init=False)

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        lost = self.scenario.lost_events
        for event in events:
            self.published += 1
            if not lost or self.published % lost:
                await self.inner.publish([event])

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        async with self.inner.events() as stream:
            yield SlowStream(stream, self.scenario.event_seconds)

    async def send(self, worker: str, message: bytes) -> None:
        await self.inner.send(worker, message)

    def inbox(
        self, worker: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | EventsMissed | ConnectionLost]]:
        return self.inner.inbox(worker)
