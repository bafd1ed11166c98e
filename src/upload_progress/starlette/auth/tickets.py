"""One-time tickets: credentials of a browser where it cannot set a header.

``WebSocket`` and ``EventSource`` carry no ``Authorization``, and a bearer token in a URL ends
up in logs (RFC 6750, section 2.3). A ticket in a log is worthless: it is valid once, for 30
seconds. Only its hash is kept, so that not even a memory dump of this process contains one.

A ticket begins with the name of the worker that issued it, and ends with the signature of that
worker (see ``_cluster.directory``). Another worker checks the signature, and redeems the ticket by
RPC; it asks once for each ticket, so that a request without a valid ticket causes no message. The
request with which the ticket was bought, and its secrets, stay at the worker that issued it:
when a stream is authenticated again, its worker asks the issuer. If no reply comes, a ticket is
not valid.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Final

from attrs import define, field, frozen

from upload_progress._cluster.messages import (
    IdentityReference,
    IdentityReply,
    TicketRequest,
    pack,
    unpack,
)
from upload_progress._internals import TrackerInternals
from upload_progress._runtime.worker import worker_of
from upload_progress.connection import Connection
from upload_progress.exceptions import StoreUnavailable
from upload_progress.identity import Identity, OwnerView
from upload_progress.interfaces import Clock
from upload_progress.starlette.auth.identity_resolver import IdentityResolver

__all__ = [
    "MAX_TICKETS",
    "MAX_TICKETS_PER_USER",
    "REVALIDATE_ATTEMPTS",
    "TICKET_BYTES",
    "TICKET_SECONDS",
    "AccessGrant",
    "TicketReference",
    "TicketService",
    "Tickets",
    "digest_of",
]

TICKET_SECONDS: Final = 30
TICKET_BYTES: Final = 24
MAX_TICKETS: Final = 10_000
MAX_TICKETS_PER_USER: Final = 50
REVALIDATE_ATTEMPTS: Final = 3


@frozen
class TicketReference:
    """A ticket that another worker issued, and whose holder it can authenticate again.

    Attributes:
        worker: The name of the worker that issued the ticket.
        digest: The hash of the ticket.
    """

    worker: str
    digest: bytes = field(repr=False)


@frozen
class AccessGrant:
    """The result of a successful authentication.

    Attributes:
        identity: The user.
        proof: The request that carried the credentials, or the ticket that stands for such a
            request to another worker. It is used to authenticate the user again.
        view: Whose uploads the request is about, if that is not the user: an operator has asked
            for them.
    """

    identity: Identity
    proof: Connection | TicketReference
    view: OwnerView | None = None

    @property
    def subject(self) -> Identity:
        """Whose uploads the request is about."""
        return self.view or self.identity


@frozen
class _IssuedTicket:
    grant: AccessGrant
    expires_at: float


@define(eq=False, repr=False)
class Tickets:
    """The valid tickets of this worker; beyond a maximum, the oldest become invalid.

    Attributes:
        clock: The clock.
        max_tickets: Maximum number of tickets.
        max_per_user: Maximum number of tickets of one user.
        make: Returns a new ticket: 192 random bits, URL-safe.
    """

    clock: Clock
    max_tickets: int = MAX_TICKETS
    max_per_user: int = MAX_TICKETS_PER_USER
    make: Callable[[], str] = field(
        default=lambda: secrets.token_urlsafe(TICKET_BYTES), kw_only=True
    )
    _tickets: dict[bytes, _IssuedTicket] = field(factory=dict, init=False)
    _digests_by_user: dict[str, list[bytes]] = field(factory=dict, init=False)

    def issue(self, grant: AccessGrant) -> str:
        """Return a new ticket for the user of *grant*."""
        ticket = self.make()
        user = grant.identity.id
        self._evict(user)
        digest = digest_of(ticket)
        self._tickets[digest] = _IssuedTicket(grant, self.clock.monotonic() + TICKET_SECONDS)
        self._digests_by_user.setdefault(user, []).append(digest)
        return ticket

    def redeem(self, ticket: str) -> AccessGrant | None:
        """Redeem *ticket*; None if it is not valid, or not any more."""
        return self.redeem_digest(digest_of(ticket))

    def redeem_digest(self, digest: bytes) -> AccessGrant | None:
        """Redeem the ticket with that hash; None if it is not valid, or not any more."""
        ticket = self._remove(digest)
        if ticket is None or ticket.expires_at <= self.clock.monotonic():
            return None
        return ticket.grant

    def _evict(self, user: str) -> None:
        """Remove the expired tickets, and the oldest where there are too many."""
        now = self.clock.monotonic()
        while self._tickets:
            digest, oldest = next(iter(self._tickets.items()))
            if oldest.expires_at > now and len(self._tickets) < self.max_tickets:
                break
            self._remove(digest)
        if len(self._digests_by_user.get(user, ())) >= self.max_per_user:
            self._remove(self._digests_by_user[user][0])

    def _remove(self, digest: bytes) -> _IssuedTicket | None:
        ticket = self._tickets.pop(digest, None)
        if ticket is not None:
            user = ticket.grant.identity.id
            self._digests_by_user[user].remove(digest)
            if not self._digests_by_user[user]:
                del self._digests_by_user[user]
        return ticket

    def __len__(self) -> int:
        """Return the number of tickets."""
        return len(self._tickets)


def digest_of(ticket: str) -> bytes:
    """Return the hash by which a ticket is stored and sent between workers."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()


