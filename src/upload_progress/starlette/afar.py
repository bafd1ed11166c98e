"""What is on other workers: sockets to speak on, and tickets to take back.

A socket's name and a ticket begin with the name of the worker that has them; the rest is as
unguessable as before. Another worker asks that one, which looks at who asks as it would at a
request of its own. Where no answer comes, there is no such socket, and the ticket is void.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from attrs import define, field, frozen

from upload_progress.connection import Connection
from upload_progress.errors import (
    QuotaExceeded,
    StoreUnavailable,
    UploadNotFound,
    UploadProgressError,
)
from upload_progress.identity import Identity
from upload_progress.letters import Outcome, SocketPlea, TicketPlea, Vouched, Who, pack, read
from upload_progress.starlette.rooms import Guest, Rooms
from upload_progress.starlette.tickets import (
    MOST_TICKETS,
    Admission,
    Tickets,
    Voucher,
    digest_of,
)
from upload_progress.tracker import ProgressTracker
from upload_progress.worker import SEPARATOR, worker_of

__all__ = ["TRIES", "Sockets", "TicketOffice"]

TRIES: Final = 3
"""How often another worker is asked whether somebody is still let in, before that is given up."""

_SUBSCRIBE: Final = "subscribe"
_UNSUBSCRIBE: Final = "unsubscribe"
_REDEEM: Final = "ticket"
_VOUCH: Final = "vouch"
_DONE: Final = Outcome()
_NOT_FOUND: Final = Outcome("not_found")
_UNAVAILABLE: Final = Outcome("unavailable")


@define(eq=False, repr=False)
class Sockets:
    """Adds uploads to open sockets, and takes them off, on whichever worker they are."""

    tracker: ProgressTracker
    rooms: Rooms

    def __attrs_post_init__(self) -> None:
        """Do for other workers what only this one can."""
        self.tracker.correspondence.on(_SUBSCRIBE, self._add_by_letter)
        self.tracker.correspondence.on(_UNSUBSCRIBE, self._drop_by_letter)

    async def add(self, client_id: str, identity: Identity, upload_id: str) -> None:
        """Show an upload on a socket, too.

        Raises:
            UploadNotFound: There is no such socket, or no such upload, of this user.
            QuotaExceeded: The socket follows as many as it may, or reads too slowly.
            StoreUnavailable: The store does not answer.
        """
        if self._is_here(client_id):
            return await self._add(self.rooms.find(client_id, identity), upload_id)
        return await self._ask(_SUBSCRIBE, client_id, identity, upload_id)

    async def drop(self, client_id: str, identity: Identity, upload_id: str | None) -> None:
        """Take an upload off a socket; None for all of them.

        Raises:
            UploadNotFound: There is no such socket of this user.
        """
        if self._is_here(client_id):
            return self.rooms.find(client_id, identity).drop(upload_id)
        return await self._ask(_UNSUBSCRIBE, client_id, identity, upload_id)

    def _is_here(self, client_id: str) -> bool:
        return worker_of(client_id) in {None, self.tracker.worker}

    async def _add(self, guest: Guest, upload_id: str) -> None:
        guest.add(await self.tracker.get(upload_id, owner=guest.identity))

    async def _ask(
        self, kind: str, client_id: str, identity: Identity, upload_id: str | None
    ) -> None:
        plea = SocketPlea(client_id, Who.of(identity), upload_id)
        worker = worker_of(client_id) or ""
        answer = await self.tracker.correspondence.ask(worker, kind, plea)
        outcome = _NOT_FOUND if answer is None else read(answer, Outcome)
        if outcome.limit:
            raise QuotaExceeded(outcome.limit, outcome.allowed)
        if outcome == _UNAVAILABLE:
            raise StoreUnavailable
        if outcome != _DONE:
            raise UploadNotFound

    async def _add_by_letter(self, body: bytes) -> bytes | None:
        plea = read(body, SocketPlea)
        guest = self._guest(plea)
        if guest is None or plea.upload_id is None:
            return None
        try:
            await self._add(guest, plea.upload_id)
        except UploadProgressError as error:
            return pack(_outcome_of(error))
        return pack(_DONE)

    async def _drop_by_letter(self, body: bytes) -> bytes | None:
        plea = read(body, SocketPlea)
        guest = self._guest(plea)
        if guest is None:
            return None
        guest.drop(plea.upload_id)
        return pack(_DONE)

    def _guest(self, plea: SocketPlea) -> Guest | None:
        """Return the socket, if it is theirs who ask."""
        guest = self.rooms.get(plea.client_id)
        return guest if guest is not None and plea.who.is_the_same(guest.identity) else None


def _outcome_of(error: UploadProgressError) -> Outcome:
    if isinstance(error, QuotaExceeded):
        return Outcome("quota", error.limit, error.allowed)
    return _UNAVAILABLE if isinstance(error, StoreUnavailable) else _NOT_FOUND


@frozen
class _Redeemed:
    admission: Admission
    kept_until: float


@define(eq=False, repr=False)
class TicketOffice:
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
        self.tracker.correspondence.on(_REDEEM, self._redeem_by_letter)
        self.tracker.correspondence.on(_VOUCH, self._vouch_by_letter)

    def issue(self, admission: Admission) -> str:
        """Return a new ticket for who was admitted."""
        return self.tickets.issue(admission, prefix=self.tracker.worker + SEPARATOR)

    async def redeem(self, ticket: str) -> Admission | None:
        """Take *ticket* back, for good; None when it is none, or not any more."""
        worker = worker_of(ticket)
        if worker is None or worker == self.tracker.worker:
            return self.tickets.redeem(ticket)
        voucher = Voucher(worker, digest_of(ticket))
        plea = TicketPlea(voucher.digest)
        answer = await self.tracker.correspondence.ask(worker, _REDEEM, plea)
        who = None if answer is None else read(answer, Vouched).who
        identity = None if who is None else who.identity()
        return None if identity is None else Admission(identity, voucher)

    async def vouch(self, voucher: Voucher) -> Identity | None:
        """Return who is let in by *voucher* now; None for nobody any more.

        Raises:
            StoreUnavailable: The worker that can tell does not.
        """
        plea = TicketPlea(voucher.digest)
        for _ in range(TRIES):
            answer = await self.tracker.correspondence.ask(voucher.worker, _VOUCH, plea)
            if answer is not None:
                who = read(answer, Vouched).who
                return None if who is None else who.identity()
        raise StoreUnavailable

    async def _redeem_by_letter(self, body: bytes) -> bytes | None:
        digest = read(body, TicketPlea).digest
        admission = self.tickets.take_back(digest)
        if admission is None:
            return None
        self._keep(digest, admission)
        return pack(Vouched(Who.of(admission.identity)))

    async def _vouch_by_letter(self, body: bytes) -> bytes | None:
        digest = read(body, TicketPlea).digest
        kept = self._redeemed.get(digest)
        if kept is None or isinstance(kept.admission.proof, Voucher):
            return None
        identity = await self.ask_again(kept.admission.proof)
        if identity is not None:
            self._keep(digest, kept.admission)
        return pack(Vouched(None if identity is None else Who.of(identity)))

    def _keep(self, digest: bytes, admission: Admission) -> None:
        now = self.tracker.clock.monotonic()
        self._redeemed.pop(digest, None)
        while self._redeemed:
            first, oldest = next(iter(self._redeemed.items()))
            if oldest.kept_until > now and len(self._redeemed) < MOST_TICKETS:
                break
            del self._redeemed[first]
        self._redeemed[digest] = _Redeemed(admission, now + self.kept_seconds)
