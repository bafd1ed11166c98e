"""The table of stores and brokers: what each can do, as the tests of all of them have seen it.

The tests that are the same for all, the contracts above all, write what passed to
``build/backends.json``; this takes it over: ``python -m docs.backends``. They also compare what
passed with what is taken over here, so that the table is that of the last run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
SEEN = HERE / "generated" / "backends.json"
RUN = HERE.parent / "build" / "backends.json"
NAMES = {"Memory": "memory", "Postgres": "PostgreSQL", "Rabbit": "RabbitMQ"}
ORDER = ("Memory", "Redis", "Postgres", "Rabbit", "Kafka")

CAPABILITIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "sessions": {
        "every field is kept, also of uploads in many requests": (
            "test_what_was_saved_is_loaded",
            "test_what_came_in_many_requests_is_loaded",
            "test_what_is_unknown_adds_nothing",
        ),
        "owners never collide, whatever their names": ("test_owners_never_collide",),
        "the last write wins, in any order and by any number of writers": (
            "test_a_batch_is_taken_in_its_order",
            "test_writers_at_the_same_time_do_not_lose_each_others_records",
            "test_many_are_saved_and_loaded_at_once",
            "test_never_goes_back",
            "test_the_newer_version_stays",
            "test_transfers_stand_side_by_side",
        ),
        "what ended stays ended; a new attempt begins anew": (
            "test_an_end_is_for_ever",
            "test_a_new_attempt_drops_the_old",
            "test_the_word_on_the_whole_outranks_what_still_runs",
        ),
        "lists by owner, group and end, in pages": (
            "test_the_list_is_newest_first_in_pages",
            "test_an_unknown_cursor_begins_anew",
            "test_the_list_is_filtered_by_group",
            "test_the_list_leaves_out_what_ended_before",
        ),
        "what a killed worker received is found": (
            "test_a_lease_keeps_a_record_alive",
            "test_what_lost_its_worker_is_overdue_until_it_is_ended",
            "test_what_lost_its_worker_and_can_go_on_waits",
            "test_what_ended_in_time_is_not_overdue",
            "test_overdue_comes_in_portions",
        ),
        "what waited too long ends, what ended is forgotten": (
            "test_what_waits_too_long_is_overdue",
            "test_what_ended_is_forgotten",
        ),
    },
    "events": {
        "events arrive as they were, at their owner's watchers only": (
            "test_an_event_arrives_as_it_was",
            "test_an_owner_hears_nothing_of_others",
            "test_who_left_is_not_missed",
            "test_who_hears_many_owners_hears_each",
        ),
        "who is slow gets the newest": ("test_who_is_slow_hears_the_last",),
        "a broker that hangs, or was killed, is heard again": (
            "test_a_server_that_was_killed_comes_back",
            "test_a_broker_that_hangs_costs_a_second_and_no_more",
        ),
        "what cannot be read, or is forged, is passed over": (
            "test_what_cannot_be_read_is_passed_over",
            "test_an_event_on_the_channel_of_somebody_else_is_no_event",
        ),
    },
    "letters": {
        "cancel and subscribe reach the worker that can do it": (
            "test_letters_arrive_in_order_and_at_their_worker_only",
            "test_a_letter_to_a_worker_that_is_not_there_is_lost",
            "test_a_letter_is_small",
        ),
    },
}
"""What there is to be able to do, by what it is about, and the tests that show it."""

Seen = dict[str, list[str]]
"""What each backend has been seen to do."""


def seen_in(path: Path) -> Seen:
    """Return what a run has seen."""
    found: Seen = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def shown_by(passed: set[str]) -> list[str]:
    """Return what is shown by those tests: all of a capability, or nothing of it."""
    capabilities = [each for about in CAPABILITIES.values() for each in about.items()]
    return [name for name, tests in capabilities if passed.issuperset(tests)]


def text_of(seen: Seen) -> str:
    """Return it as it is kept."""
    return json.dumps(dict(sorted(seen.items())), indent=1) + "\n"


def backends_table() -> str:
    """Return the table: a column for each backend."""
    seen = seen_in(SEEN)
    backends = sorted(seen, key=lambda name: (*ORDER, name).index(name))
    lines = [["", "", *(NAMES.get(name, name) for name in backends)], ["---"] * (len(backends) + 2)]
    for about, capabilities in CAPABILITIES.items():
        for number, capability in enumerate(capabilities):
            can = ["✓" if capability in seen[name] else "–" for name in backends]
            lines.append(["" if number else about, capability, *can])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Take over what the last run has seen."""
    SEEN.write_text(RUN.read_text(encoding="utf-8"), encoding="utf-8")
    (HERE / "generated" / "backends.md").write_text(backends_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
