"""What the topic says and owes, message by message, without a broker."""

from __future__ import annotations

import pytest
from attrs import define, evolve

from upload_progress._model.models import TransferRecord, UploadKey, UploadState
from upload_progress._runtime.yielding import YIELD_EVERY
from upload_progress.backends.kafka import reconciler as ledgers
from upload_progress.backends.kafka.access import KafkaAccess
from upload_progress.backends.kafka.clients import OutgoingMessage, partition_of
from upload_progress.backends.kafka.messages import (
    is_later,
    lease_key,
    name_of,
    pack_lease,
    pack_value,
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
LATER = ledgers.SPREAD_SECONDS + 1
MOST = 100


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Nothing here depends on the loop."""
    return "asyncio"


@define
class TransferResult:
    """A message that was read."""

    key: bytes | None
    value: bytes | None
    partition: int = 0
    offset: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = "sessions"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(clock: FakeClock) -> TopicReconciler:
    ledger = TopicReconciler(RecordTable(clock=clock, retention=Retention(10.0, 20.0)))
    ledger.view.is_whole = True
    return ledger


@pytest.fixture
def record(clock: FakeClock) -> TransferRecord:
    now = clock.time()
    return TransferRecord(
        "ann", "video", "t1", 2, 5, S.RECEIVING, created_at=now, updated_at=now, worker="w"
    )


def key(record: TransferRecord) -> bytes:
    return record_key(record.owner, record.upload_id, record.transfer_id)


def result(record: TransferRecord, partition: int = 0) -> TransferResult:
    return TransferResult(key(record), pack_value(record), partition)


def paid(ledger: TopicReconciler, *, most: int = MOST) -> list[OutgoingMessage]:
    """Return what is written when its time has come."""
    first, then = ledger.pay(LATER, most)
    return [*first, *then]


def ended(record: TransferRecord, clock: FakeClock) -> TransferRecord:
    return evolve(record, sequence=9, state=S.FAILED, finished_at=clock.time(), worker=None)


def test_what_is_read_is_known_and_nothing_is_owed(
    ledger: TopicReconciler, record: TransferRecord
) -> None:
    ledger.read(result(record), 0.0)
    ledger.read(result(record), 0.0)

    assert ledger.view.find("ann", "video", "t1") == record
    assert ledger.view.find("ann", "video", "t2") is None
    assert ledger.owed == 0


def test_the_newest_is_written_again_where_the_oldest_came_last(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    end = ended(record, clock)
    ledger.read(result(end), 0.0)
    ledger.read(result(evolve(record, sequence=99)), 0.0)

    assert ledger.pay(-1.0, MOST) == ([], [])
    assert paid(ledger) == [OutgoingMessage(key(record), pack_value(end), 0)]
    # Owed until it is read.
    assert ledger.owed == 1
    ledger.read(result(end), 0.0)
    assert ledger.owed == 0


def test_who_wins_does_not_depend_on_the_order(record: TransferRecord, clock: FakeClock) -> None:
    end, late = ended(record, clock), evolve(record, sequence=8)
    found = []
    for versions in ([record, late, end], [late, record, end], [end, record], [end, late]):
        ledger = TopicReconciler(RecordTable(clock=clock))
        for each in versions:
            ledger.read(result(each), 0.0)
        found.append(ledger.view.find("ann", "video", "t1"))

    assert found == [end] * 4


def test_an_attempt_that_is_over_is_erased(ledger: TopicReconciler, record: TransferRecord) -> None:
    anew = evolve(record, transfer_id="t2", attempt=3)
    ledger.read(result(record), 0.0)
    ledger.read(result(anew), 0.0)

    assert ledger.view.records("ann", "video") == [anew]
    assert paid(ledger) == [OutgoingMessage(key(record), None, 0)]
    ledger.read(TransferResult(key(record), None), 0.0)
    assert ledger.owed == 0
    # What still comes of it is erased, too.
    ledger.read(result(record), 0.0)
    assert paid(ledger) == [OutgoingMessage(key(record), None, 0)]


async def test_what_is_over_is_erased_once_and_by_one(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    ledger.read(result(ended(record, clock)), 0.0)
    clock.advance(100)
    assert await ledger.view.overdue(limit=9) == []

    ledger.sweep(0.0)

    assert paid(ledger, most=1) == [OutgoingMessage(key(record), None, 0)]
    assert paid(ledger) == []
    ledger.read(TransferResult(key(record), None), 0.0)
    assert ledger.owed == 0


async def test_much_that_is_over_is_looked_at_in_parts(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    end, uploads = ended(record, clock), range(YIELD_EVERY + 1)
    for number in uploads:
        ledger.read(result(evolve(end, upload_id=f"up-{number}")), 0.0)
    clock.advance(100)
    await ledger.view.overdue(limit=9)

    assert ledger.owed == len(uploads)
    assert [ledger.sweep(0.0) for _ in range(3)] == [True, False, False]
    assert ledger.owed == len(paid(ledger)) == len(uploads)


async def test_before_the_view_is_whole_what_goes_is_not_over(
    clock: FakeClock, record: TransferRecord
) -> None:
    """Another half of the upload may still come."""
    ledger = TopicReconciler(
        RecordTable(clock=clock, max_uploads=1, retention=Retention(10.0, 20.0))
    )
    end = ended(record, clock)
    ledger.read(result(end), 0.0)
    clock.advance(100)
    ledger.read(result(evolve(end, upload_id="other", finished_at=clock.time())), 0.0)
    ledger.view.is_whole = True
    ledger.sweep(0.0)

    assert ledger.owed == 0
    assert len(ledger.view) == 1


def test_what_made_room_is_not_erased(clock: FakeClock, record: TransferRecord) -> None:
    ledger = TopicReconciler(RecordTable(clock=clock, max_uploads=1))
    ledger.view.is_whole = True
    end = ended(record, clock)
    ledger.read(result(end), 0.0)
    ledger.read(result(evolve(record, sequence=1)), 0.0)
    assert ledger.owed == 1

    ledger.read(result(evolve(end, upload_id="other")), 0.0)

    assert paid(ledger) == []
    assert ledger.owed == 0


def test_an_erasure_erases_what_it_names(ledger: TopicReconciler, record: TransferRecord) -> None:
    other = evolve(record, transfer_id="t2")
    for each in (record, other):
        ledger.read(result(each), 0.0)

    for transfer in ("t1", "t3", "t1"):
        ledger.read(TransferResult(record_key("ann", "video", transfer), None), 0.0)

    assert ledger.view.records("ann", "video") == [other]
    ledger.read(TransferResult(key(other), None), 0.0)
    ledger.read(TransferResult(record_key("ann", "none", "t"), None), 0.0)
    assert len(ledger.view) == ledger.owed == 0


async def test_a_lease_runs_from_when_it_is_read(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    ledger.read(result(record), 0.0)
    ledger.read(TransferResult(lease_key("w"), pack_lease(5)), 0.0)
    clock.advance(4)
    assert await ledger.view.overdue(limit=9) == []
    ledger.read(TransferResult(lease_key("w"), pack_lease(5)), 0.0)
    clock.advance(4)
    assert await ledger.view.overdue(limit=9) == []
    clock.advance(2)

    assert [each.key for each in await ledger.view.overdue(limit=9)] == [record.key]
    assert ledger.owed == 0


async def test_a_worker_that_left_nothing_behind_is_erased(
    ledger: TopicReconciler, clock: FakeClock
) -> None:
    ledger.read(TransferResult(lease_key("w"), pack_lease(5)), 0.0)
    clock.advance(6)
    await ledger.view.overdue(limit=9)
    ledger.sweep(0.0)

    assert paid(ledger) == [OutgoingMessage(lease_key("w"), None, 0)]
    ledger.read(TransferResult(lease_key("w"), None), 0.0)
    assert ledger.owed == 0


async def test_a_worker_without_a_lease_is_not_lost_at_once_and_not_never(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    """A lease and a record may be in different partitions, and come in any order."""
    ledger.read(result(record), 0.0)
    assert await ledger.view.overdue(limit=9) == []
    clock.advance(31)
    assert len(await ledger.view.overdue(limit=9)) == 1


def test_what_a_later_version_wrote_is_not_overwritten(
    ledger: TopicReconciler, record: TransferRecord
) -> None:
    future = TransferResult(key(record), b"\x02whatever")
    ledger.read(future, 0.0)
    newer = evolve(record, attempt=9)

    assert ledger.writable([newer, evolve(newer, upload_id="other")]) == [
        evolve(newer, upload_id="other")
    ]
    assert ledger.unreadable == ledger.owed == 0
    ledger.read(TransferResult(key(record), None), 0.0)
    assert ledger.writable([newer]) == [newer]
    ledger.read(future, 0.0)
    ledger.read(result(record), 0.0)
    assert ledger.writable([newer]) == [newer]


def test_what_is_remembered_is_bounded(
    ledger: TopicReconciler, record: TransferRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_DEBTS", 2)
    keys = [record_key("ann", f"u{number}", "t") for number in range(3)]
    for each in keys:
        ledger.read(TransferResult(each, b"\x02"), 0.0)
    found = [evolve(record, upload_id=f"u{number}", transfer_id="t") for number in range(3)]
    assert ledger.writable(found) == found[:1]

    for number in range(3):
        for sequence in (5, 1):
            one = evolve(record, upload_id=f"v{number}", sequence=sequence)
            ledger.read(result(one), 0.0)
    assert ledger.owed == 2
    assert len(paid(ledger, most=1)) == 1


@pytest.mark.parametrize(
    "message",
    [
        TransferResult(None, b"\x01"),
        TransferResult(b"\xff", b"\x01"),
        TransferResult(b'["a","b"]', b"\x01"),
        TransferResult(b"[" * 5000, b"\x01"),
        TransferResult(b'["a","b",3]', b"\x01"),
        TransferResult(record_key("a", "b", "c"), b""),
        TransferResult(record_key("a", "b", "c"), b"\x00"),
        TransferResult(record_key("a", "b", "c"), b"\x01\xc1"),
        TransferResult(record_key("a", "b", "c"), b"\x01" + bytes(1_100_000)),
        TransferResult(lease_key("w"), b"\x01\xa1x"),
        TransferResult(None, None),
    ],
    ids=range(11),
)
def test_what_is_no_message_of_ours_is_counted(
    ledger: TopicReconciler, message: TransferResult
) -> None:
    ledger.read(message, 0.0)

    assert (ledger.unreadable, ledger.owed, len(ledger.view)) == (1, 0, 0)


def test_a_record_under_a_wrong_key_is_none(
    ledger: TopicReconciler, record: TransferRecord
) -> None:
    ledger.read(TransferResult(record_key("ann", "video", "other"), pack_value(record)), 0.0)

    assert ledger.unreadable == 1


def test_a_key_that_has_moved_is_written_where_it_belongs_before_it_is_erased(
    ledger: TopicReconciler, record: TransferRecord
) -> None:
    """The topic got more partitions: the last word may lie in a partition that is not its own."""
    ledger.partitions = 8
    home = partition_of(key(record), 8)
    stray = (home + 1) % 8
    ledger.read(result(record, stray), 0.0)

    first, then = ledger.pay(LATER, MOST)

    assert first == [OutgoingMessage(key(record), pack_value(record), home)]
    assert then == [OutgoingMessage(key(record), None, stray)]
    ledger.read(result(record, home), 0.0)
    ledger.read(TransferResult(key(record), None, stray), 0.0)
    assert ledger.owed == 0
    assert ledger.view.find("ann", "video", "t1") == record


def test_names_never_collide() -> None:
    names = [("a:b", "c", "t"), ("a", "b:c", "t"), ('a","b', "c", "t"), ("A", "b:c", "t")]

    assert len({record_key(*name) for name in names}) == len(names)
    assert [tuple(name_of(record_key(*name))) for name in names] == names
    assert name_of(lease_key("a")) == ["a"]


def test_values_are_what_they_were(record: TransferRecord) -> None:
    stamped = evolve(record, lease_until=1.0, expires_at=2.0)

    assert unpack_value("ann", "video", pack_value(stamped)) == record
    assert unpack_lease(pack_lease(3)) == 3.0
    assert not is_later(pack_lease(3))
    assert is_later(b"\x02")


async def test_the_list_is_by_age_and_not_by_arrival(
    ledger: TopicReconciler, record: TransferRecord, clock: FakeClock
) -> None:
    """A record that is found to be older than its upload was thought to be moves it."""
    for number in (3, 1, 2):
        ledger.read(result(evolve(record, upload_id=f"u{number}", created_at=number)), 0.0)
    ledger.read(result(evolve(record, upload_id="u3", transfer_id="t2", created_at=0.5)), 0.0)

    page = await ledger.view.list("ann", limit=2)
    rest = await ledger.view.list("ann", cursor=page.next)

    assert [each[0].upload_id for each in page.uploads] == ["u2", "u1"]
    assert [each[0].upload_id for each in rest.uploads] == ["u3"]
    assert (await ledger.view.list("bob")).uploads == ()
    assert len(await ledger.view.load(UploadKey("ann", "u3"))) == 2
    for number in (1, 2, 3):
        for transfer in ("t1", "t2"):
            ledger.read(TransferResult(record_key("ann", f"u{number}", transfer), None), 0.0)
    assert not ledger.view._order
    assert not ledger.view._created


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (None, "is not there; create it"),
        ({"cleanup.policy": "delete", "retention.ms": "1"}, "has cleanup.policy=delete"),
        ({"cleanup.policy": "compact,delete", "retention.ms": "29000"}, "after 29 s, sooner"),
    ],
)
def test_a_topic_that_would_lose_records_is_refused(
    settings: dict[str, str] | None, complaint: str
) -> None:
    with pytest.raises(InvalidValue, match=complaint):
        check_settings("sessions", settings, Retention(10.0, 20.0))


@pytest.mark.parametrize(
    "settings",
    [
        {"cleanup.policy": "compact", "retention.ms": "1"},
        {"cleanup.policy": "compact,delete", "retention.ms": "30000"},
        {"cleanup.policy": "delete,compact", "retention.ms": "-1"},
    ],
)
def test_a_topic_that_keeps_records_is_taken(settings: dict[str, str]) -> None:
    check_settings("sessions", settings, Retention(10.0, 20.0))


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
def test_a_url_says_where_and_who(
    url: str, servers: tuple[str, ...], options: dict[str, object]
) -> None:
    access = KafkaAccess.from_url(url)

    assert access.servers == servers
    assert access.options == options
    assert "p:w" not in repr(access)


def test_tls_is_asked_for_by_name() -> None:
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
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        KafkaAccess.from_url(url)
    assert "canary" not in str(refused.value)
