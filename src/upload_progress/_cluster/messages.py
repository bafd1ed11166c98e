"""What workers write to each other: letters, and what is in them.

A letter is a command for another worker, or the answer to one. It is small (below 4 KiB, so
that every broker carries it), and holds no password and no ticket: who is meant is named, and a
ticket by its hash. A letter may be lost; whoever asked then goes on without an answer.
"""

from typing import Final, TypeVar

import msgspec
from attrs import frozen

from upload_progress.exceptions import InvalidValue
from upload_progress.identity import CapabilityIdentity, Identity

__all__ = [
    "ANSWER",
    "CancelRequest",
    "RpcMessage",
    "SocketReply",
    "SocketRequest",
    "TicketRequest",
    "IdentityReply",
    "IdentityReference",
    "pack",
    "read",
]

T = TypeVar("T")

ANSWER: Final = "answer"

_packer: Final = msgspec.msgpack.Encoder()


@frozen(slots=False)
class RpcMessage:
    """A command, or an answer.

    Attributes:
        kind: What is asked; ``answer`` for an answer.
        id: Chosen by who asks, and repeated by who answers.
        reply_to: The worker that asks; empty in an answer.
        body: What it says, packed for itself; empty in an answer that says *not here*.
    """

    kind: str
    id: str
    reply_to: str = ""
    body: bytes = b""


@frozen(slots=False)
class IdentityReference:
    """An identity on its way; only those of this library can be made again from it.

    Attributes:
        kind: Its class: two users of different kinds are never the same.
    """

    kind: str
    id: str
    expires_at: float | None = None

    @classmethod
    def of(cls, identity: Identity) -> "IdentityReference":
        """Name *identity*."""
        kind = type(identity)
        return cls(f"{kind.__module__}.{kind.__qualname__}", identity.id, identity.expires_at)

    def is_the_same(self, identity: Identity) -> bool:
        """Tell whether *identity* is the same user; when it ends does not matter."""
        other = IdentityReference.of(identity)
        return (self.kind, self.id) == (other.kind, other.id)

    def identity(self) -> Identity | None:
        """Return the identity; None for one of the application's own making."""
        for kind in (Identity, CapabilityIdentity):
            made = kind(id=self.id, expires_at=self.expires_at)
            if self.is_the_same(made):
                return made
        return None


@frozen(slots=False)
class CancelRequest:
    """Cut the transfer of that upload, if you receive it."""

    owner: str
    upload_id: str


@frozen(slots=False)
class SocketRequest:
    """Put an upload onto a socket of yours, or take it off; None takes all of them off."""

    client_id: str
    who: IdentityReference
    upload_id: str | None


@frozen(slots=False)
class TicketRequest:
    """Take back the ticket with that hash; or say whether who had it is still let in."""

    digest: bytes


@frozen(slots=False)
class SocketReply:
    """What came of a plea about a socket.

    Attributes:
        problem: What is wrong; empty for nothing.
        limit: Which limit is reached, if that is the problem.
        allowed: How many that allows.
    """

    problem: str = ""
    limit: str = ""
    allowed: int = 0


@frozen(slots=False)
class IdentityReply:
    """Who is let in; None for nobody any more."""

    who: IdentityReference | None = None


def pack(value: object) -> bytes:
    """Encode a letter, or what is in one."""
    return _packer.encode(value)


def read(data: bytes, kind: type[T]) -> T:
    """Decode what ``pack`` made; what a newer worker added is ignored.

    Raises:
        InvalidValue: It is nothing of that kind.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError) as error:
        raise InvalidValue("letter", type(error).__name__) from None
