"""Sessions in a compacted topic of Kafka.

Each process reads the whole topic into a view, in the background, and goes on reading: what it
answers comes from there. Until it is whole, and whenever the broker was silent for some seconds,
it answers nothing rather than something old. A write is done when it was read back, so that
whoever wrote finds it.

Who wins is decided by the order of the messages in the topic, which all processes see alike, and
by the rule of all stores; see ``Ledger`` for what the topic then owes. A lease is a message that
says "alive for so many seconds from now"; each process counts them from when it reads it, so that
no two clocks are compared. One that starts gives every worker one more lease. Nobody can claim
what a dead worker left behind before the others: those who live end it in turns.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.assignment import ReaperAssignment
from upload_progress.backends.kafka.clients import OutgoingMessage
from upload_progress.backends.kafka.consumer import TopicConsumer
from upload_progress.backends.kafka.messages import lease_key, pack_lease, pack_value, record_key
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.backends.kafka.table import RecordTable
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.interfaces import RecordPage

__all__ = [
    "KafkaStatistics",
    "KafkaStore",
]

_FIRST_SECONDS: Final = 2.0


@frozen
class KafkaStatistics:
    """What a store in Kafka has done so far.

    Attributes:
        is_whole: Whether all of the topic was read, and the broker answers.
        breaks: How often the line broke, or could not be dialled.
        uploads: How many are in the view.
        unreadable: How many messages were none of ours, and were passed over.
        owed: How many messages the topic owes: erasures, mostly.
    """

    is_whole: bool
    breaks: int
    uploads: int
    unreadable: int
    owed: int


@define(eq=False, repr=False)
class KafkaStore:
    """A ``SessionStore`` in a topic of Kafka. Enter it with ``async with``, or by a tracker.

    Args:
        access: How to connect.
        topic: Its name; one for each system, and for nothing else.
        retention: How long sessions are kept.
        max_uploads: How many the view holds; beyond this the one that expires next makes room.
        create_partitions: How many partitions the topic gets if it is not there; None does not
            create it, and says how to.
    """

    access: KafkaAccess
    topic: str = field(default="upload-progress", kw_only=True)
    retention: Retention = field(factory=Retention, kw_only=True)
    max_uploads: int = field(default=200_000, kw_only=True)
    create_partitions: int | None = field(default=None, kw_only=True)
    _follower: TopicConsumer = field(init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _turns: ReaperAssignment = field(factory=ReaperAssignment, init=False)
    _worker: str | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Prepare the view; nothing is connected."""
        view = RecordTable(retention=self.retention, max_uploads=self.max_uploads)
        self._follower = TopicConsumer(
            self.access, self.topic, TopicReconciler(view), self.create_partitions
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
        """Return one for the brokers of *url*; see ``KafkaAccess.from_url``.

        Raises:
            InvalidValue: It is no such URL.
        """
        return cls(
            KafkaAccess.from_url(url),
            topic=topic,
            retention=retention or Retention(),
            max_uploads=max_uploads,
            create_partitions=create_partitions,
        )

    async def __aenter__(self) -> Self:
        """Begin to read the topic, and wait a little until it is whole.

        The broker need not be there, and a large topic takes its time.

        Raises:
            InvalidValue: The event loop is not asyncio's, or this is entered already.
        """
        if self._tasks is not None:
            raise InvalidValue("KafkaStore", "is entered already")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidValue(
                "KafkaStore", "needs asyncio: its driver runs on no other loop"
            ) from None
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._follower.keep)
        with anyio.move_on_after(_FIRST_SECONDS):
            await self._follower.wait_until_settled()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        tasks, self._tasks = self._tasks, None
        assert tasks is not None  # noqa: S101  # entered, as Python calls this only then
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
        await self._follower.close()

    async def save(self, records: Sequence[TransferRecord]) -> None:
        """Keep *records*; one that was overtaken changes nothing."""
        self._check()
        await self._follower.write(
            [
                OutgoingMessage(
                    record_key(each.owner, each.upload_id, each.transfer_id), pack_value(each)
                )
                for each in self._follower.ledger.writable(records)
            ]
        )

    async def load(self, *keys: UploadKey) -> list[TransferRecord]:
        """Return all records of those uploads."""
        self._check()
        return await self._follower.ledger.view.load(*keys)

    async def list(
        self,
        owner: str,
        *,
        group: str | None = None,
        ended_since: float | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> RecordPage:
        """Return the uploads of *owner*, newest first."""
        self._check()
        return await self._follower.ledger.view.list(
            owner, group=group, ended_since=ended_since, cursor=cursor, limit=limit
        )

    async def renew(self, worker: str, *, seconds: float) -> None:
        """Prolong the lease of *worker*."""
        self._check()
        self._worker = worker
        await self._follower.write([OutgoingMessage(lease_key(worker), pack_lease(seconds))])

    async def overdue(self, *, limit: int) -> Sequence[TransferRecord]:
        """Return open records whose lease ran out, or that waited too long; drop the ended."""
        self._check()
        ledger, now = self._follower.ledger, asyncio.get_running_loop().time()
        found = await ledger.view.overdue(limit=limit)
        return self._turns.due_to(self._worker, ledger.alive(), found, now)

    def statistics(self) -> KafkaStatistics:
        """Return the figures of this moment."""
        ledger = self._follower.ledger
        return KafkaStatistics(
            self._follower.is_fresh,
            self._follower.breaks,
            len(ledger.view),
            ledger.unreadable,
            ledger.owed,
        )

    async def wait_until_whole(self) -> None:
        """Return when all of the topic was read."""
        await self._follower.wait_until_whole()

    def _check(self) -> None:
        """Refuse to answer from a view that is not whole, or that may be old.

        Raises:
            StoreUnavailable: It is.
        """
        if not self._follower.is_fresh:
            raise StoreUnavailable
