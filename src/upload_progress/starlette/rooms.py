"""The open sockets and streams: how many each has, and which socket has which ``client_id``."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from attrs import define, field

from upload_progress.connection import Connection
from upload_progress.errors import QuotaExceeded, UploadNotFound
from upload_progress.identity import Identity
from upload_progress.model import UploadProgress

__all__ = ["Guest", "Rooms", "is_same_identity", "seat_name"]


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
class Rooms:
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