_REDEEM: Final = "redeem_ticket"
_REVALIDATE: Final = "revalidate_ticket"


@frozen
class _RedeemedTicket:
    grant: AccessGrant
    kept_until: float


@define(eq=False, repr=False)
class TicketService:
    """Issues tickets, and redeems those of any worker. Only the issuer can redeem one, once.

    Attributes:
        internals: The parts of the tracker, such as the RPC between workers.
        tickets: The tickets of this worker.
        identities: Authenticates again the request with which a ticket was bought.
        kept_seconds: How long that request is kept after the last question of a worker.
    """

    internals: TrackerInternals
    tickets: Tickets
    identities: IdentityResolver
    kept_seconds: float
    _redeemed: dict[bytes, _RedeemedTicket] = field(factory=dict, init=False)
    _used: dict[bytes, None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Register the handlers of requests from other workers."""
        self.internals.rpc.register(_REDEEM, self._handle_redeem)
        self.internals.rpc.register(_REVALIDATE, self._handle_revalidate)

    def issue(self, grant: AccessGrant) -> str:
        """Return a new ticket for the user of *grant*."""
        return self.tickets.issue(grant)

    async def redeem(self, ticket: str) -> AccessGrant | None:
        """Redeem *ticket*; None if it is not valid, or not any more."""
        digest = digest_of(ticket)
        if worker_of(ticket) in {None, self.internals.worker.name}:
            return self.tickets.redeem_digest(digest)
        worker = await self.internals.directory.issuer_of("ticket", ticket)
        if worker is None or not self._is_first_use(digest):
            return None
        reference = TicketReference(worker, digest)
        request = TicketRequest(reference.digest)
        response = await self.internals.rpc.call(worker, _REDEEM, request)
        identity = None if response is None else _identity_in(response)
        return None if identity is None else AccessGrant(identity, reference)

    def _is_first_use(self, digest: bytes) -> bool:
        """Remember a ticket of another worker; return whether it was not used here before."""
        if digest in self._used:
            return False
        self._used[digest] = None
        if len(self._used) > MAX_TICKETS:
            del self._used[next(iter(self._used))]
        return True

    async def revalidate(self, reference: TicketReference) -> Identity | None:
        """Return the identity for which a ticket stands now; None if it has become invalid.

        Raises:
            StoreUnavailable: The worker that issued the ticket does not reply.
        """
        request = TicketRequest(reference.digest)
        for _ in range(REVALIDATE_ATTEMPTS):
            response = await self.internals.rpc.call(reference.worker, _REVALIDATE, request)
            if response is not None:
                return _identity_in(response)
        raise StoreUnavailable

    async def _handle_redeem(self, body: bytes) -> bytes | None:
        digest = unpack(body, TicketRequest).digest
        grant = self.tickets.redeem_digest(digest)
        if grant is None:
            return None
        self._keep(digest, grant)
        return pack(IdentityReply(IdentityReference.of(grant.identity)))

    async def _handle_revalidate(self, body: bytes) -> bytes | None:
        digest = unpack(body, TicketRequest).digest
        kept = self._redeemed.get(digest)
        if kept is None or isinstance(kept.grant.proof, TicketReference):
            return None
        identity = await self.identities.resolve(kept.grant.proof)
        if identity is not None:
            self._keep(digest, kept.grant)
        return pack(IdentityReply(None if identity is None else IdentityReference.of(identity)))

    def _keep(self, digest: bytes, grant: AccessGrant) -> None:
        """Keep *grant* for later questions; remove those that no worker asks about any more."""
        now = self.internals.config.clock.monotonic()
        self._redeemed.pop(digest, None)
        while self._redeemed:
            first, oldest = next(iter(self._redeemed.items()))
            if oldest.kept_until > now and len(self._redeemed) < MAX_TICKETS:
                break
            del self._redeemed[first]
        self._redeemed[digest] = _RedeemedTicket(grant, now + self.kept_seconds)


def _identity_in(response: bytes) -> Identity | None:
    reference = unpack(response, IdentityReply).who
    return None if reference is None else reference.identity()
