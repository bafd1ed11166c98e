"""Server-sent events: the current snapshot first, then newer ones, the end last.

The id of an event is the sequence of the upload. A browser that reconnects sends the last id;
since each event is a complete snapshot, nothing is replayed: the stream begins with the current
snapshot. Only if the client has already received the end, the response is 204, which makes an
``EventSource`` stop (HTML standard, section 9.2). It stops at any other status than 200 as well:
while the store is not available or too many requests wait for it, the response is a stream without
events, which ends after a random time, so that clients do not all return at once. Clients that
read ``Retry-After`` need not wait for its end.

A client that does not read blocks its own stream and no other.

A proxy that holds streams (see ``upload_progress.edge``) gets the current snapshot as a complete
response, whose headers tell it to keep the connection and where the next snapshots are published.
"""

import secrets
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import Factory, define, field, frozen
from starlette.responses import Response

from upload_progress._fanout.subscription import Subscription, Transport
from upload_progress._fanout.update import Update
from upload_progress._internals import internals_of
from upload_progress._model.api_types import EDGE_HEADER
from upload_progress._model.models import UploadState
from upload_progress.exceptions import StoreUnavailable, UploadNotFound
from upload_progress.identity import Identity, listed_owner
from upload_progress.interfaces import HoldsStreams
from upload_progress.starlette.auth.authentication import RequestAuthenticator, check_upload_id
from upload_progress.starlette.auth.tickets import AccessGrant
from upload_progress.starlette.auth.views import group_owner, update_of
from upload_progress.starlette.connections import INFERRED_END_SECONDS, ConnectionRegistry
from upload_progress.starlette.context import RequestContext, cancel_on_disconnect
from upload_progress.starlette.http import (
    COMMON_HEADERS,
    MAX_PAGE_SIZE,
    parse_list_query,
    retry_after_seconds,
)
from upload_progress.tracker import ProgressTracker

__all__ = [
    "EVENTS_PER_WRITE",
    "FINAL_WRITE_SECONDS",
    "MAX_SHOWN_UPLOADS",
    "RETRY_MIN_MILLISECONDS",
    "RETRY_SPREAD_MILLISECONDS",
    "REVIVAL_SECONDS",
    "EventStreams",
]

# Clients reconnect at different times after a restart of the server.
RETRY_MIN_MILLISECONDS: Final = 1000
RETRY_SPREAD_MILLISECONDS: Final = 2000
EVENTS_PER_WRITE: Final = 64
MAX_SHOWN_UPLOADS: Final = 10_000
FINAL_WRITE_SECONDS: Final = 1.0
REVIVAL_SECONDS: Final = 60.0
"""A client that has an end which a worker has inferred, and comes back, is told to stop after that
time."""
_HEARTBEAT: Final = b": heartbeat\n\n"
_HEADERS: Final = {
    **COMMON_HEADERS,
    "content-type": "text/event-stream; charset=utf-8",
    # Middleware that compresses responses collects them first, but not with "no-transform"
    # (RFC 9111, section 5.2.2.6).
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    # Proxies pass on each part as it arrives (RFC 10036).
    "incremental": "?1",
}


