"""The door: who is asking, from which page, and is that still so?

``authenticate`` is the application's code. It may raise, hang, or return nonsense; then nobody
is let in, nobody hears why, and the log has one line about it without a secret.
"""

import inspect
from typing import Final

import anyio
from attrs import define

from upload_progress._model.models import is_upload_id
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.connection import Connection
from upload_progress.exceptions import StoreUnavailable, UploadNotFound
from upload_progress.identity import Identity
from upload_progress.interfaces import Authenticate, Clock
from upload_progress.starlette.auth.authenticators import challenges_of
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.auth.tickets import AccessGrant, TicketReference, TicketService
from upload_progress.starlette.connections import is_same_identity
from upload_progress.starlette.http import (
    FOREIGN_ORIGIN,
    UNAUTHENTICATED,
    UNCHECKED,
    Problem,
    Refused,
)

__all__ = [
    "AUTHENTICATE_SECONDS",
    "RequestAuthenticator",
    "check_id",
]

AUTHENTICATE_SECONDS: Final = 5.0
_NOT_FOR_SCRIPTS: Final = ("basic", "digest", "negotiate")


def check_id(identity: Identity, upload_id: str) -> str:
    """Return *upload_id*, if this identity may ask for it.

    Raises:
        UploadNotFound: It is no upload id, or for a capability too easy to guess.
    """
    if not is_upload_id(upload_id) or not identity.accepts(upload_id):
        raise UploadNotFound
    return upload_id


@define(eq=False, repr=False)
class RequestAuthenticator:
    """Lets requests in, or refuses them.

    Attributes:
        revalidate_seconds: How often a stream or socket must show anew who watches.
    """

    authenticate: Authenticate
    origins: Origins
    tickets: TicketService
    clock: Clock
    log_limiter: LogLimiter
    revalidate_seconds: float

    def __attrs_post_init__(self) -> None:
        """Let other workers ask about those who were let in here."""
        self.tickets.ask_again = self._ask

    async def admit(self, connection: Connection) -> AccessGrant:
        """Let a request in.

        Raises:
            Refused: Nobody is known to ask, the origin is foreign, or neither can be told.
        """
        is_write = connection.method in {"POST", "DELETE"}
        if is_write and not self.origins.permits_write(connection):
            raise Refused(FOREIGN_ORIGIN)
        return await self._by_credentials(connection)

    async def admit_stream(self, connection: Connection) -> AccessGrant:
        """Let an event stream in, by ticket or as any request.

        Raises:
            Refused: As for ``admit``, or the ticket is void.
        """
        if not self.origins.permits_read(connection):
            raise Refused(FOREIGN_ORIGIN)
        return await self._by_ticket(connection) or await self._by_credentials(connection)

    async def admit_socket(self, connection: Connection) -> AccessGrant:
        """Let a WebSocket in, by ticket or as any request.

        Raises:
            Refused: As for ``admit``, or the ticket is void.
        """
        has_ticket = "ticket" in connection.query
        if not self.origins.permits_socket(connection, has_ticket=has_ticket):
            raise Refused(FOREIGN_ORIGIN)
        return await self._by_ticket(connection) or await self._by_credentials(connection)

    async def _by_ticket(self, connection: Connection) -> AccessGrant | None:
        ticket = connection.query.get("ticket")
        if ticket is None:
            return None
        grant = await self.tickets.redeem(ticket)
        if grant is None:
            raise self._refusal(connection)
        other = await self._ask(connection)
        if other is not None and not is_same_identity(other, grant.identity) and other.listable:
            raise self._refusal(connection)
        return grant

    async def _ask_again(self, grant: AccessGrant) -> Identity | None:
        if not isinstance(grant.proof, TicketReference):
            return await self._ask(grant.proof)
        try:
            return await self.tickets.vouch(grant.proof)
        except StoreUnavailable:
            raise Refused(UNCHECKED) from None

    async def _by_credentials(self, connection: Connection) -> AccessGrant:
        identity = await self._ask(connection)
        if identity is None:
            raise self._refusal(connection)
        return AccessGrant(identity, connection)

    async def _ask(self, connection: Connection) -> Identity | None:
        try:
            answer = self.authenticate(connection)
            if inspect.isawaitable(answer):
                with anyio.fail_after(AUTHENTICATE_SECONDS):
                    answer = await answer
            return self._current(answer)
        except Exception as error:  # noqa: BLE001  # a hook's failure lets nobody in
            self.log_limiter.warn("authenticate failed or took too long: nobody is let in", error)
            raise Refused(UNCHECKED) from None

    def _current(self, answer: object) -> Identity | None:
        """Return the identity, unless its time is over."""
        if answer is None:
            return None
        if not isinstance(answer, Identity):
            raise TypeError
        ends = answer.expires_at
        return answer if ends is None or self.clock.time() < ends else None

    def _refusal(self, connection: Connection) -> Refused:
        """Return the 401, without a challenge that would open a dialog above a web page."""
        challenges = challenges_of(self.authenticate)
        if connection.header("sec-fetch-dest") == "empty":
            challenges = tuple(
                each for each in challenges if not each.lower().startswith(_NOT_FOR_SCRIPTS)
            )
        value = ", ".join(challenges) or "Bearer"
        return Refused(UNAUTHENTICATED.with_headers({"www-authenticate": value}))

    async def lapse(self, grant: AccessGrant) -> Problem:
        """Wait until *admission* is not good any more; return why."""
        ends = grant.identity.expires_at
        while True:
            left = self.revalidate_seconds
            if ends is not None:
                left = min(left, ends - self.clock.time())
            await anyio.sleep(max(left, 0.0))
            try:
                identity = await self._ask_again(grant)
            except Refused as refused:
                return refused.problem
            if identity is None or not is_same_identity(identity, grant.identity):
                return UNAUTHENTICATED
            ends = identity.expires_at
