"""One-shot tickets: what a browser shows where it can set no header.

``WebSocket`` and ``EventSource`` carry no ``Authorization``, and a bearer token in a URL ends
up in logs (RFC 6750, section 2.3). A ticket in a log is worth nothing: it is good once, for
half a minute. Only its hash is kept, so that not even a dump of this process holds one.
"""

import hashlib
import secrets
from typing import Final

from attrs import define, field, frozen

from upload_progress.connection import Connection
from upload_progress.identity import Identity
from upload_progress.ports import Clock

__all__ = [
    "MOST_PER_IDENTITY",
    "MOST_TICKETS",
    "TICKET_BYTES",
    "TICKET_SECONDS",
    "Admission",
    "Tickets",
    "Voucher",
    "digest_of",
]

TICKET_SECONDS: Final = 30
TICKET_BYTES: Final = 24
MOST_TICKETS: Final = 10_000
MOST_PER_IDENTITY: Final = 50


@frozen
class Voucher:
    """Stands for a request that showed to another worker who is asking.

    Attributes:
        worker: Which.
        digest: By which ticket that worker knows it.
    """

    worker: str
    digest: bytes = field(repr=False)


@frozen
class Admission:
    """Somebody was let in.

    Attributes:
        identity: Who.
        proof: The request that showed it, or who has seen that: asked again when it is to be
            shown once more.
    """

    identity: Identity
    proof: Connection | Voucher


@frozen
class _Ticket:
    admission: Admission
    expires_at: float


@define(eq=False, repr=False)
class Tickets:
    """Issues tickets and takes them back; of too many the oldest are void."""

    clock: Clock
    most: int = MOST_TICKETS
    most_per_identity: int = MOST_PER_IDENTITY
    _tickets: dict[bytes, _Ticket] = field(factory=dict, init=False)
    _issued: dict[str, list[bytes]] = field(factory=dict, init=False)

    def issue(self, admission: Admission, *, prefix: str = "") -> str:
        """Return a new ticket for who was admitted: *prefix* and 192 random bits, URL-safe."""
        ticket = prefix + secrets.token_urlsafe(TICKET_BYTES)
        name = admission.identity.id
        self._make_room(name)
        digest = digest_of(ticket)
        self._tickets[digest] = _Ticket(admission, self.clock.monotonic() + TICKET_SECONDS)
        self._issued.setdefault(name, []).append(digest)
        return ticket

    def redeem(self, ticket: str) -> Admission | None:
        """Take *ticket* back, for good; None when it is none, or not any more."""
        return self.take_back(digest_of(ticket))

    def take_back(self, digest: bytes) -> Admission | None:
        """Take back the ticket with that hash."""
        found = self._take(digest)
        if found is None or found.expires_at <= self.clock.monotonic():
            return None
        return found.admission

    def _make_room(self, name: str) -> None:
        now = self.clock.monotonic()
        while self._tickets:
            digest, oldest = next(iter(self._tickets.items()))
            if oldest.expires_at > now and len(self._tickets) < self.most:
                break
            self._take(digest)
        if len(self._issued.get(name, ())) >= self.most_per_identity:
            self._take(self._issued[name][0])

    def _take(self, digest: bytes) -> _Ticket | None:
        found = self._tickets.pop(digest, None)
        if found is not None:
            name = found.admission.identity.id
            self._issued[name].remove(digest)
            if not self._issued[name]:
                del self._issued[name]
        return found

    def __len__(self) -> int:
        """How many are out."""
        return len(self._tickets)


def digest_of(ticket: str) -> bytes:
    """Return what a ticket is known by where it must not be read."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
