"""Open streams and WebSockets: their number per user, and sockets by ``client_id``.

A ``client_id`` begins with the name of the worker that holds the socket, and ends with the
signature of that worker (see ``_cluster.directory``). A request to add an upload to a socket of
another worker is forwarded to that worker by RPC, if the signature is valid; that worker checks the
user as for a request of its own. If no reply comes, the socket does not exist.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from attrs import define, field, frozen

from upload_progress._cluster.directory import WorkerDirectory
from upload_progress._cluster.messages import (
    IdentityReference,
    SocketReply,
    SocketRequest,
    pack,
    unpack,
)
from upload_progress._fanout.subscription import Subscription, Transport
from upload_progress._fanout.update import Update
from upload_progress._internals import TrackerInternals, internals_of
from upload_progress._model.api_types import ServerMessage, Subscribed, Unsubscribed
from upload_progress._model.codec import encode_json
from upload_progress._runtime.worker import worker_of
from upload_progress.config import Limits
from upload_progress.exceptions import (
    QuotaExceeded,
    StoreUnavailable,
    UploadNotFound,
    UploadProgressError,
)
from upload_progress.identity import Identity, OwnerView
from upload_progress.starlette.auth.authentication import check_upload_id
from upload_progress.tracker import ProgressTracker

__all__ = [
    "INFERRED_END_SECONDS",
    "MAX_UNSENT_FOR_REQUESTS",
    "ConnectionRegistry",
    "OpenSocket",
    "SocketSubscriptions",
    "new_client_id",
]

INFERRED_END_SECONDS: Final = 10.0
"""How long the stream or socket of an upload stays open after ``worker_lost``: a worker that stood
still may overrule it."""
MAX_UNSENT_FOR_REQUESTS: Final = 2000
"""With this many unsent messages, the subscriptions of a socket can no longer be changed."""


def new_client_id(directory: WorkerDirectory) -> str:
    """Return a new ``client_id``: the name of the worker, 128 random bits, and a signature."""
    return directory.make_token("client_id", 16)


@define(eq=False, repr=False)
class OpenSocket:
    """The state of an open WebSocket that other requests may change.

    Attributes:
        client_id: The id of the socket. A request of the same user that names it may add uploads
            to the socket.
        identity: The user.
        subscription: The uploads that the socket shows.
    """

    client_id: str
    identity: Identity
    subscription: Subscription
    _unsent: list[str] = field(factory=list, init=False)

    async def subscribe(self, upload_id: str, tracker: ProgressTracker) -> None:
        """Subscribe to an upload, then read its current snapshot from *tracker* and show it.

        In this order: what happens between the two is shown as well.

        Raises:
            UploadNotFound: The user has no such upload.
            QuotaExceeded: The socket has the maximum number of subscriptions, or the client
                does not read.
            StoreUnavailable: The store does not answer.
        """
        self._check_unsent()
        owner = self.identity.owner_of(upload_id)
        # A repeated subscription shows the current snapshot again.
        self.subscription.remove_upload(owner, upload_id)
        self.subscription.add_upload(owner, upload_id)
        try:
            progress = await tracker.get(upload_id, owner=self.identity)
        except BaseException:
            self.subscription.remove_upload(owner, upload_id)
            raise
        self.send(Subscribed(upload_id=upload_id))
        self.subscription.offer_current(Update(owner, progress))

    def unsubscribe(self, upload_id: str | None) -> None:
        """End the subscription to an upload; None ends all subscriptions.

        Raises:
            QuotaExceeded: The client does not read.
        """
        self._check_unsent()
        if upload_id is not None:
            self.subscription.remove_upload(self.identity.owner_of(upload_id), upload_id)
            self.send(Unsubscribed(upload_id=upload_id))
            return
        for each in self.subscription.remove_all():
            self.send(Unsubscribed(upload_id=each))
        self.send(Unsubscribed(all=True))

    def _check_unsent(self) -> None:
        """Refuse a change, to which a client would not read the replies."""
        if len(self._unsent) >= MAX_UNSENT_FOR_REQUESTS:
            raise QuotaExceeded("unsent_per_socket", MAX_UNSENT_FOR_REQUESTS)

    def send(self, message: ServerMessage) -> None:
        """Queue *message*; the writer of the session sends it."""
        self._unsent.append(encode_json(message).decode())
        self.subscription.wake_for_heartbeat()

    @property
    def unsent_count(self) -> int:
        """The number of queued messages."""
        return len(self._unsent)

    def take_unsent(self) -> list[str]:
        """Return the queued messages, and empty the queue."""
        unsent, self._unsent = self._unsent, []
        return unsent


@define(eq=False, repr=False)
class ConnectionRegistry:
    """The open streams, long polls and WebSockets of one mount in this process.

    Attributes:
        internals: The parts of the tracker, which opens the subscriptions.
    """

    internals: TrackerInternals
    _counts: Counter[str] = field(factory=Counter, init=False)
    _sockets: dict[str, OpenSocket] = field(factory=dict, init=False)

    @contextmanager
    def subscription(self, identity: Identity, transport: Transport) -> Generator[Subscription]:
        """Open a subscription, which counts towards the limits of the user, for the block.

        Raises:
            QuotaExceeded: The user, or the address of an anonymous client, has too many open
                connections.
        """
        with self._counted(identity):
            subscription = self.internals.subscribe(transport)
            subscription.shows_owner = isinstance(identity, OwnerView)
            try:
                yield subscription
            finally:
                subscription.close()

    @contextmanager
    def _counted(self, identity: Identity) -> Generator[None]:
        limits = _limits_of(identity, self.internals.config.limits)
        for limit in limits:
            if self._counts[limit.key] >= limit.allowed:
                raise QuotaExceeded(limit.name, limit.allowed)
        keys = [limit.key for limit in limits]
        self._counts.update(keys)
        try:
            yield
        finally:
            self._counts.subtract(keys)
            for key in keys:
                if not self._counts[key]:
                    del self._counts[key]

    @contextmanager
    def registered(self, socket: OpenSocket) -> Generator[None]:
        """Make *socket* available to other requests for the block."""
        self._sockets[socket.client_id] = socket
        try:
            yield
        finally:
            del self._sockets[socket.client_id]

    def get(self, client_id: str) -> OpenSocket | None:
        """Return the socket with that ``client_id``, of any user; None if there is none."""
        return self._sockets.get(client_id)


@frozen
class _ConnectionLimit:
    """A limit that a connection counts towards, and the key under which it is counted."""

    name: str
    allowed: int
    key: str


_ANONYMOUS: Final = ""
"""Stands for all clients without a user; no user has an empty name."""


def _limits_of(identity: Identity, limits: Limits) -> list[_ConnectionLimit]:
    key = identity.limit_key
    if identity.listable:
        return [_ConnectionLimit("sockets_per_owner", limits.sockets_per_owner, key or identity.id)]
    total = _ConnectionLimit("sockets_total", limits.sockets_total, _ANONYMOUS)
    if key is None:
        return [total]
    return [_ConnectionLimit("sockets_per_client", limits.sockets_per_client, key), total]


_SUBSCRIBE: Final = "subscribe"
_UNSUBSCRIBE: Final = "unsubscribe"
_Handler = Callable[[SocketRequest], Awaitable[SocketReply | None]]
_DONE: Final = SocketReply()
_NOT_FOUND: Final = SocketReply("not_found")
_UNAVAILABLE: Final = SocketReply("unavailable")


@define(eq=False, repr=False)
class SocketSubscriptions:
    """Adds uploads to open sockets and removes them, on whichever worker the socket is."""

    tracker: ProgressTracker
    connections: ConnectionRegistry

    def __attrs_post_init__(self) -> None:
        """Register the handlers of requests from other workers."""
        for method, handle in self._handlers.items():
            internals_of(self.tracker).rpc.register(method, partial(_handle_rpc, handle))

    async def subscribe(self, client_id: str, identity: Identity, upload_id: str) -> None:
        """Subscribe a socket to an upload.

        Raises:
            UploadNotFound: The user has no such socket, or no such upload.
            QuotaExceeded: The socket has the maximum number of subscriptions, or the client
                does not read.
            StoreUnavailable: The store does not answer.
        """
        await self._call(_SUBSCRIBE, client_id, identity, upload_id)

    async def unsubscribe(self, client_id: str, identity: Identity, upload_id: str | None) -> None:
        """End the subscription of a socket to an upload; None ends all its subscriptions.

        Raises:
            UploadNotFound: The user has no such socket, or the id is not valid.
            QuotaExceeded: The client does not read.
        """
        if upload_id is not None:
            check_upload_id(identity, upload_id)
        await self._call(_UNSUBSCRIBE, client_id, identity, upload_id)

    @property
    def _handlers(self) -> Mapping[str, _Handler]:
        return {_SUBSCRIBE: self._subscribe, _UNSUBSCRIBE: self._unsubscribe}

    async def _call(
        self, method: str, client_id: str, identity: Identity, upload_id: str | None
    ) -> None:
        """Handle a request here, or send it to the worker that holds the socket."""
        request = SocketRequest(client_id, IdentityReference.of(identity), upload_id)
        if worker_of(client_id) in {None, self.tracker.worker}:
            reply = await self._handlers[method](request)
        else:
            reply = await self._call_other(method, request)
        if reply is None or reply == _NOT_FOUND:
            raise UploadNotFound
        if reply == _UNAVAILABLE:
            raise StoreUnavailable
        if reply.limit:
            raise QuotaExceeded(reply.limit, reply.allowed)

    async def _call_other(self, method: str, request: SocketRequest) -> SocketReply | None:
        internals = internals_of(self.tracker)
        worker = await internals.directory.issuer_of("client_id", request.client_id)
        if worker is None:
            return None
        response = await internals.rpc.call(worker, method, request)
        return None if response is None else unpack(response, SocketReply)

    async def _subscribe(self, request: SocketRequest) -> SocketReply | None:
        socket = self._socket(request)
        if socket is None or request.upload_id is None:
            return None
        try:
            await socket.subscribe(request.upload_id, self.tracker)
        except UploadProgressError as error:
            return _reply_for(error)
        return _DONE

    async def _unsubscribe(self, request: SocketRequest) -> SocketReply | None:
        socket = self._socket(request)
        if socket is None:
            return None
        try:
            socket.unsubscribe(request.upload_id)
        except UploadProgressError as error:
            return _reply_for(error)
        return _DONE

    def _socket(self, request: SocketRequest) -> OpenSocket | None:
        """Return the socket that *request* names, if it is of the user that *request* names."""
        socket = self.connections.get(request.client_id)
        is_theirs = socket is not None and request.who.is_the_same(socket.identity)
        return socket if is_theirs else None


async def _handle_rpc(handle: _Handler, body: bytes) -> bytes | None:
    reply = await handle(unpack(body, SocketRequest))
    return None if reply is None else pack(reply)


def _reply_for(error: UploadProgressError) -> SocketReply:
    if isinstance(error, QuotaExceeded):
        return SocketReply("quota", error.limit, error.allowed)
    return _UNAVAILABLE if isinstance(error, StoreUnavailable) else _NOT_FOUND
