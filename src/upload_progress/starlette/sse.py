"""Server-sent events: the current snapshot at once, then what is newer, the end last.

Each event's id is the upload's sequence. A browser that reconnects sends the last one it saw;
since an event is a whole snapshot and not a step, nothing is replayed: whatever it says, even
nonsense, the current snapshot tells all. Only when it has seen the end already the answer is
204, which makes an ``EventSource`` stop (HTML standard, section 9.2).

A client that does not read fills its socket, then holds up its own stream and nothing else.
"""

import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

import anyio
from attrs import define, field
from starlette.responses import Response

from upload_progress._fanout.subscription import Subscription
from upload_progress._fanout.update import Update
from upload_progress._model.models import UploadState
from upload_progress._model.state import is_final
from upload_progress.exceptions import UploadNotFound
from upload_progress.starlette.auth.authentication import check_id
from upload_progress.starlette.auth.tickets import AccessGrant
from upload_progress.starlette.context import RequestContext, RouteContext, cancel_when_gone
from upload_progress.starlette.http import COMMON_HEADERS, MOST_PER_PAGE, list_query
from upload_progress.tracker import internals_of

__all__ = [
    "EVENTS_PER_WRITE",
    "LAST_WORD_SECONDS",
    "MOST_SHOWN",
    "RETRY_FROM_MILLISECONDS",
    "RETRY_SPREAD_MILLISECONDS",
    "stream_list",
    "stream_upload",
]

RETRY_FROM_MILLISECONDS: Final = 1000
RETRY_SPREAD_MILLISECONDS: Final = 2000
EVENTS_PER_WRITE: Final = 64
MOST_SHOWN: Final = 10_000
LAST_WORD_SECONDS: Final = 1.0
_HEARTBEAT: Final = b": heartbeat\n\n"
_HEADERS: Final = {
    **COMMON_HEADERS,
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",
}


async def stream_upload(site: RouteContext, exchange: RequestContext) -> Response | None:
    """Follow one upload to its end."""
    connection = exchange.connection
    grant = await site.door.admit_stream(connection)
    identity = grant.identity
    upload_id = check_id(identity, exchange.parameter("upload_id"))
    with site.watching(grant, connection, upload_id) as subscription:
        owner = identity.owner_of(upload_id)
        subscription.add_upload(owner, upload_id)
        progress = await site.tracker.get(upload_id, owner=identity)
        if is_final(progress.state) and _last_event_id(exchange) == str(progress.sequence):
            return Response(status_code=204, headers=COMMON_HEADERS)
        if exchange.is_head:
            return Response(headers=_HEADERS)
        subscription.offer(Update(owner, progress))
        await _Stream(site, exchange, grant, subscription, ends_with_upload=True).run()
    return None


async def stream_list(site: RouteContext, exchange: RequestContext) -> Response | None:
    """Follow all uploads of the caller, of one group, or in certain states."""
    grant = await site.door.admit_stream(exchange.connection)
    identity = grant.identity
    if not identity.listable:
        raise UploadNotFound
    query = list_query(exchange.connection)
    with site.watching(grant, exchange.connection, None) as subscription:
        if query.group is None:
            subscription.add_owner(identity.id)
        else:
            subscription.add_group(identity.id, query.group)
        page = await site.tracker.list(
            owner=identity, states=query.states, group=query.group, limit=MOST_PER_PAGE
        )
        if exchange.is_head:
            return Response(headers=_HEADERS)
        for progress in page.uploads:
            subscription.offer(Update(identity.id, progress))
        await _Stream(site, exchange, grant, subscription, states=query.states).run()
    return None


def _last_event_id(exchange: RequestContext) -> str | None:
    header = exchange.connection.header("last-event-id")
    return exchange.connection.query.get("last_event_id") if header is None else header


@define(eq=False, repr=False)
class _Stream:
    """One open event stream."""

    site: RouteContext
    exchange: RequestContext
    grant: AccessGrant
    subscription: Subscription
    ends_with_upload: bool = field(default=False, kw_only=True)
    states: Collection[UploadState] | None = field(default=None, kw_only=True)
    _has_ended: bool = field(default=False, init=False)
    _shown: dict[tuple[str, str], None] = field(factory=dict, init=False)

    async def run(self) -> None:
        """Send events until the client goes, the upload ends, or the stream's time is over."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_when_gone, self.exchange.receive, tasks.cancel_scope)
            tasks.start_soon(self._cancel_when_lapsed, tasks.cancel_scope)
            with suppress(OSError), anyio.move_on_after(self.site.stream_life_seconds):
                await self._converse()
            tasks.cancel_scope.cancel()
        with suppress(OSError), anyio.move_on_after(LAST_WORD_SECONDS):
            await self.exchange.send({"type": "http.response.body", "body": b""})

    async def _cancel_when_lapsed(self, scope: anyio.CancelScope) -> None:
        await self.site.door.lapse(self.grant)
        scope.cancel()

    async def _converse(self) -> None:
        headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        await self.exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
        spread = secrets.randbelow(RETRY_SPREAD_MILLISECONDS)
        await self._write(b"retry: %d\n\n" % (RETRY_FROM_MILLISECONDS + spread))
        while not self._is_over:
            updates = await internals_of(self.site.tracker).wait(self.subscription, self._show)
            if not (updates or self._is_over):
                await self._write(_HEARTBEAT)
            await self._show(updates)

    @property
    def _is_over(self) -> bool:
        return self._has_ended or self.subscription.is_closed

    async def _show(self, updates: Sequence[Update]) -> None:
        shown = [update.sse for update in updates if self._is_wanted(update)]
        for start in range(0, len(shown), EVENTS_PER_WRITE):
            await self._write(b"".join(shown[start : start + EVENTS_PER_WRITE]))
        if self.ends_with_upload and any(update.is_end for update in updates):
            self._has_ended = True
            self.subscription.wake_for_heartbeat()

    async def _write(self, text: bytes) -> None:
        await self.exchange.send({"type": "http.response.body", "body": text, "more_body": True})

    def _is_wanted(self, update: Update) -> bool:
        """Tell whether an update passes the filter; what was shown is shown to leave it, too."""
        if self.states is None:
            return True
        if update.progress.state in self.states:
            self._shown[update.topic] = None
            if len(self._shown) > MOST_SHOWN:
                del self._shown[next(iter(self._shown))]
            return True
        return self._shown.pop(update.topic, update) is None
