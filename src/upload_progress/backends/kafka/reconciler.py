"""The topic is to say what the view says, once and in the right partition.

Kafka keeps the last message of each key, whatever it says; a store keeps the newest. They differ
when a record that was overtaken was written last, when an upload's time is over, and when the
topic got more partitions and the key has moved. Each such difference is a *debt*: the partition
owes the key another last message. It is paid after a random while by whoever gets there first,
and forgotten when that message is read.

So any worker puts right what another one left behind, and nothing depends on who is alive. Whoever
reads the topic anew finds the same debts.

Nothing here does any I/O.
"""

import random
from collections.abc import Sequence
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from upload_progress._model.models import TransferRecord
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress.backends.kafka.clients import OutgoingMessage, ReceivedMessage, partition_of
from upload_progress.backends.kafka.messages import (
    is_later,
    lease_key,
    name_of,
    pack_value,
    record_key,
    unpack_lease,
    unpack_value,
)
from upload_progress.backends.kafka.table import RecordTable
from upload_progress.backends.store_records import supersedes
from upload_progress.exceptions import InvalidValue

__all__ = [
    "MAX_DEBTS",
    "SPREAD_SECONDS",
    "TopicReconciler",
]

MAX_DEBTS: Final = 100_000
SPREAD_SECONDS: Final = 5.0
_LOOKS: Final = 10
"""How many debts are looked at for each message that may be written."""

_OWN: Final = 1


@frozen
class _Debt:
    due: float
    is_over: bool
    """Whether the key may be erased; else the view has merely lost it for want of room."""


@define(eq=False, repr=False)
class TopicReconciler:
    """Reads messages into the view, and knows what the topic owes.

    Attributes:
        partitions: How many the topic has.
        unreadable: How many messages were none of ours, and were passed over.
    """

    view: RecordTable
    partitions: int = field(default=1, init=False)
    unreadable: int = field(default=0, init=False)
    _debts: dict[tuple[int, bytes], _Debt] = field(factory=dict, init=False)
    _later: dict[bytes, None] = field(factory=dict, init=False)
    _leases: dict[str, bytes] = field(factory=dict, init=False)

    @property
    def owed(self) -> int:
        """How many messages the topic owes."""
        return len(self._debts) + len(self.view.over)

    def alive(self) -> Sequence[str]:
        """Return the workers whose leases run."""
        return [worker for worker in self._leases if self.view.is_alive(worker)]

    def read(self, message: ReceivedMessage, now: float) -> None:
        """Take in *message*, at *now* in monotonic seconds."""
        key, value, partition = message.key or b"", message.value, message.partition
        try:
            name = name_of(key)
            if value is None:
                self._erased(partition, key, name)
            elif is_later(value):
                self._keep(key)
            else:
                self._take(name, value, now)
                self._compare(partition, key, name, value, now)
        except InvalidValue:
            self.unreadable += 1

    def _take(self, name: Sequence[str], value: bytes, now: float) -> None:
        if len(name) == _OWN:
            self.view.prolong(name[0], unpack_lease(value))
            self._leases[name[0]] = value
            return
        owner, upload_id, transfer_id = name
        record = unpack_value(owner, upload_id, value)
        if record.transfer_id != transfer_id:
            raise InvalidValue("record", "is not the one that its key names")
        before = self.view.records(owner, upload_id)
        self.view.take(record)
        # A new attempt drops what was there of the old.
        for each in before:
            if each.attempt < record.attempt:
                self._owe_erasure(record_key(owner, upload_id, each.transfer_id), now)

    def _keep(self, key: bytes) -> None:
        """Remember not to write what a later version has written."""
        self._later[key] = None
        if len(self._later) > MAX_DEBTS:
            del self._later[next(iter(self._later))]

    def _erased(self, partition: int, key: bytes, name: Sequence[str]) -> None:
        self._debts.pop((partition, key), None)
        self._later.pop(key, None)
        if len(name) != _OWN and partition == self._home(key):
            self.view.forget(name[0], name[1], name[2])

    def _compare(
        self, partition: int, key: bytes, name: Sequence[str], value: bytes, now: float
    ) -> None:
        self._later.pop(key, None)
        wanted = self._wanted(name)
        if partition == self._home(key) and wanted == value:
            self._debts.pop((partition, key), None)
        else:
            self._owe(partition, key, now, is_over=wanted is None or partition != self._home(key))

    def _wanted(self, name: Sequence[str]) -> bytes | None:
        """Return what the last message of a key should be; None is to be erased."""
        if len(name) == _OWN:
            return self._leases.get(name[0]) if self.view.is_leased(name[0]) else None
        record = self.view.find(name[0], name[1], name[2])
        return None if record is None else pack_value(record)

    def _home(self, key: bytes) -> int:
        return partition_of(key, self.partitions)

    def _owe(self, partition: int, key: bytes, now: float, *, is_over: bool) -> None:
        if len(self._debts) < MAX_DEBTS:
            rest = random.uniform(0.0, SPREAD_SECONDS)  # noqa: S311  # no secret
            self._debts[partition, key] = _Debt(now + rest, is_over)

    def _owe_erasure(self, key: bytes, now: float) -> None:
        self._owe(self._home(key), key, now, is_over=True)

    def sweep(self, now: float) -> bool:
        """Note a few of those that the view has dropped since; return whether there are more."""
        over = self.view.over
        for _ in range(min(YIELD_EVERY, len(over))):
            self._owe_erasure(record_key(*over.pop()), now)
        for worker in [each for each in self._leases if not self.view.is_leased(each)]:
            del self._leases[worker]
            self._owe_erasure(lease_key(worker), now)
        return bool(over)

    def pay(
        self, now: float, most: int
    ) -> tuple[Sequence[OutgoingMessage], Sequence[OutgoingMessage]]:
        """Return up to about *most* messages that are to be written now: some first, some then.

        They are owed until they are read.
        """
        first: list[OutgoingMessage] = []
        then: list[OutgoingMessage] = []
        # In the order in which they fall due, but for a few seconds.
        for (partition, key), debt in list(islice(self._debts.items(), most * _LOOKS)):
            if len(first) + len(then) >= most:
                break
            if debt.due > now:
                continue
            wanted, home = self._wanted(name_of(key)), self._home(key)
            del self._debts[partition, key]
            if wanted is None and not debt.is_over:
                continue
            self._debts[partition, key] = _Debt(now + SPREAD_SECONDS, debt.is_over)
            if wanted is not None:
                first.append(OutgoingMessage(key, wanted, home))
            if wanted is None or partition != home:
                then.append(OutgoingMessage(key, None, partition))
        return first, then

    def writable(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Return those of *records* that are newer than what is known."""
        return [
            each
            for each in records
            if record_key(each.owner, each.upload_id, each.transfer_id) not in self._later
            and supersedes(each, self.view.records(each.owner, each.upload_id))
        ]
