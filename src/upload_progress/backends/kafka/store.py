"""A ``SessionStore`` in a compacted topic of Kafka.

Each process reads the whole topic into a table in memory, in the background, and answers from
there. Until the table is complete, and whenever the broker has not answered for some seconds, the
store raises ``StoreUnavailable`` instead of returning old records. A write is done when its
messages were read again, so a writer always finds what it has saved.

All processes see the messages of the topic in the same order, and apply the same rule of which
record replaces which; ``TopicReconciler`` then decides what has to be written again. A lease is a
message with a duration, which each process counts from when it reads the message: no two clocks are
compared. A process that starts gives each worker one more lease. Overdue uploads cannot be claimed
in a topic: ``ReaperAssignment`` decides which worker ends them.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup
from attrs import Factory, define, field, frozen

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.assignment import ReaperAssignment
from upload_progress.backends.kafka.clients import OutgoingMessage
from upload_progress.backends.kafka.consumer import TopicConsumer
from upload_progress.backends.kafka.messages import lease_key, pack_lease, pack_value, record_key
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.backends.kafka.table import RecordTable
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue, NotEntered, StoreUnavailable
from upload_progress.interfaces import RecordPage

__all__ = ["KafkaStatistics", "KafkaStore"]

_START_SECONDS: Final = 2.0
"""How long entering the store waits for the topic to be read."""


@frozen
class KafkaStatistics:
    """Counters of a ``KafkaStore``.

    Attributes:
        is_current: Whether the whole topic was read, and the broker answers.
        disconnects: How often the connection was lost or could not be made.
        uploads: Number of uploads in the table.
        unreadable: How many messages had another format, and were skipped.
        pending_repairs: How many messages have to be written again or deleted.
    """

    is_current: bool
    disconnects: int
    uploads: int
    unreadable: int
    pending_repairs: int


@define(eq=False, repr=False)
class KafkaStore:
    """A ``SessionStore`` in a topic of Kafka. A tracker enters and leaves it.

    ``ProgressTracker.from_url("kafka://…")`` makes one. With own settings of the clients::

        access = KafkaAccess(["kafka-1:9092"], options={"ssl_context": context})
        store = KafkaStore(access, topic="shop-uploads")

    Args:
        access: How to connect.
        topic: Name of a topic for this store only.
        retention: How long records are kept.
        max_uploads: Maximum number of uploads in the table. A new one beyond it replaces the
            upload that expires next.
        create_partitions: Number of partitions with which a missing topic is created. None does
            not create it: the log then contains the command that does.
    """

    access: KafkaAccess
    topic: str = field(default="upload-progress", kw_only=True)
    retention: Retention = field(factory=Retention, kw_only=True)
    max_uploads: int = field(default=200_000, kw_only=True)
    create_partitions: int | None = field(default=None, kw_only=True)
    _consumer: TopicConsumer = field(
        default=Factory(lambda self: self._make_consumer(), takes_self=True), init=False
    )
    _assignment: ReaperAssignment = field(factory=ReaperAssignment, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _process_id: int = field(default=0, init=False)
    _worker: str | None = field(default=None, init=False)
    _announcing: Counter[str] = field(factory=Counter, init=False)

    @property
    def namespace(self) -> str:
        """The name of the topic."""
        return self.topic

    def _make_consumer(self) -> TopicConsumer:
        table = RecordTable(retention=self.retention, max_uploads=self.max_uploads)
        return TopicConsumer(
            self.access, self.topic, TopicReconciler(table), self.create_partitions
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        topic: str = "upload-progress",
        retention: Retention | None = None,
        max_uploads: int = 200_000,
        create_partitions: int | None = 4,
    ) -> Self:
        """Return a store at the brokers of *url*. It connects when it is entered.

        Args:
            url: ``kafka://…`` or ``kafkas://…``; see ``KafkaAccess.from_url``.
            topic: Name of a topic for this store only.
            retention: How long records are kept; by default as in ``Retention()``.
            max_uploads: Maximum number of uploads in the table.
            create_partitions: Number of partitions with which a missing topic is created; None
                does not create it.

        Raises:
            InvalidValue: The URL is not valid.
        """
        return cls(
            KafkaAccess.from_url(url),
            topic=topic,
            retention=retention or Retention(),
            max_uploads=max_uploads,
            create_partitions=create_partitions,
        )

    async def __aenter__(self) -> Self:
        """Begin to read the topic, and wait up to two seconds until it was read.

        Neither an unreachable broker nor a large topic is an error.

        Raises:
            InvalidValue: The event loop is not that of asyncio, or the store was entered already.
        """
        if self._tasks is not None and self._process_id == os.getpid():
            raise InvalidValue("KafkaStore", "is entered already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidValue(
                "KafkaStore", "needs asyncio: its driver runs on no other event loop"
            ) from None
        if self._tasks is not None:
            # The parent process goes on to use its connections and its table.
            self._consumer = self._make_consumer()
        self._consumer.use_running_loop()
        self._process_id = os.getpid()
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._consumer.run)
        with anyio.move_on_after(_START_SECONDS):
            await self._consumer.wait_until_first_result()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None  # noqa: S101  # entered, as Python calls this only then
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
        await self._consumer.close()

    async def save(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Save *records*; return those that are not newer than the stored ones."""
        reconciler = self._current_reconciler()
        writable = reconciler.select_writable(records)
        await self._consumer.write(
            [
                OutgoingMessage(
                    record_key(each.owner, each.upload_id, each.transfer_id), pack_value(each)
                )
                for each in writable
            ]
        )
        # Another worker may have written before, and this one has read it only now.
        stored = {id(each) for each in writable if not reconciler.is_superseded(each)}
        return [each for each in records if id(each) not in stored]

    async def announce(self, record: TransferRecord, *, limit: int) -> bool:
        """Save a new pending upload, unless its owner has *limit* of them.

        Several workers that announce uploads of one owner at the same time may each save one that
        the others do not know yet.
        """
        owner, announcing = record.owner, self._announcing
        known = self._current_reconciler().table.count_pending(owner)
        if known + announcing[owner] >= limit:
            return False
        announcing[owner] += 1
        try:
            await self.save([record])
        finally:
            announcing[owner] -= 1
            announcing += Counter()  # removes what is zero
        return True

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of the uploads *keys*; unknown uploads add nothing."""
        return await self._current_reconciler().table.load(*keys)

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_within_seconds: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return one page of the uploads of *owner*, newest first."""
        return await self._current_reconciler().table.list(
            owner,
            group=group,
            ended_within_seconds=ended_within_seconds,
            cursor=cursor,
            limit=limit,
        )

    async def list_open(self, *, cursor: str | None = None, limit: int = 100) -> RecordPage:
        """Return one page of the open uploads of all owners."""
        return await self._current_reconciler().table.list_open(cursor=cursor, limit=limit)

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Renew the lease of *worker* for *seconds* from when each process reads it."""
        self._current_reconciler()
        self._worker = worker
        await self._consumer.write([OutgoingMessage(lease_key(worker), pack_lease(seconds))])

    async def running(self, worker: str, *, limit: int) -> Sequence[TransferRecord]:
        """Return up to *limit* records of transfers that *worker* receives."""
        return await self._current_reconciler().table.running(worker, limit=limit)

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return overdue records that this worker has to end; drop old ended uploads."""
        reconciler = self._current_reconciler()
        return self._assignment.assigned_to(
            self._worker,
            live_workers=reconciler.live_workers(),
            overdue=await reconciler.table.overdue(limit=limit),
            now=asyncio.get_running_loop().time(),
        )

    def statistics(self) -> KafkaStatistics:
        """Return the counters."""
        reconciler = self._consumer.reconciler
        return KafkaStatistics(
            is_current=self._consumer.is_current,
            disconnects=self._consumer.disconnects,
            uploads=len(reconciler.table),
            unreadable=reconciler.unreadable,
            pending_repairs=reconciler.pending_repairs,
        )

    async def wait_until_current(self) -> None:
        """Return when the whole topic was read."""
        await self._consumer.wait_until_current()

    def _current_reconciler(self) -> TopicReconciler:
        """Return the reconciler, if its table is complete and up to date.

        Raises:
            StoreUnavailable: It is not.
            NotEntered: Nothing reads the topic in this process.
        """
        if self._tasks is None or self._process_id != os.getpid():
            raise NotEntered("KafkaStore")
        if not self._consumer.is_current:
            raise StoreUnavailable
        return self._consumer.reconciler
