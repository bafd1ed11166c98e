"""The fold of records into a snapshot, and the sum over several uploads."""

from __future__ import annotations

import random
from math import floor

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.record_strategies import RECORDS
from upload_progress._model.byte_ranges import part_set
from upload_progress._model.codec import decode_progress, encode_json
from upload_progress._model.fold import (
    accepted_bytes,
    ended,
    figures_of,
    figures_of_plain,
    fold,
    links_of,
    newest,
    newest_attempt,
    percent_of,
    share_of,
    sum_of,
)
from upload_progress._model.models import (
    Arrival,
    ByteRange,
    ErrorCode,
    Stage,
    TransferRecord,
    UploadProgress,
    UploadState,
)
from upload_progress._model.state import LOST, is_final, is_waiting
from upload_progress._model.validation import MAX_COUNT
from upload_progress._model.version import SKIPPED_VERSIONS

S = UploadState
NOW = 1000.0


def version(transfer: int, attempt: int, sequence: int) -> TransferRecord:
    """Return one version of a record; its content is determined by its arguments."""
    seed = transfer * 31 + attempt * 17 + sequence * 7
    states = [S.PENDING, S.RECEIVING, S.PAUSED, S.PROCESSING, S.COMPLETED, S.FAILED, S.CANCELLED]
    state = states[seed % len(states)] if sequence > 3 else S.RECEIVING
    finished_at = NOW - seed % 5 if is_final(state) else None
    return TransferRecord(
        "ann",
        "up",
        f"t{transfer}",
        attempt,
        sequence,
        state,
        received_bytes=sequence * 10,
        total_bytes=None if seed % 3 else 1000,
        bytes_per_second=None if seed % 4 else 5.0,
        stalled=seed % 7 == 0,
        arrival=None if seed % 2 else Arrival.STREAMED,
        group=None if seed % 5 else f"g{transfer}",
        filename=None if transfer % 2 else f"f{transfer}",
        created_at=NOW - transfer % 2,
        started_at=NOW - seed % 9 if state is not S.PENDING else None,
        updated_at=NOW,
        finished_at=finished_at,
        worker="w",
        lease_until=NOW + seed % 3 - 1,
        expires_at=NOW + 1 if is_waiting(state) else None,
    )


versions = st.builds(version, st.integers(0, 3), st.integers(1, 3), st.integers(1, 9))


