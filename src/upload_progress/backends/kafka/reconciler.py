"""Keeps the topic equal to the table of records: decides which messages have to be written again.

Kafka keeps the last message of each key; a store keeps the newest record. The two differ if an old
record was written last, if an upload has expired, or if the topic got more partitions, so that the
key belongs to another one. For each difference a *repair* is scheduled: a message to be written
after a random delay, by whichever worker is first. It is done when that message is read.

So any worker repairs what another one has left behind, and a worker that reads the topic from the
beginning finds the same repairs. This module does no I/O.
"""

import random
from collections.abc import Sequence
from itertools import islice
from typing import Final

from attrs import define, field, frozen

from upload_progress._model.models import TransferRecord
from upload_progress._model.version import Version, version_of
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress.backends.kafka.clients import OutgoingMessage, ReceivedMessage, partition_of
from upload_progress.backends.kafka.messages import (
    is_of_newer_release,
    lease_key,
    pack_value,
    packed_record,
    parse_key,
    record_key,
    unpack_lease,
    unpack_value,
    unpack_version,
)
from upload_progress.backends.kafka.table import RecordTable
from upload_progress.backends.store_records import supersedes
from upload_progress.exceptions import InvalidValue

__all__ = ["MAX_REPAIRS", "REPAIR_DELAY_SECONDS", "TopicReconciler"]

MAX_REPAIRS: Final = 100_000
REPAIR_DELAY_SECONDS: Final = 5.0
"""Maximum of the random delay of a repair, and the delay before it is tried again."""
_SCANNED_PER_MESSAGE: Final = 10
"""Repairs that are examined for each message that may be written."""

_LEASE_NAMES: Final = 1


@frozen
class _Repair:
    """A scheduled repair.

    Attributes:
        due_at: Monotonic seconds.
        may_delete: Whether to write a tombstone if the table has no record. False if the table may
            have dropped it for lack of room.
    """

    due_at: float
    may_delete: bool


@frozen(eq=False)
class _Collected:
    """A message that is not applied yet.

    Most messages at the start are the only one of their key, so their version is not read.
    """

    message: ReceivedMessage

    @property
    def version(self) -> Version | None:
        """The version of its record; None if it has no record that can be read."""
        return _version(self.message)

    def is_replaced_by(self, newer: "_Collected") -> bool:
        """Return whether a later message of the same key makes this one superfluous.

        Not if this one is a tombstone, after which also an older record is stored, or if its record
        is not older.
        """
        value, newer_value = self.message.value, newer.message.value
        if value is None:
            return False
        if newer_value is None or newer_value == value:
            return True
        version, newer_version = self.version, newer.version
        return version is None or (newer_version is not None and newer_version > version)


