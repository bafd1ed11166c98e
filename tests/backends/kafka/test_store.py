"""``KafkaStore``: the contract of all stores, and what is particular to a topic."""

from __future__ import annotations

import copy
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial

import anyio
import pytest
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidTopicError, KafkaConnectionError, KafkaError
from anyio import to_thread
from attrs import evolve

from tests._support.server_processes import ServerProcess, free_port
from upload_progress._model.models import TransferRecord, UploadState
from upload_progress._runtime.circuit_breaker import CALL_SECONDS
from upload_progress.backends.kafka import KafkaStore, topics
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.clients import (
    KafkaReader,
    KafkaWriter,
    OutgoingMessage,
    ReceivedMessage,
)
from upload_progress.backends.kafka.messages import pack_value, record_key
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue, NotEntered, StoreUnavailable
from upload_progress.testing import StoreContract

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 60.0
FAILURES = (TimeoutError, KafkaError, StoreUnavailable)
S = UploadState
RECORD = TransferRecord("ann", "video", "t1", 1, 5, S.RECEIVING, worker="w", created_at=1.0)
KEY = record_key("ann", "video", "t1")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Kafka's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture
def topic() -> str:
    return f"sessions-{secrets.token_hex(6)}"


Open = Callable[..., KafkaStore]


@pytest.fixture
def open_store(kafka_url: str, topic: str) -> Open:
    return partial(KafkaStore.open, kafka_url, topic=topic, retention=StoreContract.RETENTION)


@pytest.fixture
async def store(open_store: Open) -> AsyncIterator[KafkaStore]:
    async with open_store() as store:
        await until_current(store)
        yield store


