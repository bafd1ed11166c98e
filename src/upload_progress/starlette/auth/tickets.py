"""One-shot tickets: what a browser shows where it can set no header.

``WebSocket`` and ``EventSource`` carry no ``Authorization``, and a bearer token in a URL ends
up in logs (RFC 6750, section 2.3). A ticket in a log is worth nothing: it is good once, for
half a minute. Only its hash is kept, so that not even a dump of this process holds one.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, field, frozen

from upload_progress._cluster.messages import (
    IdentityReference,
    IdentityReply,
    TicketRequest,
    pack,
    read,
)
from upload_progress._cluster.worker import SEPARATOR, worker_of
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    StoreUnavailable,
)
from upload_progress.identity import Identity
from upload_progress.interfaces import Clock
from upload_progress.starlette.connections import (
    TRIES,
)
from upload_progress.tracker import ProgressTracker, internals_of

__all__ = [
    "AccessGrant",
    "MOST_PER_IDENTITY",
    "MOST_TICKETS",
    "TICKET_BYTES",
    "TICKET_SECONDS",
    "TicketService",
    "Tickets",
    "TicketReference",
    "digest_of",
]

TICKET_SECONDS: Final = 30
TICKET_BYTES: Final = 24
MOST_TICKETS: Final = 10_000
MOST_PER_IDENTITY: Final = 50


@frozen
class TicketReference:
    """Stands for a request that showed to another worker who is asking.

    Attributes:
        worker: Which.
        digest: By which ticket that worker knows it.
    """

    worker: str
    digest: bytes = field(repr=False)


@frozen
class AccessGrant:
    """Somebody was let in.

    Attributes:
        identity: Who.
        proof: The request that showed it, or who has seen that: asked again when it is to be
            shown once more.
    """

    identity: Identity
    proof: Connection | TicketReference


@frozen
class _Ticket:
    grant: AccessGrant
    expires_at: float


@define(eq=False, repr=False)
class Tickets:
    """Issues tickets and takes them back; of too many the oldest are void."""

    clock: Clock
    most: int = MOST_TICKETS
    most_per_identity: int = MOST_PER_IDENTITY
    _tickets: dict[bytes, _Ticket] = field(factory=dict, init=False)
    _issued: dict[str, list[bytes]] = field(factory=dict, init=False)

    def issue(self, grant: AccessGrant, *, prefix: str = "") -> str:
        """Return a new ticket for who was admitted: *prefix* and 192 random bits, URL-safe."""
        ticket = prefix + secrets.token_urlsafe(TICKET_BYTES)
        name = grant.identity.id
        self._make_room(name)
        digest = digest_of(ticket)
        self._tickets[digest] = _Ticket(grant, self.clock.monotonic() + TICKET_SECONDS)
        self._issued.setdefault(name, []).append(digest)
        return ticket

    def redeem(self, ticket: str) -> AccessGrant | None:
        """Take *ticket* back, for good; None when it is none, or not any more."""
        return self.take_back(digest_of(ticket))

    def take_back(self, digest: bytes) -> AccessGrant | None:
        """Take back the ticket with that hash."""
        found = self._take(digest)
        if found is None or found.expires_at <= self.clock.monotonic():
            return None
        return found.grant

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
            name = found.grant.identity.id
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


# FROM starlette.afar: What is on other workers: sockets to speak on, and tickets to take back.
#
# A socket's name and a ticket begin with the name of the worker that has them; the rest is as
# unguessable as before. Another worker asks that one, which looks at who asks as it would at a
# request of its own. Where no answer comes, there is no such socket, and the ticket is void.
#
_REDEEM: Final = "ticket"
_VOUCH: Final = "vouch"


@frozen
class _Redeemed:
    grant: AccessGrant
    kept_until: float


@define(eq=False, repr=False)
class TicketService:
    """Takes tickets back, whichever worker issued them, each once: only its issuer can.

    What showed who had a ticket, a request with its secrets, stays where it was shown: a
    stream let in by it elsewhere asks there whether it is still good.

    Attributes:
        kept_seconds: How long an admission is kept for a worker that does not ask again.
        ask_again: Says who an admission is for, by asking the application again.
    """

    tracker: ProgressTracker
    tickets: Tickets
    kept_seconds: float
    ask_again: Callable[[Connection], Awaitable[Identity | None]] = field(init=False)
    _redeemed: dict[bytes, _Redeemed] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Do for other workers what only this one can."""
        internals_of(self.tracker).rpc.on(_REDEEM, self._redeem_by_letter)
        internals_of(self.tracker).rpc.on(_VOUCH, self._vouch_by_letter)

    def issue(self, grant: AccessGrant) -> str:
        """Return a new ticket for who was admitted."""
        return self.tickets.issue(grant, prefix=self.tracker.worker + SEPARATOR)

    async def redeem(self, ticket: str) -> AccessGrant | None:
        """Take *ticket* back, for good; None when it is none, or not any more."""
        worker = worker_of(ticket)
        if worker is None or worker == self.tracker.worker:
            return self.tickets.redeem(ticket)
        reference = TicketReference(worker, digest_of(ticket))
        request = TicketRequest(reference.digest)
        answer = await internals_of(self.tracker).rpc.ask(worker, _REDEEM, request)
        who = None if answer is None else read(answer, IdentityReply).who
        identity = None if who is None else who.identity()
        return None if identity is None else AccessGrant(identity, reference)

    async def vouch(self, reference: TicketReference) -> Identity | None:
        """Return who is let in by *voucher* now; None for nobody any more.

        Raises:
            StoreUnavailable: The worker that can tell does not.
        """
        request = TicketRequest(reference.digest)
        for _ in range(TRIES):
            answer = await internals_of(self.tracker).rpc.ask(reference.worker, _VOUCH, request)
            if answer is not None:
                who = read(answer, IdentityReply).who
                return None if who is None else who.identity()
        raise StoreUnavailable

    async def _redeem_by_letter(self, body: bytes) -> bytes | None:
        digest = read(body, TicketRequest).digest
        grant = self.tickets.take_back(digest)
        if grant is None:
            return None
        self._keep(digest, grant)
        return pack(IdentityReply(IdentityReference.of(grant.identity)))

    async def _vouch_by_letter(self, body: bytes) -> bytes | None:
        digest = read(body, TicketRequest).digest
        kept = self._redeemed.get(digest)
        if kept is None or isinstance(kept.grant.proof, TicketReference):
            return None
        identity = await self.ask_again(kept.grant.proof)
        if identity is not None:
            self._keep(digest, kept.grant)
        return pack(IdentityReply(None if identity is None else IdentityReference.of(identity)))

    def _keep(self, digest: bytes, grant: AccessGrant) -> None:
        now = self.tracker.config.clock.monotonic()
        self._redeemed.pop(digest, None)
        while self._redeemed:
            first, oldest = next(iter(self._redeemed.items()))
            if oldest.kept_until > now and len(self._redeemed) < MOST_TICKETS:
                break
            del self._redeemed[first]
        self._redeemed[digest] = _Redeemed(grant, now + self.kept_seconds)