@frozen(eq=False, repr=False)
class EventStreams:
    """The event streams of one mount.

    Attributes:
        tracker: Provides snapshots and updates.
        authenticator: Authenticates a stream, at its start and again while it lasts.
        connections: Counts the open streams.
        stream_life_seconds: Duration after which a stream ends; the client reopens it.
        proxy: Holds the streams that are requested through it; None if this process holds all.
        has_edge: Whether there is a push server, to which clients had better connect.
    """

    tracker: ProgressTracker
    authenticator: RequestAuthenticator
    connections: ConnectionRegistry
    stream_life_seconds: float
    proxy: HoldsStreams | None
    has_edge: bool = False

    async def stream_upload(self, request: RequestContext) -> Response | None:
        """Stream the snapshots of one upload until it ends."""
        connection = request.connection
        grant = await self.authenticator.authenticate_stream(connection)
        identity = grant.subject
        upload_id = check_upload_id(identity, request.path_parameter("upload_id"))
        if (proxy := self._proxy_of(request, grant)) is not None:
            return await self._hold_upload(request, proxy, identity, upload_id)
        with self.connections.subscription(identity, Transport.EVENT_STREAM) as subscription:
            owner = identity.owner_of(upload_id)
            subscription.add_upload(owner, upload_id)
            try:
                progress = await self.tracker.get(upload_id, owner=identity)
            except StoreUnavailable as error:
                await self._run_without_events(request, subscription, error)
                return None
            update = Update(owner, progress)
            if self._is_over(request, update):
                return Response(status_code=204, headers=COMMON_HEADERS)
            if request.is_head:
                return Response(headers=_HEADERS)
            subscription.offer(update)
            await self._run(request, grant, subscription, ends_with_upload=True)
        return None

    def _is_over(self, request: RequestContext, update: Update) -> bool:
        """Return whether the client has received *update*, and nothing will follow."""
        is_known = update.is_end and _last_event_id(request) == str(update.progress.sequence)
        return is_known and not self._may_go_on(update)

    def _may_go_on(self, update: Update) -> bool:
        """Return whether a client that has the end *update* may still be told another one."""
        finished_at, now = update.progress.finished_at, self.tracker.config.clock.time()
        is_recent = finished_at is not None and now - finished_at.timestamp() < REVIVAL_SECONDS
        return update.is_inferred_end and is_recent

    async def stream_list(self, request: RequestContext) -> Response | None:
        """Stream the snapshots of all uploads of the user, of a group, or in given states."""
        connection = request.connection
        grant = await self.authenticator.authenticate_stream(connection)
        identity = grant.subject
        if not identity.listable:
            raise UploadNotFound
        query = parse_list_query(connection)
        proxy = self._proxy_of(request, grant)
        if proxy is not None and query.states is None:
            return await self._hold_list(request, proxy, identity, query.group)
        with self.connections.subscription(identity, Transport.EVENT_STREAM) as subscription:
            if query.group is None:
                subscription.add_owner(listed_owner(identity))
            else:
                subscription.add_group(group_owner(identity), query.group)
            try:
                page = await self.tracker.list(
                    owner=identity, states=query.states, group=query.group, limit=MAX_PAGE_SIZE
                )
            except StoreUnavailable as error:
                await self._run_without_events(request, subscription, error)
                return None
            if request.is_head:
                return Response(headers=_HEADERS)
            for progress in page.uploads:
                subscription.offer(update_of(identity, progress))
            await self._run(request, grant, subscription, states=query.states)
        return None

    def _proxy_of(self, request: RequestContext, grant: AccessGrant) -> HoldsStreams | None:
        """Return the proxy, if it can hold this stream: what operators see is made here."""
        proxy = self.proxy
        if proxy is None or grant.view is not None or request.is_head:
            return None
        if proxy.is_proxied(request.connection):
            return proxy
        if request.connection.header("grip-sig") is not None:
            internals_of(self.tracker).log_limiter.log_warning(
                "a request has the header Grip-Sig, but not with the key of the edge: is it the "
                "sig_key of the proxy?",
                effect="this process holds the event stream",
            )
        return None

    async def _hold_upload(
        self, request: RequestContext, proxy: HoldsStreams, identity: Identity, upload_id: str
    ) -> Response:
        """Let the proxy hold the stream of an upload, unless that has ended."""
        owner = identity.owner_of(upload_id)
        try:
            update = Update(owner, await self.tracker.get(upload_id, owner=identity))
        except StoreUnavailable as error:
            return _response_without_events(error)
        if self._is_over(request, update):
            return Response(status_code=204, headers=COMMON_HEADERS)
        if update.is_end and not update.is_inferred_end:
            return Response(_retry() + update.sse, headers=_HEADERS)
        headers = proxy.hold(self._namespace, owner, upload_id=upload_id)
        return Response(_retry() + update.sse, headers={**_HEADERS, **headers})

    async def _hold_list(
        self, request: RequestContext, proxy: HoldsStreams, identity: Identity, group: str | None
    ) -> Response:
        """Let the proxy hold the stream of all uploads of the user, or of a group."""
        try:
            page = await self.tracker.list(owner=identity, group=group, limit=MAX_PAGE_SIZE)
        except StoreUnavailable as error:
            return _response_without_events(error)
        events = [update_of(identity, progress).sse for progress in page.uploads]
        headers = proxy.hold(self._namespace, identity.id, group=group)
        return Response(_retry() + b"".join(events), headers={**_HEADERS, **headers})

    @property
    def _namespace(self) -> str:
        return self.tracker.config.namespace

    async def _run(
        self,
        request: RequestContext,
        grant: AccessGrant,
        subscription: Subscription,
        *,
        ends_with_upload: bool = False,
        states: Collection[UploadState] | None = None,
    ) -> None:
        """Stream until the client disconnects, its access ends, or the stream is complete."""
        life = anyio.CancelScope(deadline=anyio.current_time() + self.stream_life_seconds)
        headers = {**_HEADERS, EDGE_HEADER: "?1"} if self.has_edge else _HEADERS
        stream = _Stream(
            self.tracker, request, subscription, life, ends_with_upload, states, headers
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_disconnect, request.receive, tasks.cancel_scope)
            tasks.start_soon(self._cancel_on_expiry, grant, tasks.cancel_scope)
            with suppress(OSError), life:
                await stream.write_events()
            tasks.cancel_scope.cancel()
        await self._end(request)

    async def _run_without_events(
        self, request: RequestContext, subscription: Subscription, error: StoreUnavailable
    ) -> None:
        """Send a stream without events for a random time, as *error* may be over then.

        Raises:
            StoreUnavailable: The given *error*, as the answer to a HEAD request.
        """
        if request.is_head:
            raise error
        seconds = retry_after_seconds()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_disconnect, request.receive, tasks.cancel_scope)
            with suppress(OSError), anyio.move_on_after(seconds + secrets.randbelow(1000) / 1000):
                await _start(request, {**_HEADERS, "retry-after": str(seconds)})
                await _write(request, f": {error}\n\n".encode())
                while not subscription.is_closed:
                    await internals_of(self.tracker).wait(subscription)
            tasks.cancel_scope.cancel()
        await self._end(request)

    async def _end(self, request: RequestContext) -> None:
        with suppress(OSError), anyio.move_on_after(FINAL_WRITE_SECONDS):
            await request.send({"type": "http.response.body", "body": b""})

    async def _cancel_on_expiry(self, grant: AccessGrant, scope: anyio.CancelScope) -> None:
        await self.authenticator.wait_until_expired(grant)
        scope.cancel()


