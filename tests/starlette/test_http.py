"""Content negotiation, conditions and list filters, parsed from heads of any bytes."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests._support.asgi_client import http_scope
from upload_progress import InvalidValue, UploadState
from upload_progress._model.fold import fold
from upload_progress._model.models import TransferRecord, UploadProgress
from upload_progress.connection import Connection
from upload_progress.starlette.http import (
    Condition,
    entity_tag,
    parse_list_query,
    parse_wait_seconds,
    prefers_event_stream,
)


def request_with(query: str = "", **headers: str) -> Connection:
    """Return a request with these headers, their underscores as hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Connection(http_scope("/", query=query, headers=named))


def snapshot() -> UploadProgress:
    record = TransferRecord(
        owner="alice",
        upload_id="x",
        transfer_id="t",
        attempt=2,
        sequence=7,
        state=UploadState.RECEIVING,
        received_bytes=40,
    )
    progress = fold([record], now=1.0)
    assert progress is not None
    return progress


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("TEXT/Event-Stream;charset=utf-8", True),
        ("text/event-stream;q=0.9, application/json;q=0.5", True),
        ("application/json;q=0.9, text/event-stream;q=0.5", False),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0.000", False),
        ("text/event-stream;q=nonsense", True),
        ("*/*", False),
        ("text/*", False),
        ("image/png", False),
        ("", False),
        (",;,=;q=", False),
    ],
)
def test_event_stream_must_be_preferred_to_json(accept: str, expected: bool) -> None:
    assert prefers_event_stream(request_with(accept=accept)) is expected


def test_missing_accept_means_json() -> None:
    assert prefers_event_stream(request_with()) is False


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ('W/"2.7.receiving.40"', True),
        ('"2.7.receiving.40"', True),
        ('"other", W/"2.7.receiving.40"', True),
        ("*", True),
        ('"2.7.receiving.41"', False),
        ('"2.8.receiving.40"', False),
        ("2.7.receiving.40", False),
        ('"', False),
        ("", False),
    ],
)
def test_if_none_match_matches_exactly_one_snapshot(text: str, known: bool) -> None:
    assert Condition.parse(request_with(if_none_match=text)).matches(snapshot()) is known


def test_more_bytes_are_not_a_new_version() -> None:
    condition = Condition.parse(request_with(if_none_match=entity_tag(snapshot())))
    grown = evolve(snapshot(), bytes_transferred=41)

    assert not condition.matches(grown)
    assert condition.matches_version(grown)
    assert not condition.matches_version(evolve(grown, sequence=8))
    assert not condition.matches_version(evolve(grown, state=UploadState.PROCESSING))


def test_asterisk_is_resolved_to_the_current_snapshot() -> None:
    condition = Condition.parse(request_with(if_none_match="*")).resolved(snapshot())

    assert condition.matches_version(snapshot())
    assert not condition.matches_version(evolve(snapshot(), sequence=8))
    assert Condition.parse(request_with(if_none_match='"a"')).resolved(snapshot()).tags == {"a"}


@pytest.mark.parametrize(
    ("connection", "seconds"),
    [
        (request_with(), 0),
        (request_with(prefer="wait=25"), 25),
        (request_with(prefer='respond-async, WAIT="7"; foo=bar'), 7),
        (request_with(prefer="return=minimal"), 0),
        (request_with(prefer="wait"), 0),
        (request_with(prefer="wait=soon, wait=5"), 0),
        (request_with("wait=3"), 3),
        (request_with("wait=3", prefer="wait=9"), 3),
        (request_with("wait=0"), 0),
        (request_with("wait=999999999"), 60),
    ],
)
def test_wait_is_parsed_and_limited(connection: Connection, seconds: int) -> None:
    assert parse_wait_seconds(connection) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1e9", "\u00b3", "9999999999", "1 2"])
def test_wait_that_is_not_a_number_is_invalid_in_the_query_only(text: str) -> None:
    """A server ignores preferences that it does not understand (RFC 7240, section 2)."""
    assert parse_wait_seconds(request_with(prefer=f"wait={text}")) == 0
    with pytest.raises(InvalidValue, match=r"query\.wait"):
        parse_wait_seconds(request_with(f"wait={quote(text)}"))


def test_list_filters_are_parsed() -> None:
    query = parse_list_query(
        request_with("state=failed,pending&state=cancelled&group=g&cursor=c&limit=1000")
    )

    assert query.states == frozenset(
        {UploadState.FAILED, UploadState.PENDING, UploadState.CANCELLED}
    )
    assert (query.group, query.cursor, query.limit) == ("g", "c", 1000)


@pytest.mark.parametrize("text", ["", "state=", "state=,"])
def test_missing_filters_have_defaults(text: str) -> None:
    query = parse_list_query(request_with(text))

    assert (query.states, query.group, query.cursor, query.limit) == (None, None, None, 100)


@pytest.mark.parametrize("text", ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-5"])
def test_limit_outside_1_to_1000_is_invalid(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"query\.limit"):
        parse_list_query(request_with(text))


def test_unknown_state_is_invalid() -> None:
    with pytest.raises(InvalidValue, match=r"query\.state.*completed"):
        parse_list_query(request_with("state=done"))


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)))
def test_any_bytes_are_parsed_or_invalid(header: str, query: str) -> None:
    """No other exception than InvalidValue is raised."""
    connection = request_with(query, accept=header, if_none_match=header, prefer=header)

    prefers_event_stream(connection)
    Condition.parse(connection).matches(snapshot())
    for read in (parse_wait_seconds, parse_list_query):
        with suppress(InvalidValue):
            read(connection)