@define(eq=False, repr=False)
class TopicReconciler:
    """Applies messages to the table, and schedules repairs of the topic.

    Args:
        table: The records that were read.

    Attributes:
        partitions: Number of partitions of the topic.
        unreadable: How many messages had another format, and were skipped.
    """

    table: RecordTable
    partitions: int = field(default=1, init=False)
    unreadable: int = field(default=0, init=False)
    _collected: dict[tuple[int, bytes], _Collected] = field(factory=dict, init=False)
    _repairs: dict[tuple[int, bytes], _Repair] = field(factory=dict, init=False)
    _newer_keys: dict[bytes, None] = field(factory=dict, init=False)
    _leases: dict[str, bytes] = field(factory=dict, init=False)

    @property
    def pending_repairs(self) -> int:
        """How many repairs have not been done yet."""
        return len(self._repairs) + len(self.table.expired)

    def live_workers(self) -> Sequence[str]:
        """Return the workers that have a lease."""
        return [worker for worker in self._leases if self.table.is_alive(worker)]

    @property
    def collected(self) -> int:
        """How many messages were collected and not taken."""
        return len(self._collected)

    def collect(self, message: ReceivedMessage, now: float) -> None:
        """Keep *message* until ``take_collected``; apply what it does not replace.

        At the start most messages are replaced by later ones of the same key: to apply them would
        cost ten times as much.
        """
        slot = message.partition, message.key or b""
        newer = _Collected(message)
        before = self._collected.pop(slot, None)
        if before is not None and not before.is_replaced_by(newer):
            self.apply(before.message, now)
        self._collected[slot] = newer

    def take_collected(self) -> Sequence[ReceivedMessage]:
        """Return the collected messages, oldest first, which are then to be applied."""
        collected, self._collected = self._collected, {}
        messages = [each.message for each in collected.values()]
        return sorted(messages, key=lambda message: message.timestamp)

    def apply(self, message: ReceivedMessage, now: float, *, age_seconds: float = 0.0) -> None:
        """Apply *message*, which was written *age_seconds* ago, at *now* in monotonic seconds."""
        key, value, partition = message.key or b"", message.value, message.partition
        try:
            names = parse_key(key)
            if value is None:
                self._apply_tombstone(partition, key, names)
            elif is_of_newer_release(value):
                self._protect(key)
            else:
                self._apply_value(names, value, now, age_seconds)
                self._compare(partition, key, names, value, now)
        except InvalidValue:
            self.unreadable += 1

    def _apply_value(
        self, names: Sequence[str], value: bytes, now: float, age_seconds: float
    ) -> None:
        if len(names) == _LEASE_NAMES:
            self.table.set_lease(names[0], unpack_lease(value))
            self._leases[names[0]] = value
            return
        owner, upload_id, transfer_id = names
        record = unpack_value(owner, upload_id, value)
        if record.transfer_id != transfer_id:
            raise InvalidValue("record", "has another transfer id than its key")
        before = self.table.records(owner, upload_id)
        self.table.apply(record, age_seconds=age_seconds)
        # A new attempt has replaced the records of older ones.
        for each in before:
            if each.attempt < record.attempt:
                self._schedule_deletion(record_key(owner, upload_id, each.transfer_id), now)

    def _protect(self, key: bytes) -> None:
        """Remember not to overwrite what a newer release has written."""
        self._newer_keys[key] = None
        if len(self._newer_keys) > MAX_REPAIRS:
            del self._newer_keys[next(iter(self._newer_keys))]

    def _apply_tombstone(self, partition: int, key: bytes, names: Sequence[str]) -> None:
        self._repairs.pop((partition, key), None)
        self._newer_keys.pop(key, None)
        if len(names) == _LEASE_NAMES or not self.table.records(names[0], names[1]):
            return
        if partition == self._partition_of(key):
            self.table.remove(names[0], names[1], names[2])

    def _compare(
        self, partition: int, key: bytes, names: Sequence[str], value: bytes, now: float
    ) -> None:
        """Schedule a repair if the message is not what its key should have in that partition."""
        self._newer_keys.pop(key, None)
        is_moved = partition != self._partition_of(key)
        is_stored = self._is_stored(names, value)
        expected = value if is_stored else self._expected_value(names)
        if expected == value and not is_moved:
            self._repairs.pop((partition, key), None)
        else:
            self._schedule(partition, key, now, may_delete=expected is None or is_moved)

    def _is_stored(self, names: Sequence[str], value: bytes) -> bool:
        """Return whether *value* is the only record of its upload, without unpacking that."""
        return len(names) != _LEASE_NAMES and self.table.has_packed(
            names[0], names[1], packed_record(value)
        )

    def _expected_value(self, names: Sequence[str]) -> bytes | None:
        """Return which value the last message of a key should have; None for a tombstone."""
        if len(names) == _LEASE_NAMES:
            return self._leases.get(names[0]) if self.table.is_known(names[0]) else None
        record = self.table.find(names[0], names[1], names[2])
        return None if record is None else pack_value(record)

    def _partition_of(self, key: bytes) -> int:
        return partition_of(key, self.partitions)

    def _schedule(self, partition: int, key: bytes, now: float, *, may_delete: bool) -> None:
        if len(self._repairs) < MAX_REPAIRS:
            delay_seconds = random.uniform(0.0, REPAIR_DELAY_SECONDS)  # noqa: S311  # no secret
            self._repairs[partition, key] = _Repair(now + delay_seconds, may_delete)

    def _schedule_deletion(self, key: bytes, now: float) -> None:
        self._schedule(self._partition_of(key), key, now, may_delete=True)

    def schedule_expired(self, now: float) -> bool:
        """Schedule the deletion of a batch of expired records; return whether more are left."""
        expired = self.table.expired
        for _ in range(min(YIELD_EVERY, len(expired))):
            self._schedule_deletion(record_key(*expired.pop()), now)
        for worker in [each for each in self._leases if not self.table.is_known(each)]:
            del self._leases[worker]
            self._schedule_deletion(lease_key(worker), now)
        return bool(expired)

    def due_repairs(
        self, now: float, limit: int
    ) -> tuple[Sequence[OutgoingMessage], Sequence[OutgoingMessage]]:
        """Return the messages to be written now: values, and then tombstones.

        The repairs stay scheduled until their messages are read.

        Args:
            now: Monotonic seconds.
            limit: Maximum number of messages; it may be exceeded by one.
        """
        values: list[OutgoingMessage] = []
        tombstones: list[OutgoingMessage] = []
        # Repairs are ordered by the time they were scheduled, and hence nearly by due time.
        for (partition, key), repair in list(
            islice(self._repairs.items(), limit * _SCANNED_PER_MESSAGE)
        ):
            if len(values) + len(tombstones) >= limit:
                break
            if repair.due_at > now:
                continue
            expected, target = self._expected_value(parse_key(key)), self._partition_of(key)
            del self._repairs[partition, key]
            if expected is None and not repair.may_delete:
                continue
            self._repairs[partition, key] = _Repair(now + REPAIR_DELAY_SECONDS, repair.may_delete)
            if expected is not None:
                values.append(OutgoingMessage(key, expected, target))
            if expected is None or partition != target:
                tombstones.append(OutgoingMessage(key, None, partition))
        return values, tombstones

    def select_writable(self, records: Sequence[TransferRecord]) -> Sequence[TransferRecord]:
        """Return those of *records* that are newer than the table and may be written."""
        return [
            each
            for each in records
            if record_key(each.owner, each.upload_id, each.transfer_id) not in self._newer_keys
            and supersedes(each, self.table.records(each.owner, each.upload_id))
        ]

    def is_superseded(self, record: TransferRecord) -> bool:
        """Return whether the table has not *record*, which was written, but a newer version."""
        known = self.table.find(record.owner, record.upload_id, record.transfer_id)
        return known is None or version_of(known) != version_of(record)


def _version(message: ReceivedMessage) -> Version | None:
    try:
        return unpack_version(message.value or b"")
    except InvalidValue:
        return None
