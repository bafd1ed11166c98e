"""Tickets: valid once, for 30 seconds, and stored as hashes."""

from __future__ import annotations

import pytest

from tests._support.asgi_client import http_scope
from upload_progress import Identity
from upload_progress.connection import Connection
from upload_progress.starlette.auth.tickets import AccessGrant, Tickets
from upload_progress.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def grant(name: str = "alice") -> AccessGrant:
    return AccessGrant(Identity(name), Connection(http_scope("/", headers={"cookie": "hidden"})))


def test_ticket_is_valid_once(clock: FakeClock) -> None:
    tickets, alice = Tickets(clock), grant()
    ticket = tickets.issue(alice)

    assert tickets.redeem(ticket) is alice
    assert tickets.redeem(ticket) is None
    assert len(tickets) == 0


def test_ticket_expires(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    ticket = tickets.issue(grant())
    clock.advance(30)

    assert tickets.redeem(ticket) is None


def test_ticket_is_invalid_in_another_process(clock: FakeClock) -> None:
    ticket = Tickets(clock).issue(grant())

    assert Tickets(clock).redeem(ticket) is None


@pytest.mark.parametrize("text", ["", "x", "\udcff", "é" * 1000])
def test_unknown_text_is_not_a_ticket(clock: FakeClock, text: str) -> None:
    assert Tickets(clock).redeem(text) is None


def test_tickets_contain_192_random_bits(clock: FakeClock) -> None:
    tickets = Tickets(clock, max_per_user=1000)
    issued = {tickets.issue(grant()) for _ in range(1000)}

    assert len(issued) == 1000
    assert {len(ticket) for ticket in issued} == {32}


def test_oldest_ticket_of_a_user_is_evicted(clock: FakeClock) -> None:
    tickets = Tickets(clock, max_per_user=2)
    first, second, third = (tickets.issue(grant()) for _ in range(3))
    theirs = tickets.issue(grant("bob"))

    assert tickets.redeem(first) is None
    assert all(tickets.redeem(ticket) for ticket in (second, third, theirs))


def test_oldest_tickets_are_evicted(clock: FakeClock) -> None:
    tickets = Tickets(clock, max_tickets=3)
    issued = [tickets.issue(grant(str(number))) for number in range(5)]

    assert [tickets.redeem(ticket) is not None for ticket in issued] == [False] * 2 + [True] * 3


def test_expired_tickets_are_removed(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    for _ in range(5):
        tickets.issue(grant())
    clock.advance(31)
    tickets.issue(grant("bob"))

    assert len(tickets) == 1


def test_repr_shows_neither_ticket_nor_credentials(clock: FakeClock) -> None:
    """Tickets are not stored in clear text either."""
    tickets, alice = Tickets(clock), grant()
    ticket = tickets.issue(alice)

    assert ticket not in repr(tickets)
    assert "hidden" not in repr(alice)
    assert ticket.encode() not in repr(vars_of(tickets)).encode()


def vars_of(tickets: Tickets) -> list[object]:
    return [tickets._tickets, tickets._digests_by_user]
