"""Authentication of requests, streams and WebSockets, at the start and again while they last."""

import anyio
from attrs import evolve, frozen

from upload_progress._model.models import is_upload_id
from upload_progress.connection import Connection
from upload_progress.exceptions import StoreUnavailable, UploadNotFound
from upload_progress.identity import CapabilityIdentity, Identity
from upload_progress.interfaces import Clock
from upload_progress.starlette.auth.identity_resolver import IdentityResolver
from upload_progress.starlette.auth.origins import Origins
from upload_progress.starlette.auth.tickets import AccessGrant, TicketReference, TicketService
from upload_progress.starlette.auth.views import view_of
from upload_progress.starlette.http import (
    AUTHENTICATION_UNAVAILABLE,
    FOREIGN_ORIGIN,
    UNAUTHENTICATED,
    ErrorResponse,
    RequestRefused,
)

__all__ = ["RequestAuthenticator", "check_upload_id"]


def check_upload_id(identity: Identity, upload_id: str) -> str:
    """Return *upload_id* if *identity* may ask for it.

    Raises:
        UploadNotFound: It is not a valid upload id, or too short to be a capability.
    """
    if not is_upload_id(upload_id) or not identity.accepts(upload_id):
        raise UploadNotFound
    return upload_id


def _is_same_user(one: Identity, other: Identity) -> bool:
    """Tell whether two identities are of the same user; their expiry may differ."""
    return type(one) is type(other) and (one.id, one.is_operator) == (other.id, other.is_operator)


def _with_view(grant: AccessGrant, connection: Connection) -> AccessGrant:
    view = view_of(grant.identity, connection)
    return grant if view is None else evolve(grant, view=view)


@frozen(eq=False, repr=False)
class RequestAuthenticator:
    """Grants or refuses access to the routes.

    Attributes:
        identities: Calls the application's ``authenticate``.
        origins: The origins whose pages may act for a user.
        tickets: Redeems tickets.
        clock: The clock.
        revalidate_seconds: Interval after which a stream or WebSocket is authenticated again.
    """

    identities: IdentityResolver
    origins: Origins
    tickets: TicketService
    clock: Clock
    revalidate_seconds: float

    async def authenticate(self, connection: Connection) -> AccessGrant:
        """Authenticate a request.

        Raises:
            RequestRefused: The request has no valid credentials (401), comes from a page of a
                foreign origin (403), or cannot be authenticated at the moment (503).
        """
        is_write = connection.method in {"POST", "DELETE"}
        if is_write and not self.origins.permits_write(connection):
            raise self._foreign_origin()
        return _with_view(await self._by_credentials(connection), connection)

    async def authenticate_stream(self, connection: Connection) -> AccessGrant:
        """Authenticate a request for an event stream, by ticket or by credentials.

        Raises:
            RequestRefused: As for ``authenticate``, or the ticket is not valid (401).
        """
        if not self.origins.permits_read(connection):
            raise self._foreign_origin()
        grant = await self._by_ticket(connection) or await self._by_credentials(connection)
        return _with_view(grant, connection)

    async def authenticate_socket(self, connection: Connection) -> AccessGrant:
        """Authenticate the handshake of a WebSocket, by ticket or by credentials.

        Raises:
            RequestRefused: As for ``authenticate``, or the ticket is not valid (401).
        """
        has_ticket = "ticket" in connection.query
        if not self.origins.permits_socket(connection, has_ticket=has_ticket):
            raise self._foreign_origin()
        grant = await self._by_ticket(connection) or await self._by_credentials(connection)
        return _with_view(grant, connection)

    def _foreign_origin(self) -> RequestRefused:
        self.identities.log_limiter.log_warning(
            "a page of another origin was refused; if it is yours, add it to allowed_origins",
            effect="the request is refused with 403",
        )
        return RequestRefused(FOREIGN_ORIGIN)

    async def _by_ticket(self, connection: Connection) -> AccessGrant | None:
        ticket = connection.query.get("ticket")
        if ticket is None:
            return None
        grant = await self.tickets.redeem(ticket)
        if grant is None:
            raise self.identities.unauthenticated(connection)
        # Credentials of another user contradict the ticket. An identity that is not listable
        # names no user.
        other = await self.identities.resolve(connection)
        if other is not None and other.listable and not _is_same_user(other, grant.identity):
            raise self.identities.unauthenticated(connection)
        # The worker that issued the ticket does not tell by what the limits count its holder.
        if isinstance(other, CapabilityIdentity) and isinstance(grant.identity, CapabilityIdentity):
            return evolve(grant, identity=evolve(grant.identity, client=other.client))
        return grant

    async def _by_credentials(self, connection: Connection) -> AccessGrant:
        identity = await self.identities.resolve(connection)
        if identity is None:
            raise self.identities.unauthenticated(connection)
        return AccessGrant(identity, connection)

    async def wait_until_expired(self, grant: AccessGrant) -> ErrorResponse:
        """Wait until *grant* is no longer valid; return the reason.

        It is checked every ``revalidate_seconds``, and when the identity expires.
        """
        expires_at = grant.identity.expires_at
        while True:
            delay = self.revalidate_seconds
            if expires_at is not None:
                delay = min(delay, expires_at - self.clock.time())
            await anyio.sleep(max(delay, 0.0))
            try:
                identity = await self._revalidated(grant)
            except RequestRefused as refused:
                return refused.response
            if identity is None or not _is_same_user(identity, grant.identity):
                return UNAUTHENTICATED
            expires_at = identity.expires_at

    async def _revalidated(self, grant: AccessGrant) -> Identity | None:
        if not isinstance(grant.proof, TicketReference):
            return await self.identities.resolve(grant.proof)
        try:
            return await self.tickets.revalidate(grant.proof)
        except StoreUnavailable:
            raise RequestRefused(AUTHENTICATION_UNAVAILABLE) from None