@pytest.fixture
def fast_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write repairs at once."""
    module = "upload_progress.backends.kafka"
    monkeypatch.setattr(f"{module}.reconciler.REPAIR_DELAY_SECONDS", 0.1)
    monkeypatch.setattr(f"{module}.consumer._HEARTBEAT_SECONDS", 0.1)


async def until_current(store: KafkaStore) -> None:
    with anyio.fail_after(DEADLINE_SECONDS):
        await store.wait_until_current()


async def until(condition: Callable[[], object]) -> None:
    """Return when *condition* holds; it stays true then."""
    with anyio.fail_after(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110  # nothing sets an event
            await anyio.sleep(0.01)


async def write(url: str, topic: str, *messages: OutgoingMessage) -> None:
    writer = KafkaWriter(KafkaAccess.from_url(url), topic)
    try:
        with anyio.fail_after(DEADLINE_SECONDS):
            await writer.write(messages)
    finally:
        await writer.close()


async def messages(url: str, topic: str, partitions: int) -> list[ReceivedMessage]:
    """Return all messages of *topic*."""
    reader = await KafkaReader.connect(KafkaAccess.from_url(url), topic)
    found: list[ReceivedMessage] = []
    try:
        with anyio.fail_after(DEADLINE_SECONDS):
            reader.assign(dict.fromkeys(range(partitions)))
            end_offsets = await reader.end_offsets(range(partitions))
            while any([await reader.offset(each) < end for each, end in end_offsets.items()]):
                found += await reader.read(wait_seconds=0.1)
    finally:
        await reader.close()
    return found


async def create(url: str, topic: str, **settings: str) -> None:
    admin = KafkaAccess.from_url(url).admin()
    await admin.start()
    try:
        new = NewTopic(topic, 1, 1, topic_configs=settings)
        await admin.create_topics([new])
    finally:
        await admin.close()


class TestKafkaStore(StoreContract):
    @pytest.fixture
    async def store(self, open_store: Open) -> AsyncIterator[KafkaStore]:
        async with open_store() as store:
            await until_current(store)
            yield store


async def test_record_of_one_process_is_read_by_another(
    store: KafkaStore, open_store: Open
) -> None:
    """Whether it was written before or after that process started."""
    async with open_store() as second:
        await until_current(second)
        await store.save([RECORD])
        await store.renew("w", seconds=60)
        await until(lambda: second.statistics().uploads)
        async with open_store() as third:
            await until_current(third)
            for each in (store, second, third):
                with anyio.fail_after(DEADLINE_SECONDS):
                    [found] = await each.load(RECORD.key)
                assert found.lease_until is not None
                assert evolve(found, lease_until=None) == RECORD
                assert len((await each.list("ann")).uploads) == 1


async def test_store_that_is_not_entered_refuses_all_calls(open_store: Open) -> None:
    store = open_store()
    for _ in range(2):
        for ask in (
            partial(store.save, [RECORD]),
            partial(store.load, RECORD.key),
            partial(store.list, "ann"),
            partial(store.renew, "w", seconds=1),
            partial(store.overdue, limit=1),
        ):
            with pytest.raises(NotEntered):
                await ask()
        # Nor after it was left.
        async with store:
            await until_current(store)
            await store.save([])
            await store.save([RECORD])
            with pytest.raises(InvalidValue, match="is entered already"):
                await store.__aenter__()


@pytest.mark.usefixtures("fast_repairs")
async def test_old_record_written_last_is_repaired(
    store: KafkaStore, open_store: Open, kafka_url: str, topic: str
) -> None:
    """Compaction keeps the last message of a key: it would keep the old record only."""
    end = evolve(RECORD, sequence=6, state=S.FAILED, finished_at=4e9, worker=None)
    await store.save([end])
    await write(kafka_url, topic, OutgoingMessage(KEY, pack_value(evolve(RECORD, sequence=7))))
    found: list[bytes | None] = []
    with anyio.fail_after(DEADLINE_SECONDS):
        while len(found) < 3:
            found = [each.value for each in await messages(kafka_url, topic, 4) if each.key == KEY]

    assert found[0] == found[-1] == pack_value(end)
    assert await store.load(RECORD.key) == [end]
    async with open_store() as late:
        await until_current(late)
        assert await late.load(RECORD.key) == [end]


@pytest.mark.usefixtures("fast_repairs")
async def test_expired_records_are_deleted_from_topic(
    open_store: Open, kafka_url: str, topic: str
) -> None:
    """Also if many expire at once, as after an outage."""
    over = evolve(RECORD, state=S.FAILED, worker=None)
    async with open_store(retention=Retention(ended_seconds=0.01)) as store:
        await until_current(store)
        await store.save([evolve(over, upload_id=f"up-{number}") for number in range(40)])
        with anyio.fail_after(DEADLINE_SECONDS):
            while store.statistics().uploads:
                await store.overdue(limit=9)
                await anyio.sleep(0.01)
        await until(lambda: not store.statistics().pending_repairs)

    last = {each.key: each.value for each in await messages(kafka_url, topic, 4)}
    assert list(last.values()) == [None] * 40
    assert store.statistics().uploads == 0


@pytest.mark.usefixtures("fast_repairs")
async def test_partitions_may_be_added(
    store: KafkaStore, open_store: Open, kafka_url: str, topic: str
) -> None:
    """All records move to the new partitions of their keys, and the newest record wins."""
    records = [evolve(RECORD, upload_id=f"u{number}") for number in range(40)]
    await store.save(records)
    admin = KafkaAccess.from_url(kafka_url).admin()
    await admin.start()
    await admin.create_partitions({topic: NewPartitions(8)})
    await admin.close()
    newer = [evolve(each, sequence=6) for each in records]
    async with open_store() as late:
        await until_current(late)
        await until(lambda: len(late._consumer._offsets) == len(store._consumer._offsets) == 8)
        with anyio.fail_after(DEADLINE_SECONDS):
            await late.save(newer)
        await until(lambda: not late.statistics().pending_repairs)
    async with open_store() as later:
        await until_current(later)
        await until(lambda: not later.statistics().pending_repairs)
        loaded = await later.load(*[each.key for each in newer])
    assert [evolve(each, lease_until=None) for each in loaded] == newer


async def test_unreadable_messages_are_skipped(
    store: KafkaStore, kafka_url: str, topic: str
) -> None:
    poison = [
        OutgoingMessage(b"", b"x"),
        OutgoingMessage(b"\xff", None),
        OutgoingMessage(KEY, b""),
        OutgoingMessage(KEY, b"\x01\xff"),
        OutgoingMessage(KEY, b"\x01" + b"\x91" * 5000),
    ]
    await write(kafka_url, topic, *poison)
    with anyio.fail_after(DEADLINE_SECONDS):
        await store.save([RECORD])
    await until(lambda: store.statistics().unreadable == len(poison))

    assert len(await store.load(RECORD.key)) == 1


async def test_message_of_newer_release_is_kept(
    store: KafkaStore, kafka_url: str, topic: str
) -> None:
    other = evolve(RECORD, upload_id="other")
    await write(kafka_url, topic, OutgoingMessage(KEY, b"\x02of tomorrow"))
    await until(lambda: store._consumer.reconciler._newer_keys)
    await store.save([RECORD, other])

    assert await store.load(RECORD.key) == []
    found = [each.value for each in await messages(kafka_url, topic, 4) if each.key == KEY]
    assert found == [b"\x02of tomorrow"]


async def test_missing_topic_is_logged_with_command_to_create_it(
    open_store: Open, kafka_url: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(create_partitions=None) as store:
        await until(lambda: store.statistics().disconnects >= 2)
        with pytest.raises(StoreUnavailable):
            await store.load(RECORD.key)
        await create(kafka_url, topic, **topics.STORE_SETTINGS)
        await until_current(store)
        await store.save([RECORD])
    ours = [each.getMessage() for each in caplog.records if each.name == "upload_progress"]
    assert len(ours) == 1
    assert f"topic '{topic}': does not exist; create it: kafka-topics.sh" in ours[0]


async def test_topic_that_would_lose_records_is_rejected_until_corrected(
    open_store: Open, kafka_url: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await create(kafka_url, topic)
    async with open_store() as store:
        await until(lambda: store.statistics().disconnects)
        assert "has cleanup.policy=delete and would lose records" in caplog.text
        admin = KafkaAccess.from_url(kafka_url).admin()
        await admin.start()
        resource = ConfigResource(
            ConfigResourceType.TOPIC, topic, configs={"cleanup.policy": "compact"}
        )
        await admin.alter_configs([resource])
        await admin.close()
        await until_current(store)


async def test_topic_that_is_compacted_late_is_used_and_logged_once(
    open_store: Open, kafka_url: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    await create(kafka_url, topic, **{"cleanup.policy": "compact"})
    async with open_store() as store:
        await until_current(store)
        await store.save([RECORD])

    ours = [each.getMessage() for each in caplog.records if each.name == "upload_progress"]
    assert len(ours) == 1
    assert "is compacted late; set small segments: kafka-configs.sh --alter" in ours[0]


async def test_topic_is_created_with_settings_for_a_fast_start(
    store: KafkaStore, kafka_url: str, topic: str
) -> None:
    access = KafkaAccess.from_url(kafka_url)
    found = await topics.ensure_topics(access, {topic: None})
    settings = found[topic]

    assert settings is not None
    assert settings["segment.bytes"] == topics.STORE_SETTINGS["segment.bytes"]
    assert settings["max.compaction.lag.ms"] == topics.STORE_SETTINGS["max.compaction.lag.ms"]


@pytest.mark.parametrize(("portion", "most"), [(50_000, 10), (3, 200)])
async def test_old_versions_of_records_are_skipped_at_the_start(
    open_store: Open, store: KafkaStore, monkeypatch: pytest.MonkeyPatch, portion: int, most: int
) -> None:
    """Only the newest message of each key is applied, in portions of a bounded number of keys."""
    monkeypatch.setattr("upload_progress.backends.kafka.consumer._MAX_COLLECTED", portion)
    applied: list[object] = []
    apply = TopicReconciler.apply

    def count(
        reconciler: TopicReconciler, message: ReceivedMessage, now: float, **age: float
    ) -> None:
        applied.append(message)
        apply(reconciler, message, now, **age)

    records = [evolve(RECORD, upload_id=f"up{number}") for number in range(10)]
    for sequence in range(6, 26):
        await store.save([evolve(each, sequence=sequence) for each in records])
    monkeypatch.setattr(TopicReconciler, "apply", count)

    async with open_store() as other:
        await until_current(other)
        found = await other.load(*(each.key for each in records))

    assert {each.sequence for each in found} == {25}
    assert len(found) == 10
    assert len(applied) <= most


async def test_topic_is_created_by_several_stores_at_once(open_store: Open) -> None:
    async with open_store() as first, open_store() as second, open_store() as third:
        for each in (first, second, third):
            await until_current(each)


async def test_invalid_topic_name_raises_error_of_broker(kafka_url: str) -> None:
    access = KafkaAccess.from_url(kafka_url)
    with anyio.fail_after(DEADLINE_SECONDS), pytest.raises(InvalidTopicError):
        await topics.prepare_topic(access, "no topic", Retention(), partitions=1)


async def test_restarted_broker_is_found_again(kafka_server: ServerProcess, topic: str) -> None:
    async with KafkaStore.open(kafka_server.url, topic=topic) as store:
        await until_current(store)
        await store.save([RECORD])
        await to_thread.run_sync(kafka_server.kill)
        await until(lambda: not store.statistics().is_current)
        with pytest.raises(StoreUnavailable):
            await store.load(RECORD.key)
        await to_thread.run_sync(kafka_server.start)
        await until_current(store)
        await saved(store, evolve(RECORD, sequence=6))

        [found] = await store.load(RECORD.key)
        assert found.sequence == 6


async def test_hanging_broker_makes_store_unavailable(
    kafka_server: ServerProcess, topic: str
) -> None:
    """A write fails within a second, and old records are not returned for long."""
    async with KafkaStore.open(kafka_server.url, topic=topic) as store:
        await until_current(store)
        await store.save([RECORD])
        kafka_server.pause()
        for sequence in (6, 7):
            with pytest.raises(FAILURES), anyio.fail_after(CALL_SECONDS):
                await store.save([evolve(RECORD, sequence=sequence)])
        await until(lambda: not store.statistics().is_current)
        kafka_server.resume()
        await until_current(store)
        await saved(store, evolve(RECORD, sequence=8))

        [found] = await store.load(RECORD.key)
        assert found.sequence == 8


async def saved(store: KafkaStore, record: TransferRecord) -> None:
    """Save *record* until it is stored, with a timeout of a second, like the circuit breaker."""
    with anyio.fail_after(DEADLINE_SECONDS):
        while record.sequence not in [each.sequence for each in await store.load(record.key)]:
            with suppress(*FAILURES), anyio.fail_after(CALL_SECONDS):
                await store.save([record])
            await store.wait_until_current()


async def test_a_broker_that_is_not_there_is_no_reason_not_to_start(topic: str) -> None:
    access = KafkaAccess([f"127.0.0.1:{free_port()}"])
    async with KafkaStore(access, topic=topic) as store:
        await until(lambda: store.statistics().disconnects >= 2)


async def test_nothing_is_left_open_of_a_writer_that_could_not_be_connected(topic: str) -> None:
    access = KafkaAccess([f"127.0.0.1:{free_port()}"])
    with pytest.raises(KafkaConnectionError):
        await KafkaWriter(access, topic).write([OutgoingMessage(b"", b"")])


async def test_nothing_is_left_open_of_a_reader_that_could_not_be_connected(topic: str) -> None:
    access = KafkaAccess([f"127.0.0.1:{free_port()}"])
    with pytest.raises(KafkaConnectionError):
        await KafkaReader.connect(access, topic)


async def test_a_password_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "upload_progress")
    store = KafkaStore.open(f"kafka://user:canary@127.0.0.1:{free_port()}")
    await break_once(store)
    assert_silent(store, [each for each in caplog.records if each.name == "upload_progress"])


async def break_once(store: KafkaStore) -> None:
    async with store:
        await until(lambda: store.statistics().disconnects)


def assert_silent(store: KafkaStore, records: Sequence[logging.LogRecord]) -> None:
    """Check that what was logged says what happened, and no password."""
    ours = [each.getMessage() for each in records]
    assert "KafkaConnectionError" in ours[0]
    assert "canary" not in repr(store) + repr(store.access) + "".join(ours)


def test_event_loop_other_than_asyncio_is_rejected() -> None:
    async def enter() -> None:
        with pytest.raises(InvalidValue, match="needs asyncio"):
            await KafkaStore.open("kafka://host").__aenter__()

    anyio.run(enter, backend="trio")


async def test_forked_process_enters_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is that of the parent, which nothing updates in the forked process."""
    store, parent = KafkaStore.open(f"kafka://127.0.0.1:{free_port()}"), os.getpid()
    async with store:
        table = store._consumer
        table.is_current = True
        assert await store.load() == []
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(NotEntered, match="needs the lifespan of the tracker"):
                await store.load()
            copied = copy.copy(store)
            async with copied:
                assert copied._consumer is not table