@given(st.lists(versions, min_size=1, max_size=12), st.randoms(use_true_random=False), st.data())
def test_order_duplicates_and_old_attempts_do_not_matter(
    records: list[TransferRecord], generator: object, data: st.DataObject
) -> None:
    expected = fold(records, now=NOW)
    again = data.draw(st.permutations(records + records[: len(records) // 2]))
    old = [evolve(each, attempt=0, sequence=99) for each in records]

    assert fold(again, now=NOW) == expected
    assert fold([*old, *again], now=NOW) == expected
    assert fold(newest_attempt(records), now=NOW) == expected


@given(st.lists(versions, min_size=1, max_size=12))
def test_snapshot_agrees_with_the_newest_records(records: list[TransferRecord]) -> None:
    progress = fold(records, now=NOW)
    current = newest(records)

    assert progress is not None
    assert progress.bytes_transferred == sum(each.received_bytes for each in current)
    of_attempt = newest_attempt(records)
    assert progress.sequence == sum(each.sequence for each in of_attempt)
    older = max(0, sum(each.started_at is not None for each in of_attempt) - 1)
    assert progress.attempt == of_attempt[0].attempt + older
    assert (progress.error is not None) <= (progress.state in {S.FAILED, S.CANCELLED})
    assert (progress.finished_at is not None) == is_final(progress.state)
    if progress.state is not S.RECEIVING:
        assert progress.bytes_per_second is None
        assert progress.eta_seconds is None
        assert not progress.stalled


@given(st.lists(versions, min_size=1, max_size=12))
def test_share_of_a_total_is_that_of_the_snapshot(records: list[TransferRecord]) -> None:
    progress, share = fold(records, now=NOW), share_of(records, now=NOW)

    assert progress is not None
    assert share.state is progress.state
    assert sum_of([share]) == sum_of([progress])


@given(st.lists(versions, min_size=1, max_size=6), st.integers(1, 9))
def test_newer_version_raises_the_sequence(records: list[TransferRecord], more: int) -> None:
    before = fold(records, now=NOW)
    last = newest(records)[0]
    after = fold([*records, evolve(last, sequence=last.sequence + more)], now=NOW)

    assert before is not None
    assert after is not None
    assert after.sequence == before.sequence + more


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.sampled_from(S))
def test_percent_is_rounded_down_to_one_decimal(received: int, total: int, state: S) -> None:
    percent = percent_of(received, total, state)

    assert percent is not None
    assert 0 <= percent <= 100
    assert (percent == 100.0) == (received >= total)
    assert percent * 10 == pytest.approx(floor(percent * 10 + 1e-6))
    if received < total:
        assert percent <= received * 100 / total + 1e-9


def test_percent_without_a_total() -> None:
    assert percent_of(5, None, S.COMPLETED) is None
    assert percent_of(0, 0, S.RECEIVING) is None
    assert percent_of(0, 0, S.PROCESSING) == 100.0
    assert percent_of(0, 0, S.COMPLETED) == 100.0


def one(state: UploadState = S.RECEIVING, **more: object) -> TransferRecord:
    return evolve(TransferRecord("ann", "up", "t", 1, 1, state, created_at=1.0), **more)  # type: ignore[arg-type]  # any field


def folded(*records: TransferRecord, now: float = NOW) -> UploadProgress:
    progress = fold(records, now=now)
    assert progress is not None
    return progress


def test_no_records_have_no_snapshot() -> None:
    assert fold([], now=NOW) is None


def test_total_that_was_exceeded_is_unknown() -> None:
    """More bytes arrived than were announced: every percentage would be wrong."""
    progress = folded(one(total_bytes=10, received_bytes=20, bytes_per_second=5.0))

    assert (progress.bytes_transferred, progress.total_bytes) == (20, None)
    assert (progress.percent, progress.eta_seconds) == (None, None)


def test_remaining_time_is_that_of_the_missing_bytes() -> None:
    progress = folded(one(total_bytes=110, received_bytes=10, bytes_per_second=5.0))

    assert (progress.bytes_per_second, progress.eta_seconds) == (5.0, 20.0)


@pytest.mark.parametrize("running", [S.RECEIVING, S.PROCESSING])
def test_overdue_record_of_a_running_transfer_has_lost_its_worker(running: UploadState) -> None:
    record = one(running, lease_until=50.0, worker="w", stage=Stage("hashing"))

    lost = ended(record, 60.0)

    assert (lost.state, lost.error, lost.stage) == (S.FAILED, LOST, None)
    assert (lost.finished_at, lost.updated_at, lost.worker) == (50.0, 50.0, None)
    assert lost.sequence == record.sequence + SKIPPED_VERSIONS
    assert ended(record, 40.0).finished_at == 40.0
    assert ended(evolve(record, lease_until=None), 40.0).finished_at == 40.0


@pytest.mark.parametrize("waiting", [S.PENDING, S.PAUSED])
def test_overdue_record_of_a_waiting_upload_is_expired(waiting: UploadState) -> None:
    record = one(waiting, expires_at=50.0)

    expired = ended(record, 60.0)

    assert expired.error is not None
    assert (expired.state, expired.error.code) == (S.FAILED, ErrorCode.EXPIRED)
    assert (expired.finished_at, expired.sequence) == (50.0, record.sequence + 1)


def test_readers_conclude_no_end_from_the_time() -> None:
    """The clock of a reader may be wrong, and its records old: a worker ends what is overdue."""
    running = one(lease_until=50.0, worker="w")
    waiting = one(S.PENDING, expires_at=50.0)

    assert folded(running, now=1e9).state is S.RECEIVING
    assert folded(waiting, now=1e9).state is S.PENDING


def test_expired_announcement_does_not_end_a_running_upload() -> None:
    announced = one(S.PENDING, transfer_id="a", expires_at=10.0, filename="announced")
    running = one(lease_until=NOW + 9, received_bytes=5, started_at=5.0, transfer_id="b")

    progress = folded(announced, running)

    assert progress.state is S.RECEIVING
    assert progress.filename == "announced"


def test_state_of_several_records() -> None:
    done = one(S.COMPLETED, transfer_id="a", finished_at=5.0)
    failed_before = one(S.FAILED, transfer_id="b", finished_at=4.0)
    failed_later = one(S.FAILED, transfer_id="b", finished_at=6.0)
    running = one(transfer_id="c")
    paused = one(S.PAUSED, transfer_id="d")

    assert folded(done, failed_before).state is S.FAILED
    assert folded(done, failed_later).state is S.COMPLETED
    assert folded(done, running).state is S.RECEIVING
    assert folded(failed_later, running, paused).state is S.FAILED
    assert folded(paused, running, done).state is S.RECEIVING
    assert folded(paused, done).state is S.PAUSED


def test_plain_uploads_of_one_attempt_count_as_one_attempt_each() -> None:
    """Two workers got them at once. Nothing follows the end that one of them has shown."""
    older = one(S.FAILED, transfer_id="a", sequence=2, started_at=3.0, finished_at=4.0)
    newer = one(S.COMPLETED, transfer_id="b", sequence=1, started_at=3.1, finished_at=3.5)
    part = one(S.PAUSED, transfer_id="c", sequence=5, started_at=3.2, protocol="tus")

    assert folded(older, newer).state is S.COMPLETED
    assert (folded(older, newer).attempt, folded(older, newer).sequence) == (2, 3)
    assert (folded(older, newer, part).attempt, folded(older, newer, part).sequence) == (1, 8)


def test_completed_upload_in_several_requests_has_ended_for_all_workers() -> None:
    """A worker that received one of its parts does not know of the final request."""
    completed = one(S.COMPLETED, transfer_id="a", finished_at=5.0, protocol="s3")
    running = one(transfer_id="b", protocol="s3")

    assert folded(completed, running).state is S.COMPLETED


def test_completed_upload_of_unknown_size_has_the_accepted_bytes() -> None:
    ranges = (part_set(0b10, 6), ("", 0, 3, False))
    completed = one(S.COMPLETED, protocol="s3", finished_at=5.0, byte_ranges=ranges)
    arriving = one(S.RECEIVING, transfer_id="b", protocol="s3", byte_ranges=(("3", 0, 8, False),))
    shown = folded(completed, arriving)
    assert (shown.bytes_transferred, shown.total_bytes) == (6, 6)
    known = folded(evolve(completed, total_bytes=9), arriving)
    assert (known.bytes_transferred, known.total_bytes) == (9, 9)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_cancellation_at_the_time_of_a_completion_counts(names: str) -> None:
    cancelled, completed = (
        one(state, transfer_id=name, protocol="tus", finished_at=5.0)
        for state, name in zip((S.CANCELLED, S.COMPLETED), names, strict=True)
    )
    assert folded(completed, cancelled).state is S.CANCELLED


def test_end_is_newer_than_any_sequence_of_its_attempt() -> None:
    ended = one(S.FAILED, sequence=3, finished_at=5.0)

    assert newest([ended, one(sequence=4)]) == newest([one(sequence=4), ended]) == [ended]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.none() | st.integers(0, 10**6)), max_size=8))
