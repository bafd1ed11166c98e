"""The open sockets and streams: how many each has, and which socket has which ``client_id``."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Protocol

from attrs import define, field

from upload_progress._cluster.messages import (
    IdentityReference,
    SocketReply,
    SocketRequest,
    pack,
    read,
)
from upload_progress._cluster.worker import worker_of
from upload_progress._model.models import UploadProgress
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    QuotaExceeded,
    StoreUnavailable,
    UploadNotFound,
    UploadProgressError,
)
from upload_progress.identity import Identity
from upload_progress.tracker import ProgressTracker, internals_of

__all__ = [
    "Guest",
    "ConnectionRegistry",
    "Sockets",
    "TRIES",
    "is_same_identity",
    "seat_name",
]


class Guest(Protocol):
    """An open socket, as another request sees it."""

    client_id: str

    @property
    def identity(self) -> Identity:
        """Who holds it."""
        ...

    def add(self, progress: UploadProgress) -> None:
        """Follow that upload, too, and show where it stands."""

    def drop(self, upload_id: str | None) -> None:
        """Follow that upload no longer; None for all of them."""


@define(eq=False, repr=False)
class ConnectionRegistry:
    """Counts watchers by who they are, and finds sockets by their unguessable name."""

    most_per_identity: int
    _seats: dict[str, int] = field(factory=dict, init=False)
    _guests: dict[str, Guest] = field(factory=dict, init=False)

    @contextmanager
    def seat(self, name: str) -> Generator[None]:
        """Count one more watcher of *name* while the block runs.

        Raises:
            QuotaExceeded: There are as many as may be.
        """
        taken = self._seats.get(name, 0)
        if taken >= self.most_per_identity:
            raise QuotaExceeded("sockets_per_owner", self.most_per_identity)
        self._seats[name] = taken + 1
        try:
            yield
        finally:
            self._leave(name)

    def _leave(self, name: str) -> None:
        self._seats[name] -= 1
        if not self._seats[name]:
            del self._seats[name]

    @contextmanager
    def hosting(self, guest: Guest) -> Generator[None]:
        """Let *guest* be found while the block runs."""
        self._guests[guest.client_id] = guest
        try:
            yield
        finally:
            del self._guests[guest.client_id]

    def get(self, client_id: str) -> Guest | None:
        """Return the socket of that name, whosever it is; None where there is none."""
        return self._guests.get(client_id)

    def find(self, client_id: str, identity: Identity) -> Guest:
        """Return the socket of that name.

        Raises:
            UploadNotFound: There is none, or it is of somebody else.
        """
        guest = self._guests.get(client_id)
        if guest is None or not is_same_identity(guest.identity, identity):
            raise UploadNotFound
        return guest


def is_same_identity(one: Identity, other: Identity) -> bool:
    """Tell whether both are the same user; when it ends does not matter."""
    return type(one) is type(other) and one.id == other.id


def seat_name(identity: Identity, connection: Connection, upload_id: str | None) -> str:
    """Return whose watchers are counted together; of nobody in particular, by address."""
    if identity.listable:
        return identity.id
    if upload_id is not None:
        return identity.owner_of(upload_id)
    client = connection.scope.get("client") or ("",)
    return identity.owner_of(f"@{client[0]}")


TRIES: Final = 3
"""How often another worker is asked whether somebody is still let in, before that is given up."""

_SUBSCRIBE: Final = "subscribe"
_UNSUBSCRIBE: Final = "unsubscribe"
_DONE: Final = SocketReply()
_NOT_FOUND: Final = SocketReply("not_found")
_UNAVAILABLE: Final = SocketReply("unavailable")


@define(eq=False, repr=False)
class Sockets:
    """Adds uploads to open sockets, and takes them off, on whichever worker they are."""

    tracker: ProgressTracker
    connections: ConnectionRegistry

    def __attrs_post_init__(self) -> None:
        """Do for other workers what only this one can."""
        internals_of(self.tracker).rpc.on(_SUBSCRIBE, self._add_by_letter)
        internals_of(self.tracker).rpc.on(_UNSUBSCRIBE, self._drop_by_letter)

    async def add(self, client_id: str, identity: Identity, upload_id: str) -> None:
        """Show an upload on a socket, too.

        Raises:
            UploadNotFound: There is no such socket, or no such upload, of this user.
            QuotaExceeded: The socket follows as many as it may, or reads too slowly.
            StoreUnavailable: The store does not answer.
        """
        if self._is_here(client_id):
            return await self._add(self.connections.find(client_id, identity), upload_id)
        return await self._ask(_SUBSCRIBE, client_id, identity, upload_id)

    async def drop(self, client_id: str, identity: Identity, upload_id: str | None) -> None:
        """Take an upload off a socket; None for all of them.

        Raises:
            UploadNotFound: There is no such socket of this user.
        """
        if self._is_here(client_id):
            return self.connections.find(client_id, identity).drop(upload_id)
        return await self._ask(_UNSUBSCRIBE, client_id, identity, upload_id)

    def _is_here(self, client_id: str) -> bool:
        return worker_of(client_id) in {None, self.tracker.worker}

    async def _add(self, guest: Guest, upload_id: str) -> None:
        guest.add(await self.tracker.get(upload_id, owner=guest.identity))

    async def _ask(
        self, kind: str, client_id: str, identity: Identity, upload_id: str | None
    ) -> None:
        request = SocketRequest(client_id, IdentityReference.of(identity), upload_id)
        worker = worker_of(client_id) or ""
        answer = await internals_of(self.tracker).rpc.ask(worker, kind, request)
        reply = _NOT_FOUND if answer is None else read(answer, SocketReply)
        if reply.limit:
            raise QuotaExceeded(reply.limit, reply.allowed)
        if reply == _UNAVAILABLE:
            raise StoreUnavailable
        if reply != _DONE:
            raise UploadNotFound

    async def _add_by_letter(self, body: bytes) -> bytes | None:
        request = read(body, SocketRequest)
        guest = self._guest(request)
        if guest is None or request.upload_id is None:
            return None
        try:
            await self._add(guest, request.upload_id)
        except UploadProgressError as error:
            return pack(_outcome_of(error))
        return pack(_DONE)

    async def _drop_by_letter(self, body: bytes) -> bytes | None:
        request = read(body, SocketRequest)
        guest = self._guest(request)
        if guest is None:
            return None
        guest.drop(request.upload_id)
        return pack(_DONE)

    def _guest(self, request: SocketRequest) -> Guest | None:
        """Return the socket, if it is theirs who ask."""
        guest = self.connections.get(request.client_id)
        return guest if guest is not None and request.who.is_the_same(guest.identity) else None


def _outcome_of(error: UploadProgressError) -> SocketReply:
    if isinstance(error, QuotaExceeded):
        return SocketReply("quota", error.limit, error.allowed)
    return _UNAVAILABLE if isinstance(error, StoreUnavailable) else _NOT_FOUND