async def _start(request: RequestContext, headers: Mapping[str, str]) -> None:
    """Send *headers*, and after which time an ``EventSource`` connects again."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await request.send({"type": "http.response.start", "status": 200, "headers": raw})
    await _write(request, _retry())


def _retry() -> bytes:
    spread = secrets.randbelow(RETRY_SPREAD_MILLISECONDS)
    return b"retry: %d\n\n" % (RETRY_MIN_MILLISECONDS + spread)


def _response_without_events(error: StoreUnavailable) -> Response:
    """Return a stream that ends at once, as *error* may be over when the client comes back."""
    headers = {**_HEADERS, "retry-after": str(retry_after_seconds())}
    return Response(_retry() + f": {error}\n\n".encode(), headers=headers)


async def _write(request: RequestContext, text: bytes) -> None:
    await request.send({"type": "http.response.body", "body": text, "more_body": True})


def _last_event_id(request: RequestContext) -> str | None:
    header = request.connection.header("last-event-id")
    return request.connection.query.get("last_event_id") if header is None else header


@define(eq=False, repr=False)
class _Stream:
    """The body of one event stream.

    Attributes:
        life: Cancelled when the stream has lasted long enough.
        ends_with_upload: Whether the stream ends with the end of an upload; some time after it, if
            a living worker may overrule it.
        states: Only uploads in these states are shown; None for all.
        headers: The headers of the response.
    """

    tracker: ProgressTracker
    request: RequestContext
    subscription: Subscription
    life: anyio.CancelScope
    ends_with_upload: bool
    states: Collection[UploadState] | None
    headers: Mapping[str, str]
    _has_ended: bool = field(default=False, init=False)
    _deadline: float = field(
        default=Factory(lambda self: self.life.deadline, takes_self=True), init=False
    )
    _shown: dict[tuple[str, str], None] = field(factory=dict, init=False)

    async def write_events(self) -> None:
        """Write events until the subscription is closed, or the upload ends."""
        await _start(self.request, self.headers)
        while not self._is_over:
            updates = await internals_of(self.tracker).wait(self.subscription, self._send_updates)
            if not (updates or self._is_over):
                await self._write(_HEARTBEAT)
            await self._write_updates(updates)

    @property
    def _is_over(self) -> bool:
        return self._has_ended or self.subscription.is_closed

    def _send_updates(self, updates: Sequence[Update]) -> Awaitable[None]:
        """Send *updates*; one that no filter concerns without a coroutine in between."""
        if len(updates) > 1 or self.states is not None or self.ends_with_upload:
            return self._write_updates(updates)
        return self.request.send(
            {"type": "http.response.body", "body": updates[0].sse, "more_body": True}
        )

    async def _write_updates(self, updates: Sequence[Update]) -> None:
        shown = [update for update in updates if self._is_shown(update)]
        for start in range(0, len(shown), EVENTS_PER_WRITE):
            if start:
                await checkpoint()  # a server may send without one
            events = [update.sse for update in shown[start : start + EVENTS_PER_WRITE]]
            await self._write(b"".join(events))
        if self.ends_with_upload:
            for update in updates:
                self._end_with(update)

    def _end_with(self, update: Update) -> None:
        """End the stream with *update*, if that is an end."""
        self.life.deadline = self._deadline
        if update.is_inferred_end:
            self.life.deadline = min(self._deadline, anyio.current_time() + INFERRED_END_SECONDS)
        elif update.is_end:
            self._has_ended = True
            self.subscription.wake_for_heartbeat()

    async def _write(self, text: bytes) -> None:
        await _write(self.request, text)

    def _is_shown(self, update: Update) -> bool:
        """Tell whether an update passes the filter.

        An upload that was shown is shown once more when it leaves the states of the filter.
        """
        if self.states is None:
            return True
        if update.progress.state in self.states:
            self._shown[update.topic] = None
            if len(self._shown) > MAX_SHOWN_UPLOADS:
                del self._shown[next(iter(self._shown))]
            return True
        return self._shown.pop(update.topic, update) is None
