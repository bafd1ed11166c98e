"""The table of stores and brokers: which capabilities the tests have shown for each of them.

The tests that are the same for all backends, mainly the contracts, compare the capabilities they
have shown with this table. If there are more, they fail, and write all to ``build/backends.json``;
``python -m docs.backends`` copies that file to ``docs/generated`` and makes the table from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENTED = HERE / "generated" / "backends.json"
LAST_RUN = HERE.parent / "build" / "backends.json"
NAMES = {"Memory": "memory", "Postgres": "PostgreSQL", "Rabbit": "RabbitMQ"}
ORDER = ("Memory", "Redis", "Postgres", "Rabbit", "Kafka")

CAPABILITIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "records": {
        "every field is stored, also of uploads in several requests": (
            "test_saved_record_is_loaded",
            "test_byte_ranges_are_loaded",
            "test_unknown_upload_adds_nothing",
        ),
        "similar names of owners do not collide": ("test_similar_names_do_not_collide",),
        "the newest version wins, in any order and with any number of writers": (
            "test_batch_is_saved_in_order",
            "test_concurrent_writers_keep_each_others_records",
            "test_large_batch_is_saved_and_loaded",
            "test_older_version_changes_nothing",
            "test_newer_version_replaces_older",
            "test_transfers_of_one_upload_are_kept_together",
        ),
        "an ended upload stays ended until its next attempt": (
            "test_final_record_is_not_replaced",
            "test_cancel_by_another_worker_is_not_replaced",
            "test_new_attempt_replaces_older_attempt",
            "test_completed_upload_has_ended_although_transfers_are_open",
        ),
        "lists by owner, group and time of end, in pages": (
            "test_list_is_newest_first_in_pages",
            "test_list_starts_with_first_page_if_text_is_no_cursor",
            "test_next_attempt_is_listed_as_a_new_upload",
            "test_list_is_filtered_by_group",
            "test_list_omits_uploads_that_ended_earlier",
            "test_open_uploads_of_all_owners_are_listed_in_pages",
            "test_open_uploads_start_with_first_page_if_text_is_no_cursor",
        ),
        "uploads of a killed worker are found": (
            "test_renewed_lease_keeps_record_alive",
            "test_record_of_dead_worker_is_overdue_until_it_is_ended",
            "test_resumable_record_of_dead_worker_can_be_paused",
            "test_record_that_ended_before_its_worker_died_is_not_overdue",
            "test_overdue_returns_at_most_limit_records",
            "test_record_that_was_handed_over_has_a_deadline",
        ),
        "an outage makes no worker look dead": (
            "test_lease_lasts_while_no_worker_can_renew_its_own",
            "test_each_worker_has_a_full_lease_after_a_pause",
            "test_lease_that_is_renewed_after_a_pause_lasts",
        ),
        "a worker finds what it receives by its records": (
            "test_running_returns_the_records_of_one_worker",
        ),
        "announced uploads of an owner are limited, also those of the same moment": (
            "test_announcements_of_an_owner_are_limited",
            "test_announcements_at_the_same_time_are_counted",
        ),
        "waiting uploads expire, ended uploads are deleted": (
            "test_waiting_record_expires",
            "test_ended_upload_is_deleted_and_its_cursor_stays_valid",
        ),
        "ended and waiting uploads are limited for each owner": (
            "test_ended_uploads_of_one_owner_are_limited",
            "test_next_attempt_is_not_an_ended_upload",
            "test_waiting_uploads_of_one_owner_are_limited",
        ),
    },
    "events": {
        "events arrive unchanged, at subscribers of their owner only": (
            "test_event_arrives_unchanged",
            "test_events_of_other_owners_do_not_arrive",
            "test_stream_follows_several_owners",
            "test_events_that_wait_when_their_owner_is_unsubscribed_are_dropped",
            "test_publishing_without_subscriptions_is_no_error",
            "test_owner_names_are_not_patterns",
        ),
        "a slow subscriber receives the newest events": (
            "test_slow_consumer_receives_the_newest_event",
        ),
        "reconnects after the broker hung or was killed": (
            "test_killed_server_is_reconnected_to",
            "test_hung_server_costs_the_timeout_of_a_call",
        ),
        "unreadable and forged events are rejected": (
            "test_unreadable_events_are_skipped",
            "test_event_on_the_channel_of_another_owner_is_rejected",
        ),
    },
    "messages": {
        "cancel and subscribe requests reach the right worker": (
            "test_messages_arrive_in_order_at_their_worker_only",
            "test_message_without_an_inbox_is_lost",
            "test_message_size_is_limited",
        ),
    },
}
"""Capabilities by topic, and the tests that show each of them."""

Results = dict[str, list[str]]
"""The capabilities of each backend."""


def read_results(path: Path) -> Results:
    """Return the capabilities in a file; none if it does not exist."""
    found: Results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def capabilities_shown_by(passed: set[str]) -> list[str]:
    """Return the capabilities of which all tests are in *passed*."""
    capabilities = [each for topic in CAPABILITIES.values() for each in topic.items()]
    return [name for name, tests in capabilities if passed.issuperset(tests)]


def to_json(results: Results) -> str:
    """Return the content of the file."""
    return json.dumps(dict(sorted(results.items())), indent=1) + "\n"


def backends_table() -> str:
    """Return the table in Markdown, with a column for each backend."""
    results = read_results(DOCUMENTED)
    backends = sorted(results, key=lambda name: (*ORDER, name).index(name))
    lines = [["", "", *(NAMES.get(name, name) for name in backends)], ["---"] * (len(backends) + 2)]
    for topic, capabilities in CAPABILITIES.items():
        for number, capability in enumerate(capabilities):
            marks = ["✓" if capability in results[name] else "–" for name in backends]
            lines.append(["" if number else topic, capability, *marks])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Copy the result of the last run, and make the table."""
    DOCUMENTED.write_text(LAST_RUN.read_text(encoding="utf-8"), encoding="utf-8")
    (HERE / "generated" / "backends.md").write_text(backends_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
