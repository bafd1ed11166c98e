"""The I/O of the Kafka store: reads the topic without end, and writes to it."""

import asyncio
from collections.abc import Sequence
from typing import Final, NoReturn

import anyio
from anyio.lowlevel import checkpoint
from attrs import Factory, define, field

from upload_progress._runtime.backoff import Backoff
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._runtime.yielding import yielding
from upload_progress.backends.kafka.access import CONNECT_SECONDS, KafkaAccess
from upload_progress.backends.kafka.clients import (
    KafkaReader,
    KafkaWriter,
    OutgoingMessage,
    Position,
)
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.backends.kafka.topics import prepare_topic

__all__ = ["TopicConsumer"]

_READ_SECONDS: Final = 0.5
_HEARTBEAT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 2.0
_FIRST_DELAY_SECONDS: Final = 0.1
_MAX_DELAY_SECONDS: Final = 3.0
_REPAIRS_PER_HEARTBEAT: Final = 500
_MAX_EXPIRED_BATCHES: Final = 50
_SLOW_START: Final = "until then, workers that start read each record many times"
_MAX_COLLECTED: Final = 50_000
"""Messages of different keys that are kept until the topic was read: about 30 MB."""


@define(eq=False, repr=False)
class TopicConsumer:
    """Reads a topic into a table, reconnects after errors, and writes the repairs of the topic.

    Args:
        access: How to connect.
        topic: Name of the topic.
        reconciler: Holds the table, and the repairs.
        create_partitions: Number of partitions with which a missing topic is created; None does not
            create it.

    Attributes:
        is_current: Whether the whole topic was read, and the broker answers.
        disconnects: How often the connection was lost or could not be made.
    """

    access: KafkaAccess
    topic: str
    reconciler: TopicReconciler
    create_partitions: int | None
    is_current: bool = field(default=False, init=False)
    disconnects: int = field(default=0, init=False)
    _writer: KafkaWriter = field(
        default=Factory(lambda self: KafkaWriter(self.access, self.topic), takes_self=True),
        init=False,
    )
    _log: LogLimiter = field(
        default=Factory(lambda self: LogLimiter(self.reconciler.table.clock), takes_self=True),
        init=False,
    )
    _offsets: dict[int, int] = field(factory=dict, init=False)
    _changed: anyio.Event = field(factory=anyio.Event, init=False)
    _heartbeat_at: float = field(default=0.0, init=False)
    _written_at: int = field(default=0, init=False)

    def use_running_loop(self) -> None:
        """Forget the event loop in which tasks have waited before."""
        self._changed = anyio.Event()

    async def wait_until_current(self) -> None:
        """Return when the whole topic was read."""
        while not self.is_current:
            await self._changed.wait()

    async def wait_until_first_result(self) -> None:
        """Return when the whole topic was read, or the first attempt failed."""
        while not (self.is_current or self.disconnects):
            await self._changed.wait()

    async def write(self, messages: Sequence[OutgoingMessage]) -> None:
        """Write *messages*, and return when they were read again."""
        positions = await self._writer.write(messages)
        while not all(map(self._has_read, positions)):
            await self._changed.wait()

    async def close(self) -> None:
        """Disconnect the writer."""
        self.is_current = False
        await self._writer.close()

    def _has_read(self, position: Position) -> bool:
        return self._offsets.get(position.partition, 0) > position.offset

    async def run(self) -> None:
        """Read the topic until cancelled, and reconnect after each error."""
        backoff = Backoff(first_seconds=_FIRST_DELAY_SECONDS, maximum_seconds=_MAX_DELAY_SECONDS)
        while True:
            try:
                await self._read_until_error()
            except Exception as error:  # noqa: BLE001  # whatever it is, the consumer reconnects
                if self.is_current:
                    backoff.reset()
                delay_seconds = backoff.next_delay_seconds()
                self._log_error(error, delay_seconds)
                self.disconnects += 1
                await self.close()
                self._notify()
                await anyio.sleep(delay_seconds)

    async def _read_until_error(self) -> NoReturn:
        with anyio.fail_after(2 * CONNECT_SECONDS):
            reason = await prepare_topic(
                self.access,
                self.topic,
                self.reconciler.table.retention,
                partitions=self.create_partitions,
            )
            if reason is not None:
                self._log.log_warning(f"KafkaStore: {reason}", effect=_SLOW_START, topic="settings")
            reader = await KafkaReader.connect(self.access, self.topic)
        try:
            ends = await self._heartbeat(reader, is_first=True)
            while True:
                if not self.is_current and self._has_reached(ends):
                    await self._apply_collected()
                    self.is_current = self.reconciler.table.is_complete = True
                    self._notify()
                await self._read(reader)
                await self._schedule_expired()
                if self._now() - self._heartbeat_at >= _HEARTBEAT_SECONDS:
                    ends = await self._heartbeat(reader)
                    await self._write_repairs()
        finally:
            await reader.close()

    async def _read(self, reader: KafkaReader) -> None:
        now, reconciler = self._now(), self.reconciler
        apply = reconciler.apply if reconciler.table.is_complete else reconciler.collect
        async for message in yielding(await reader.read(wait_seconds=_READ_SECONDS)):
            apply(message, now)
            self._written_at = max(self._written_at, message.timestamp)
            self._offsets[message.partition] = message.offset + 1
        if reconciler.collected > _MAX_COLLECTED:
            await self._apply_collected()
        # Some offsets have no message: those of transaction markers and of compacted messages.
        for partition in self._offsets:
            self._offsets[partition] = await reader.offset(partition)
        self._notify()

    async def _apply_collected(self) -> None:
        # By the timestamps of the topic alone: the clock of this machine may be wrong.
        async for message in yielding(self.reconciler.take_collected()):
            age_seconds = (self._written_at - message.timestamp) / 1000
            self.reconciler.apply(message, self._now(), age_seconds=age_seconds)

    async def _schedule_expired(self) -> None:
        batches = 0
        while self.reconciler.schedule_expired(self._now()) and batches < _MAX_EXPIRED_BATCHES:
            batches += 1
            await checkpoint()

    async def _heartbeat(self, reader: KafkaReader, *, is_first: bool = False) -> dict[int, int]:
        """Ask the broker for the ends of the partitions, and assign new partitions.

        Raises:
            TimeoutError: The broker does not answer.
        """
        self._heartbeat_at = self._now()
        with anyio.fail_after(CONNECT_SECONDS if is_first else _ANSWER_SECONDS):
            partitions = await self._writer.partitions()
            # Before new partitions are read: a later request would wait for the fetch in progress.
            ends = await reader.end_offsets(range(partitions))
            if is_first or partitions != self.reconciler.partitions:
                self.reconciler.partitions = partitions
                reader.assign({each: self._offsets.get(each) for each in range(partitions)})
                for partition in range(partitions):
                    self._offsets[partition] = await reader.offset(partition)
            return ends

    def _has_reached(self, ends: dict[int, int]) -> bool:
        return all(self._offsets.get(each, 0) >= end for each, end in ends.items())

    async def _write_repairs(self) -> None:
        """Write the messages that are due; they are done when they are read again."""
        limit = _REPAIRS_PER_HEARTBEAT if self.is_current else 0
        for messages in self.reconciler.due_repairs(self._now(), limit):
            await self._writer.write(messages)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _notify(self) -> None:
        """Wake the tasks that wait for a change."""
        self._changed.set()
        self._changed = anyio.Event()

    def _log_error(self, error: Exception, delay_seconds: float) -> None:
        self._log.log_warning(
            "KafkaStore: connection lost",
            error,
            effect=f"reconnecting in {delay_seconds:.1f} s",
            topic="connection",
        )