def test_sum_with_an_unknown_total_has_no_total(sizes: list[tuple[int, int | None]]) -> None:
    uploads = [
        folded(one(upload_id=f"u{index}", received_bytes=received, total_bytes=total))
        for index, (received, total) in enumerate(sizes)
    ]

    total = sum_of(uploads)

    assert total.uploads == len(uploads)
    assert total.bytes_transferred == sum(received for received, _ in sizes)
    assert (total.total_bytes is None) == any(each.total_bytes is None for each in uploads)
    if total.percent is not None:
        complete = all(each.bytes_transferred == each.total_bytes for each in uploads)
        assert 0 <= total.percent <= 100
        assert (total.percent == 100) == complete


def test_sum_adds_up_rates() -> None:
    uploads = [
        folded(one(total_bytes=100, received_bytes=50, bytes_per_second=rate, upload_id=name))
        for name, rate in (("a", 2.0), ("b", 3.0))
    ]

    total = sum_of([*uploads, folded(one(S.COMPLETED, total_bytes=5, received_bytes=5))])

    assert (total.bytes_per_second, total.eta_seconds, total.percent) == (5.0, 20.0, 51.2)


def test_links_start_with_the_mount_path() -> None:
    links = links_of("up", "/api/uploads")

    assert links.progress == links.events == links.websocket == "/api/uploads/up/progress"
    assert links.cancel == "/api/uploads/up"


# --- byte ranges ----------------------------------------------------------------------------------


@define
class StoredVersions:
    """Versions of the records of one upload, and the bytes that they cover."""

    records: list[TransferRecord]
    covered: set[tuple[str, int]]


@st.composite
def stored_versions(draw: st.DrawFn) -> StoredVersions:
    """Return the records of up to three workers; each version has one range more than the last."""
    records, covered = list[TransferRecord](), set[tuple[str, int]]()
    for worker in range(draw(st.integers(1, 3))):
        byte_ranges = tuple[ByteRange, ...]()
        for sequence in range(1, draw(st.integers(1, 4)) + 1):
            part, start = draw(st.sampled_from(["", "1", "2"])), draw(st.integers(0, 20))
            stop = start + draw(st.integers(1, 9))
            byte_ranges = (*byte_ranges, (part, start, stop, draw(st.booleans())))
            records.append(
                TransferRecord(
                    owner="ann",
                    upload_id="up",
                    transfer_id=f"w{worker}",
                    attempt=1,
                    sequence=sequence,
                    state=S.RECEIVING,
                    protocol="s3",
                    byte_ranges=byte_ranges,
                    created_at=1.0,
                    updated_at=2.0,
                )
            )
        covered |= {(name, at) for name, start, stop, _ in byte_ranges for at in range(start, stop)}
    return StoredVersions(records, covered)


