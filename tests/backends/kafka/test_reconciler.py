"""``TopicReconciler``, ``RecordTable``, message format and topic checks, without a broker."""

from __future__ import annotations

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress.backends.kafka import reconciler as reconciler_module
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.clients import OutgoingMessage, partition_of
from upload_progress.backends.kafka.messages import (
    is_of_newer_release,
    lease_key,
    pack_lease,
    pack_value,
    parse_key,
    record_key,
    unpack_lease,
    unpack_value,
)
from upload_progress.backends.kafka.reconciler import TopicReconciler
from upload_progress.backends.kafka.table import RecordTable
from upload_progress.backends.kafka.topics import check_settings
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.testing import FakeClock

pytestmark = pytest.mark.anyio

S = UploadState
LATER = reconciler_module.REPAIR_DELAY_SECONDS + 1
LIMIT = 100


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """These tests do no I/O: one event loop is enough."""
    return "asyncio"


@define
class Message:
    """A message as aiokafka returns it."""

    key: bytes | None
    value: bytes | None
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "sessions"
    timestamp: int = 0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reconciler(clock: FakeClock) -> TopicReconciler:
    reconciler = TopicReconciler(RecordTable(clock=clock, retention=Retention(10.0, 20.0)))
    reconciler.table.is_complete = True
    return reconciler


@pytest.fixture
def record(clock: FakeClock) -> TransferRecord:
    now = clock.time()
    return TransferRecord(
        "ann", "video", "t1", 2, 5, S.RECEIVING, created_at=now, updated_at=now, worker="w"
    )


def key(record: TransferRecord) -> bytes:
    return record_key(record.owner, record.upload_id, record.transfer_id)


def message(record: TransferRecord, partition: int = 0) -> Message:
    return Message(key(record), pack_value(record), partition)


def written(reconciler: TopicReconciler, *, limit: int = LIMIT) -> list[OutgoingMessage]:
    """Return the messages of all repairs that are due."""
    values, tombstones = reconciler.due_repairs(LATER, limit)
    return [*values, *tombstones]


def ended(record: TransferRecord, clock: FakeClock) -> TransferRecord:
    return evolve(record, sequence=9, state=S.FAILED, finished_at=clock.time(), worker=None)


