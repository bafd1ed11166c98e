"""The messages between workers: requests, and replies to them.

A message is small (at most 4 KiB, so that every broker carries it), and contains no password and no
ticket: a user is named by id, a ticket by its hash. A message may be lost; the caller then goes on
without a reply.

Each message is in an envelope with the namespace of its system, and with a tag (HMAC-SHA-256) if
the workers share a secret. The tag covers the recipient too, so that a message that was recorded
cannot be sent to another worker.
"""

import hmac
from typing import Final, TypeVar

import msgspec
from attrs import frozen

from upload_progress.exceptions import InvalidValue
from upload_progress.identity import CapabilityIdentity, Identity, OwnerView

__all__ = [
    "REPLY",
    "CancelReply",
    "CancelRequest",
    "IdentityReference",
    "IdentityReply",
    "MessageSeal",
    "ResourceBinding",
    "RpcMessage",
    "SocketReply",
    "SocketRequest",
    "SupersedeRequest",
    "TicketRequest",
    "WorkerIntroduction",
    "pack",
    "unpack",
]

T = TypeVar("T")

REPLY: Final = "reply"

_packer: Final = msgspec.msgpack.Encoder()


@frozen(slots=False)
class RpcMessage:
    """A request or a reply.

    Attributes:
        kind: What is requested; ``reply`` for a reply.
        id: Chosen by the caller at random, and repeated in the reply.
        reply_to: The worker that calls; empty in a reply, and in a request without one.
        body: The packed content; empty in a reply for *not here*.
    """

    kind: str
    id: str
    reply_to: str = ""
    body: bytes = b""


@frozen(slots=False)
class IdentityReference:
    """An identity in a message.

    Attributes:
        kind: The class of the identity: users of different classes are different users.
        id: The id of the identity.
        expires_at: When it expires, in seconds since the epoch.
        is_operator: Whether it is that of an operator.
        operator: The operator who looks at the uploads of the owner *id*.
    """

    kind: str
    id: str
    expires_at: float | None = None
    is_operator: bool = False
    operator: str = ""

    @classmethod
    def of(cls, identity: Identity) -> "IdentityReference":
        """Return the reference to *identity*."""
        kind = type(identity)
        return cls(
            f"{kind.__module__}.{kind.__qualname__}",
            identity.id,
            identity.expires_at,
            identity.is_operator,
            identity.operator if isinstance(identity, OwnerView) else "",
        )

    def is_the_same(self, identity: Identity) -> bool:
        """Tell whether *identity* is the same user, with any expiry."""
        other = IdentityReference.of(identity)
        mine, theirs = (
            (each.kind, each.id, each.is_operator, each.operator) for each in (self, other)
        )
        return mine == theirs

    def identity(self) -> Identity | None:
        """Return the identity; None for a class of the application's own."""
        for kind in (Identity, CapabilityIdentity):
            made = kind(id=self.id, expires_at=self.expires_at, is_operator=self.is_operator)
            if self.is_the_same(made):
                return made
        return None


@frozen(slots=False)
class CancelRequest:
    """Cut the transfers of an upload that the worker receives."""

    owner: str
    upload_id: str


@frozen(slots=False)
class CancelReply:
    """The transfers were cut.

    Attributes:
        snapshot: The end as JSON, without name and metadata, if the worker could not store it;
            empty if the store has it.
    """

    snapshot: bytes = b""


@frozen(slots=False)
class ResourceBinding:
    """Requests of an owner to a resource belong to an upload that is known by another id."""

    owner: str
    resource_id: str
    upload_id: str


@frozen(slots=False)
class SupersedeRequest:
    """Report an upload that the worker receives no more: a newer one has its id.

    Attributes:
        owner: The owner of both.
        upload_id: The id of both.
        attempt: The attempt of the newer one.
        transfer_ids: The names of the records of the older one.
    """

    owner: str
    upload_id: str
    attempt: int
    transfer_ids: tuple[str, ...]


@frozen(slots=False)
class SocketRequest:
    """Subscribe a WebSocket that the worker holds to an upload, or unsubscribe it.

    Attributes:
        client_id: Names the WebSocket.
        who: The user who asks, who must be the user of the WebSocket.
        upload_id: The upload; None, to unsubscribe, means all.
    """

    client_id: str
    who: IdentityReference
    upload_id: str | None


@frozen(slots=False)
class TicketRequest:
    """Redeem the ticket with this hash, or check whether its user is still admitted."""

    digest: bytes


@frozen(slots=False)
class SocketReply:
    """The result of a ``SocketRequest``.

    Attributes:
        problem: What is wrong; empty for success.
        limit: The limit that is reached, if that is the problem.
        allowed: The value of that limit.
    """

    problem: str = ""
    limit: str = ""
    allowed: int = 0


@frozen(slots=False)
class IdentityReply:
    """The user who is admitted; None if there is none any more."""

    who: IdentityReference | None = None


@frozen(slots=False, repr=False)
class WorkerIntroduction:
    """The name of a worker, and the key with which it signs tickets and client ids."""

    name: str
    key: bytes


def pack(value: object) -> bytes:
    """Encode a message, or the content of one, in MessagePack."""
    return _packer.encode(value)


def unpack(data: bytes, kind: type[T]) -> T:
    """Decode what ``pack`` has encoded. Fields that a newer worker added are ignored.

    Raises:
        InvalidValue: It is not a message of that kind.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError) as error:
        raise InvalidValue("message", type(error).__name__) from None


@frozen(slots=False)
class _SealedMessage:
    namespace: str
    message: bytes
    tag: bytes


@frozen(repr=False)
class MessageSeal:
    """Marks messages as those of one system, and recognises them.

    Args:
        namespace: Namespace of the system.
        secret: The secret that all workers of the system share; empty for none, and then everyone
            who may write to the broker may send messages.
    """

    namespace: str
    secret: bytes = b""

    def seal(self, recipient: str, message: RpcMessage) -> bytes:
        """Encode *message* for the worker *recipient*."""
        packed = pack(message)
        return pack(_SealedMessage(self.namespace, packed, self._tag(recipient, packed)))

    def unseal(self, recipient: str, data: bytes) -> RpcMessage:
        """Decode a message that the worker *recipient* has received.

        Raises:
            InvalidValue: It is not a message of this system to that worker.
        """
        envelope = unpack(data, _SealedMessage)
        if envelope.namespace != self.namespace:
            raise InvalidValue("message.namespace", "is that of another system")
        if not hmac.compare_digest(envelope.tag, self._tag(recipient, envelope.message)):
            raise InvalidValue("message.tag", "was not made with the secret of this system")
        return unpack(envelope.message, RpcMessage)

    def _tag(self, recipient: str, packed: bytes) -> bytes:
        if not self.secret:
            return b""
        return hmac.digest(self.secret, pack((self.namespace, recipient, packed)), "sha256")