@given(stored_versions(), st.randoms(use_true_random=False))
def test_byte_ranges_fold_to_the_same_snapshot_in_any_order(
    versions: StoredVersions, generator: random.Random
) -> None:
    shuffled = [*versions.records, *generator.choices(versions.records, k=3)]
    generator.shuffle(shuffled)

    folded = fold(shuffled, now=3.0)

    assert folded == fold(versions.records, now=3.0)
    assert folded is not None
    assert folded.bytes_transferred == len(versions.covered)
    assert folded.retransmitted_bytes >= 0


def test_upload_in_several_requests_is_paused_when_its_worker_is_lost() -> None:
    record = TransferRecord(
        owner="ann",
        upload_id="up",
        transfer_id="w",
        attempt=1,
        sequence=1,
        state=S.RECEIVING,
        protocol="tus",
        stalled=True,
        created_at=1.0,
        updated_at=2.0,
        worker="w",
        lease_until=5.0,
    )
    lost = ended(record, 6.0)
    assert (lost.state, lost.stalled, lost.error) == (S.PAUSED, False, None)
    assert (lost.sequence, lost.updated_at, lost.worker) == (2, 6.0, None)


def test_rate_of_a_worker_without_lease_is_unknown() -> None:
    at_rate = evolve(
        version(0, 1, 1),
        state=S.RECEIVING,
        stalled=False,
        bytes_per_second=5.0,
        lease_until=NOW + 10,
        last_byte_at=NOW,
    )
    other = evolve(at_rate, transfer_id="t9", bytes_per_second=2.0, lease_until=NOW + 15)

    def rate(*records: TransferRecord, seconds: float) -> float | None:
        progress = fold(records, now=NOW + seconds)
        assert progress is not None
        return progress.bytes_per_second

    assert rate(at_rate, seconds=9.9) == 5.0
    assert [rate(at_rate, seconds=10)] == [None]
    assert rate(at_rate, other, seconds=10) == 2.0
    # The clocks of workers may differ: the times of a record say nothing about its age.
    for skew in (-3600, 3600):
        assert rate(evolve(at_rate, last_byte_at=NOW + skew, updated_at=NOW + skew), seconds=9) == 5
    assert rate(evolve(at_rate, lease_until=None), seconds=3600) == 5.0


def test_sums_of_bytes_stay_numbers_that_json_readers_understand() -> None:
    large = evolve(
        version(0, 1, 1),
        received_bytes=MAX_COUNT,
        total_bytes=MAX_COUNT,
        retransmitted_bytes=MAX_COUNT,
        state=S.RECEIVING,
        lease_until=NOW + 60,
    )
    part = evolve(large, protocol="tus", received_bytes=0, total_bytes=None)
    size = ("~.", MAX_COUNT, MAX_COUNT, False)
    parts = [
        evolve(
            part,
            transfer_id=f"p{number}",
            byte_ranges=((f".{number}", 0, MAX_COUNT, True), (f"~.{number}", *size[1:])),
        )
        for number in range(2000)
    ]
    numbered = evolve(part, byte_ranges=(part_set(0b110, MAX_COUNT + 9),))
    progress = fold(parts, now=NOW)
    assert progress is not None
    assert (progress.bytes_transferred, progress.total_bytes) == (MAX_COUNT, None)
    assert progress.retransmitted_bytes == MAX_COUNT
    total = sum_of([progress] * 5000)
    assert (total.bytes_transferred, total.total_bytes) == (MAX_COUNT, None)
    assert decode_progress(encode_json(progress)) == progress
    whole = fold([large], now=NOW)
    assert whole is not None
    assert (sum_of([whole]).total_bytes, sum_of([whole, whole]).total_bytes) == (MAX_COUNT, None)
    assert accepted_bytes([numbered]) == MAX_COUNT
    assert accepted_bytes([evolve(large, state=S.COMPLETED)]) == MAX_COUNT


@given(RECORDS, st.none() | st.integers(0, 2**54), st.none() | st.integers(-5, 5))
def test_figures_of_a_plain_upload_follow_the_rules_for_several_records(
    record: TransferRecord, stored_bytes: int | None, lease_seconds: int | None
) -> None:
    lease_until = None if lease_seconds is None else 100.0 + lease_seconds
    record = evolve(record, stored_bytes=stored_bytes, lease_until=lease_until)

    assert figures_of_plain(record, 100.0) == figures_of([record], [record], record, 100.0)