def test_record_is_applied_without_repair(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    reconciler.apply(message(record), 0.0)
    reconciler.apply(message(record), 0.0)

    assert reconciler.table.find("ann", "video", "t1") == record
    assert reconciler.table.find("ann", "video", "t2") is None
    assert reconciler.pending_repairs == 0


def test_newest_record_is_written_again_if_old_one_came_last(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    end = ended(record, clock)
    reconciler.apply(message(end), 0.0)
    reconciler.apply(message(evolve(record, sequence=99)), 0.0)

    assert reconciler.due_repairs(-1.0, LIMIT) == ([], [])
    assert written(reconciler) == [OutgoingMessage(key(record), pack_value(end), 0)]
    # Pending until the message is read.
    assert reconciler.pending_repairs == 1
    reconciler.apply(message(end), 0.0)
    assert reconciler.pending_repairs == 0


def test_winning_record_does_not_depend_on_order(record: TransferRecord, clock: FakeClock) -> None:
    end, late = ended(record, clock), evolve(record, sequence=8)
    found = []
    for versions in ([record, late, end], [late, record, end], [end, record], [end, late]):
        reconciler = TopicReconciler(RecordTable(clock=clock))
        for each in versions:
            reconciler.apply(message(each), 0.0)
        found.append(reconciler.table.find("ann", "video", "t1"))

    assert found == [end] * 4


def test_records_of_older_attempt_are_deleted(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    new = evolve(record, transfer_id="t2", attempt=3)
    reconciler.apply(message(record), 0.0)
    reconciler.apply(message(new), 0.0)

    assert reconciler.table.records("ann", "video") == [new]
    assert written(reconciler) == [OutgoingMessage(key(record), None, 0)]
    reconciler.apply(Message(key(record), None), 0.0)
    assert reconciler.pending_repairs == 0
    # A late record of that attempt is deleted as well.
    reconciler.apply(message(record), 0.0)
    assert written(reconciler) == [OutgoingMessage(key(record), None, 0)]


async def test_expired_record_is_deleted_once(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    reconciler.apply(message(ended(record, clock)), 0.0)
    clock.advance(100)
    assert await reconciler.table.overdue(limit=9) == []

    reconciler.schedule_expired(0.0)

    assert written(reconciler, limit=1) == [OutgoingMessage(key(record), None, 0)]
    assert written(reconciler) == []
    reconciler.apply(Message(key(record), None), 0.0)
    assert reconciler.pending_repairs == 0


async def test_expired_records_are_scheduled_in_batches(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    end, uploads = ended(record, clock), range(YIELD_EVERY + 1)
    for number in uploads:
        reconciler.apply(message(evolve(end, upload_id=f"up-{number}")), 0.0)
    clock.advance(100)
    await reconciler.table.overdue(limit=9)

    assert reconciler.pending_repairs == len(uploads)
    assert [reconciler.schedule_expired(0.0) for _ in range(3)] == [True, False, False]
    assert reconciler.pending_repairs == len(written(reconciler)) == len(uploads)


async def test_record_dropped_before_table_is_complete_is_not_deleted(
    clock: FakeClock, record: TransferRecord
) -> None:
    """More records of the upload may follow."""
    reconciler = TopicReconciler(
        RecordTable(clock=clock, max_uploads=1, retention=Retention(10.0, 20.0))
    )
    end = ended(record, clock)
    reconciler.apply(message(end), 0.0)
    clock.advance(100)
    reconciler.apply(message(evolve(end, upload_id="other", finished_at=clock.time())), 0.0)
    reconciler.table.is_complete = True
    reconciler.schedule_expired(0.0)

    assert reconciler.pending_repairs == 0
    assert len(reconciler.table) == 1


def test_ended_upload_beyond_the_limit_of_its_owner_is_deleted(
    clock: FakeClock, record: TransferRecord
) -> None:
    """From the topic as well, once it was read completely."""
    retention = Retention(10.0, 20.0, ended_per_owner=1)
    reconciler = TopicReconciler(RecordTable(clock=clock, retention=retention))
    first, second, third = (
        evolve(ended(record, clock), upload_id=f"up-{number}") for number in range(3)
    )
    for each in (first, second):
        reconciler.apply(message(each), 0.0)
    assert reconciler.pending_repairs == 0

    reconciler.table.is_complete = True
    reconciler.apply(message(third), 0.0)
    reconciler.schedule_expired(0.0)

    assert written(reconciler) == [OutgoingMessage(key(second), None, 0)]
    assert [each.upload_id for each in reconciler.table.records("ann", "up-2")] == ["up-2"]


def test_record_dropped_for_lack_of_room_is_not_deleted(
    clock: FakeClock, record: TransferRecord
) -> None:
    reconciler = TopicReconciler(RecordTable(clock=clock, max_uploads=1))
    reconciler.table.is_complete = True
    end = ended(record, clock)
    reconciler.apply(message(end), 0.0)
    reconciler.apply(message(evolve(record, sequence=1)), 0.0)
    assert reconciler.pending_repairs == 1

    reconciler.apply(message(evolve(end, upload_id="other")), 0.0)

    assert written(reconciler) == []
    assert reconciler.pending_repairs == 0


def test_tombstone_removes_record_of_its_key(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    other = evolve(record, transfer_id="t2")
    for each in (record, other):
        reconciler.apply(message(each), 0.0)

    for transfer in ("t1", "t3", "t1"):
        reconciler.apply(Message(record_key("ann", "video", transfer), None), 0.0)

    assert reconciler.table.records("ann", "video") == [other]
    reconciler.apply(Message(key(other), None), 0.0)
    reconciler.apply(Message(record_key("ann", "none", "t"), None), 0.0)
    assert len(reconciler.table) == reconciler.pending_repairs == 0


def let_others_renew(reconciler: TopicReconciler, clock: FakeClock) -> None:
    """Let another worker renew its lease for a little longer than a lease."""
    for _ in range(5):
        reconciler.apply(Message(lease_key("alive"), pack_lease(5)), 0.0)
        clock.advance(1.5)
    reconciler.apply(Message(lease_key("alive"), pack_lease(5)), 0.0)


async def test_lease_begins_when_it_is_read(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    reconciler.apply(message(record), 0.0)
    reconciler.apply(Message(lease_key("w"), pack_lease(5)), 0.0)
    clock.advance(4)
    assert await reconciler.table.overdue(limit=9) == []
    reconciler.apply(Message(lease_key("w"), pack_lease(5)), 0.0)
    clock.advance(4)
    assert await reconciler.table.overdue(limit=9) == []
    let_others_renew(reconciler, clock)

    assert [each.key for each in await reconciler.table.overdue(limit=9)] == [record.key]
    assert reconciler.pending_repairs == 0


async def test_lease_of_dead_worker_without_uploads_is_deleted(
    reconciler: TopicReconciler, clock: FakeClock
) -> None:
    reconciler.apply(Message(lease_key("w"), pack_lease(5)), 0.0)
    let_others_renew(reconciler, clock)
    await reconciler.table.overdue(limit=9)
    reconciler.schedule_expired(0.0)

    assert written(reconciler) == [OutgoingMessage(lease_key("w"), None, 0)]
    reconciler.apply(Message(lease_key("w"), None), 0.0)
    assert reconciler.pending_repairs == 0


async def test_worker_without_lease_is_lost_after_initial_lease(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    """Leases and records may be in different partitions, and arrive in any order."""
    reconciler.apply(message(record), 0.0)
    assert await reconciler.table.overdue(limit=9) == []
    clock.advance(31)
    assert await reconciler.table.overdue(limit=9) == []
    let_others_renew(reconciler, clock)
    assert len(await reconciler.table.overdue(limit=9)) == 1


def test_message_of_newer_release_is_not_overwritten(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    future = Message(key(record), b"\x02whatever")
    reconciler.apply(future, 0.0)
    newer = evolve(record, attempt=9)

    assert reconciler.select_writable([newer, evolve(newer, upload_id="other")]) == [
        evolve(newer, upload_id="other")
    ]
    assert reconciler.unreadable == reconciler.pending_repairs == 0
    reconciler.apply(Message(key(record), None), 0.0)
    assert reconciler.select_writable([newer]) == [newer]
    reconciler.apply(future, 0.0)
    reconciler.apply(message(record), 0.0)
    assert reconciler.select_writable([newer]) == [newer]


def test_number_of_repairs_and_protected_keys_is_bounded(
    reconciler: TopicReconciler, record: TransferRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "MAX_REPAIRS", 2)
    keys = [record_key("ann", f"u{number}", "t") for number in range(3)]
    for each in keys:
        reconciler.apply(Message(each, b"\x02"), 0.0)
    found = [evolve(record, upload_id=f"u{number}", transfer_id="t") for number in range(3)]
    assert reconciler.select_writable(found) == found[:1]

    for number in range(3):
        for sequence in (5, 1):
            one = evolve(record, upload_id=f"v{number}", sequence=sequence)
            reconciler.apply(message(one), 0.0)
    assert reconciler.pending_repairs == 2
    assert len(written(reconciler, limit=1)) == 1


@pytest.mark.parametrize(
    "message",
    [
        Message(None, b"\x01"),
        Message(b"\xff", b"\x01"),
        Message(b'["a","b"]', b"\x01"),
        Message(b"[" * 5000, b"\x01"),
        Message(b'["a","b",3]', b"\x01"),
        Message(record_key("a", "b", "c"), b""),
        Message(record_key("a", "b", "c"), b"\x00"),
        Message(record_key("a", "b", "c"), b"\x01\xc1"),
        Message(record_key("a", "b", "c"), b"\x01" + bytes(1_100_000)),
        Message(lease_key("w"), b"\x01\xa1x"),
        Message(None, None),
    ],
    ids=range(11),
)
def test_message_with_another_format_is_counted(
    reconciler: TopicReconciler, message: Message
) -> None:
    reconciler.apply(message, 0.0)

    assert (reconciler.unreadable, reconciler.pending_repairs, len(reconciler.table)) == (1, 0, 0)


def test_record_with_wrong_key_is_counted_as_unreadable(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    reconciler.apply(Message(record_key("ann", "video", "other"), pack_value(record)), 0.0)

    assert reconciler.unreadable == 1


def test_moved_key_is_written_to_new_partition_before_it_is_deleted(
    reconciler: TopicReconciler, record: TransferRecord
) -> None:
    """After partitions were added, the last message may be in another partition than the key's."""
    reconciler.partitions = 8
    target = partition_of(key(record), 8)
    source = (target + 1) % 8
    reconciler.apply(message(record, source), 0.0)

    values, tombstones = reconciler.due_repairs(LATER, LIMIT)

    assert values == [OutgoingMessage(key(record), pack_value(record), target)]
    assert tombstones == [OutgoingMessage(key(record), None, source)]
    reconciler.apply(message(record, target), 0.0)
    reconciler.apply(Message(key(record), None, source), 0.0)
    assert reconciler.pending_repairs == 0
    assert reconciler.table.find("ann", "video", "t1") == record


def test_keys_of_different_names_differ() -> None:
    names = [("a:b", "c", "t"), ("a", "b:c", "t"), ('a","b', "c", "t"), ("A", "b:c", "t")]
    names += [("\ud800", "c", "t"), ("ä", "🙂", "t")]

    assert len({record_key(*name) for name in names}) == len(names)
    assert [tuple(parse_key(record_key(*name))) for name in names] == names
    assert parse_key(lease_key("a")) == ["a"]


@pytest.mark.parametrize(
    ("key", "hash_value"),
    [
        (b"21", -973932308),
        (b"abc", 479470107),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
    ],
)
def test_partition_is_that_of_other_clients(key: bytes, hash_value: int) -> None:
    """These hash values are those of the client for Java, which the others follow."""
    for partitions in (1, 7, 50):
        assert partition_of(key, partitions) == (hash_value & 0x7FFFFFFF) % partitions


def test_packed_values_are_unpacked(record: TransferRecord) -> None:
    stamped = evolve(record, lease_until=1.0, expires_at=2.0)

    assert unpack_value("ann", "video", pack_value(stamped)) == record
    assert unpack_lease(pack_lease(3)) == 3.0
    assert not is_of_newer_release(pack_lease(3))
    assert is_of_newer_release(b"\x02")


async def test_list_is_ordered_by_creation(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    """A record that was created earlier than those known moves its upload."""
    for number in (3, 1, 2):
        reconciler.apply(message(evolve(record, upload_id=f"u{number}", created_at=number)), 0.0)
    reconciler.apply(message(evolve(record, upload_id="u3", transfer_id="t2", created_at=0.5)), 0.0)

    page = await reconciler.table.list("ann", limit=2)
    rest = await reconciler.table.list("ann", cursor=page.next)

    assert [each[0].upload_id for each in page.uploads] == ["u2", "u1"]
    assert [each[0].upload_id for each in rest.uploads] == ["u3"]
    assert (await reconciler.table.list("bob")).uploads == ()
    assert len(await reconciler.table.load(UploadKey("ann", "u3"))) == 2
    for number in (1, 2, 3):
        for transfer in ("t1", "t2"):
            reconciler.apply(Message(record_key("ann", f"u{number}", transfer), None), 0.0)
    assert len(reconciler.table) == 0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (None, "does not exist; create it"),
        ({"cleanup.policy": "delete", "retention.ms": "1"}, "has cleanup.policy=delete"),
        (
            {"cleanup.policy": "compact,delete", "retention.ms": "29000"},
            "after 29 s; they are needed for 30 s",
        ),
    ],
)
def test_topic_that_would_lose_records_is_rejected(
    settings: dict[str, str] | None, problem: str
) -> None:
    with pytest.raises(InvalidValue, match=problem):
        check_settings("sessions", settings, Retention(10.0, 20.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"cleanup.policy": "compact", "retention.ms": "1"},
        {"cleanup.policy": "compact,delete", "retention.ms": "30000"},
        {"cleanup.policy": "delete,compact", "retention.ms": "-1"},
    ],
)
def test_topic_that_keeps_records_is_accepted(settings: dict[str, str]) -> None:
    small = {"max.compaction.lag.ms": "300000", "segment.bytes": "4194304"}
    assert check_settings("sessions", {**settings, **small}, Retention(10.0, 20.0)) is None


@pytest.mark.parametrize(
    ("lag", "segment"), [("9223372036854775807", "4194304"), ("300000", "1073741824")]
)
def test_topic_that_is_compacted_late_is_reported_with_the_command(lag: str, segment: str) -> None:
    settings = {"cleanup.policy": "compact", "retention.ms": "-1"}
    late = {"max.compaction.lag.ms": lag, "segment.bytes": segment}

    reason = check_settings("sessions", {**settings, **late}, Retention())

    assert reason is not None
    assert "kafka-configs.sh --alter --add-config cleanup.policy=compact,segment.bytes=" in reason


TIME = FakeClock().time()
KINDS = st.sampled_from(["record", "tombstone", "unreadable", "newer release", "lease"])


@st.composite
def messages_of_few_keys(draw: st.DrawFn) -> Message:
    """Return a message of one of few keys."""
    kind = draw(KINDS)
    if kind == "lease":
        return Message(lease_key("w"), pack_lease(draw(st.integers(0, 9))))
    record = TransferRecord(
        "ann",
        draw(st.sampled_from(["up", "other"])),
        draw(st.sampled_from(["t1", "t2"])),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([S.RECEIVING, S.COMPLETED])),
        created_at=TIME,
        updated_at=TIME,
    )
    values = {"tombstone": None, "unreadable": b"?", "newer release": b"\x02"}
    return Message(key(record), values.get(kind, pack_value(record)))


@given(st.lists(messages_of_few_keys(), max_size=12))
def test_collected_messages_have_the_effect_of_all(received: list[Message]) -> None:
    at_once, collecting = (
        TopicReconciler(RecordTable(clock=FakeClock(), retention=Retention(10.0, 20.0)))
        for _ in range(2)
    )
    for each in received:
        at_once.apply(each, 0.0)
        collecting.collect(each, 0.0)
    for kept in collecting.take_collected():
        collecting.apply(kept, 0.0)

    assert collecting.collected == 0
    for upload_id in ("up", "other"):
        expected = at_once.table.records("ann", upload_id)
        assert set(collecting.table.records("ann", upload_id)) == set(expected)
    assert set(collecting._repairs) == set(at_once._repairs)
    assert set(collecting._newer_keys) == set(at_once._newer_keys)


@pytest.mark.parametrize(
    ("url", "servers", "options"),
    [
        ("kafka://h", ("h:9092",), {"security_protocol": "PLAINTEXT"}),
        ("kafka://h:1,i:2/", ("h:1", "i:2"), {"security_protocol": "PLAINTEXT"}),
        (
            "kafka://us%40er:p%3Aw@h:1?sasl=SCRAM-SHA-256",
            ("h:1",),
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-256",
                "sasl_plain_username": "us@er",
                "sasl_plain_password": "p:w",
            },
        ),
    ],
)
def test_url_gives_servers_and_credentials(
    url: str, servers: tuple[str, ...], options: dict[str, object]
) -> None:
    access = KafkaAccess.from_url(url)

    assert access.servers == servers
    assert access.options == options
    assert "p:w" not in repr(access)


def test_kafkas_scheme_uses_tls() -> None:
    options = KafkaAccess.from_url("kafkas://user:canary@h:1").options

    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "PLAIN"
    assert "ssl_context" in options


@pytest.mark.parametrize(
    "url",
    [
        "redis://canary@h",
        "kafka://canary@",
        "kafka://u:canary@[::1:x",
        "kafka://h:1/canary",
        "kafka://u:canary@h?sasl=NONE",
    ],
)
def test_invalid_url_is_rejected_without_its_text(url: str) -> None:
    with pytest.raises(InvalidValue) as error:
        KafkaAccess.from_url(url)
    assert "canary" not in str(error.value)


async def test_records_that_are_read_at_the_start_expire_after_their_age(
    reconciler: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    """The topic tells the age: neither the times of a record nor the wall clock."""
    table, then = reconciler.table, clock.time() - 3600
    retention = table.retention
    ended = evolve(record, state=S.COMPLETED, worker=None, finished_at=then, updated_at=then)
    old, new = evolve(ended, upload_id="old"), evolve(ended, upload_id="new")
    for each, seconds in ((new, 8), (old, 2)):
        reconciler.collect(evolve(message(each), timestamp=1000 * seconds), 0.0)
    for found in reconciler.take_collected():
        reconciler.apply(found, 0.0, age_seconds=8 - found.timestamp / 1000)
    clock.step_wall_clock(30 * 86_400)
    assert len(table) == 2

    clock.advance(retention.ended_seconds - 6 + 1.5)
    await table.overdue(limit=9)

    assert await table.load(old.key) == []
    assert len(await table.load(new.key)) == 1
