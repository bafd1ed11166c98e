"""Reading a topic for ever, and writing to it: the half of the store that does the I/O."""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import define, field

from upload_progress._runtime.yielding import yielding
from upload_progress.backends.kafka.access import CONNECT_SECONDS, KafkaAccess
from upload_progress.backends.kafka.clients import KafkaReader, KafkaWriter, OutgoingMessage, Place
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.backends.kafka.topics import prepare_topic
from upload_progress.exceptions import InvalidValue

__all__ = [
    "TopicConsumer",
]

_READ_SECONDS: Final = 0.5
_HEARTBEAT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 2.0
_FIRST_REST_SECONDS: Final = 0.1
_LONGEST_REST_SECONDS: Final = 3.0
_LOG_EVERY_SECONDS: Final = 30.0
_PAYMENT: Final = 500
_STRETCHES: Final = 50

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@define(eq=False, repr=False)
class TopicConsumer:
    """Reads a topic into a ledger, mends the line, and pays what the topic owes.

    Attributes:
        is_fresh: Whether all of the topic was read, and the broker answers.
        breaks: How often the line broke, or could not be dialled.
    """

    access: KafkaAccess
    topic: str
    ledger: TopicReconciler
    create_partitions: int | None
    is_fresh: bool = field(default=False, init=False)
    breaks: int = field(default=0, init=False)
    _writer: KafkaWriter = field(init=False)
    _positions: dict[int, int] = field(factory=dict, init=False)
    _moved: anyio.Event = field(factory=anyio.Event, init=False)
    _asked_at: float = field(default=0.0, init=False)
    _logged_at: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Prepare to write; nothing is connected."""
        self._writer = KafkaWriter(self.access, self.topic)

    async def wait_until_whole(self) -> None:
        """Return when all of the topic was read."""
        while not self.is_fresh:
            await self._moved.wait()

    async def wait_until_settled(self) -> None:
        """Return when all of the topic was read, or that failed once."""
        while not (self.is_fresh or self.breaks):
            await self._moved.wait()

    async def write(self, messages: Sequence[OutgoingMessage]) -> None:
        """Write *messages*, and wait until they were read."""
        places = await self._writer.write(messages)
        while not all(map(self._has_read, places)):
            await self._moved.wait()

    async def close(self) -> None:
        """Hang up."""
        self.is_fresh = False
        await self._writer.close()

    def _has_read(self, place: Place) -> bool:
        return self._positions.get(place.partition, 0) > place.offset

    async def keep(self) -> None:
        """Read for ever."""
        rest_seconds = _FIRST_REST_SECONDS
        while True:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001  # whatever it is, the line is mended
                self._complain(error)
            rest_seconds = _FIRST_REST_SECONDS if self.is_fresh else rest_seconds
            self.breaks += 1
            await self.close()
            self._move()
            await anyio.sleep(rest_seconds * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            rest_seconds = min(rest_seconds * 2, _LONGEST_REST_SECONDS)

    async def _follow(self) -> None:
        """Read until the line breaks."""
        with anyio.fail_after(2 * CONNECT_SECONDS):
            await prepare_topic(
                self.access,
                self.topic,
                self.ledger.view.retention,
                partitions=self.create_partitions,
            )
            reader = await KafkaReader.dial(self.access, self.topic)
        try:
            ends = await self._look(reader, is_new=True)
            while True:
                if not self.is_fresh and self._is_behind_none(ends):
                    self.is_fresh = self.ledger.view.is_whole = True
                    self._move()
                await self._read(reader)
                await self._sweep()
                if self._now() - self._asked_at >= _HEARTBEAT_SECONDS:
                    ends = await self._look(reader)
                    await self._pay()
        finally:
            await reader.close()

    async def _read(self, reader: KafkaReader) -> None:
        now = self._now()
        async for message in yielding(await reader.read(wait_seconds=_READ_SECONDS)):
            self.ledger.read(message, now)
            self._positions[message.partition] = message.offset + 1
        # Not all that has an offset is a message.
        for partition in self._positions:
            self._positions[partition] = await reader.position(partition)
        self._move()

    async def _sweep(self) -> None:
        """Note what the view has dropped: a part of it, if that is much."""
        left = _STRETCHES
        while self.ledger.sweep(self._now()) and left:
            left -= 1
            await checkpoint()

    async def _look(self, reader: KafkaReader, *, is_new: bool = False) -> dict[int, int]:
        """Ask the broker where the topic ends, which is also a sign of life, and how wide it is."""
        self._asked_at = self._now()
        with anyio.fail_after(CONNECT_SECONDS if is_new else _ANSWER_SECONDS):
            partitions = await self._writer.partitions()
            # First of all, as what is asked later waits for the reading that has begun.
            ends = await reader.ends(range(partitions))
            if is_new or partitions != self.ledger.partitions:
                self.ledger.partitions = partitions
                reader.assign({each: self._positions.get(each) for each in range(partitions)})
                for partition in range(partitions):
                    self._positions[partition] = await reader.position(partition)
            return dict(ends)

    def _is_behind_none(self, ends: dict[int, int]) -> bool:
        return all(self._positions.get(each, 0) >= end for each, end in ends.items())

    async def _pay(self) -> None:
        """Write what the topic owes; that it was done is known when it is read."""
        most = _PAYMENT if self.is_fresh else 0
        for messages in self.ledger.pay(self._now(), most):
            await self._writer.write(messages)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _move(self) -> None:
        """Let those look who wait."""
        self._moved.set()
        self._moved = anyio.Event()

    def _complain(self, error: Exception) -> None:
        now = self._now()
        if self._logged_at is None or now - self._logged_at >= _LOG_EVERY_SECONDS:
            self._logged_at = now
            # What is ours says what to do; what is a driver's may hold anything.
            what = str(error) if isinstance(error, InvalidValue) else type(error).__name__
            logger.warning("the store in Kafka is not available (%s); it is being mended", what)
