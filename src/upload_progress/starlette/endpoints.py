"""The plain HTTP half: make, look, list, cancel, subscribe, tickets."""

from collections.abc import Mapping
from typing import Final

import anyio
from attrs import frozen
from starlette.responses import Response

from upload_progress._fanout.subscription import Subscription
from upload_progress._model.models import UploadProgress, UploadState
from upload_progress._model.state import is_final
from upload_progress.exceptions import UploadNotFound
from upload_progress.starlette.auth.authentication import check_id
from upload_progress.starlette.auth.tickets import TICKET_SECONDS, AccessGrant
from upload_progress.starlette.context import (
    RequestContext,
    RouteContext,
    cancel_when_gone,
    json_response,
)
from upload_progress.starlette.http import (
    COMMON_HEADERS,
    Condition,
    entity_tag,
    list_query,
    wait_seconds,
    wants_stream,
)
from upload_progress.starlette.messages import Announcement, SubscribeRequest, read_body
from upload_progress.starlette.sse import stream_list, stream_upload
from upload_progress.tracker import internals_of

__all__ = [
    "RETRY_SECONDS",
    "Rest",
]

RETRY_SECONDS: Final = 1

_ALL_HERE: Final = frozenset({UploadState.PROCESSING, UploadState.COMPLETED})


@frozen(eq=False, repr=False)
class Rest:
    """Handlers of one site."""

    site: RouteContext

    async def announce(self, exchange: RequestContext) -> Response:
        """``POST /uploads``: a pending upload, and where to follow it."""
        grant = await self.site.door.admit(exchange.connection)
        body = await read_body(exchange.receive, Announcement, most_bytes=self._most_bytes)
        progress = await self.site.tracker.announce(
            owner=grant.identity,
            filename=body.filename,
            total_bytes=body.total_bytes,
            content_type=body.content_type,
            group=body.group,
            metadata=body.metadata,
        )
        headers = {"location": progress.links.progress, **_validators(progress)}
        return json_response(progress, status=201, headers=headers)

    @property
    def _most_bytes(self) -> int:
        return self.site.tracker.config.limits.message_bytes

    async def progress(self, exchange: RequestContext) -> Response | None:
        """``GET /uploads/{upload_id}/progress``: a snapshot, now or when there is a newer one."""
        connection = exchange.connection
        if wants_stream(connection):
            return await stream_upload(self.site, exchange)
        grant = await self.site.door.admit(connection)
        upload_id = check_id(grant.identity, exchange.parameter("upload_id"))
        wait = wait_seconds(connection)
        progress = await self.site.tracker.get(upload_id, owner=grant.identity)
        condition = Condition.of(connection)
        may_change = wait and not is_final(progress.state) and not exchange.is_head
        if may_change and condition.knows_version(progress):
            poll = _LongPoll(self.site, exchange, grant, condition.at(progress), wait)
            return await poll.answer(upload_id)
        return _snapshot(progress, condition.knows(progress))

    async def list(self, exchange: RequestContext) -> Response | None:
        """``GET /uploads/progress``: the caller's uploads and their sum."""
        if wants_stream(exchange.connection):
            return await stream_list(self.site, exchange)
        grant = await self.site.door.admit(exchange.connection)
        if not grant.identity.listable:
            raise UploadNotFound
        query = list_query(exchange.connection)
        page = await self.site.tracker.list(
            owner=grant.identity,
            states=query.states,
            group=query.group,
            cursor=query.cursor,
            limit=query.limit,
        )
        return json_response(page)

    async def cancel(self, exchange: RequestContext) -> Response:
        """``DELETE /uploads/{upload_id}``: cut the running transfer."""
        grant = await self.site.door.admit(exchange.connection)
        upload_id = check_id(grant.identity, exchange.parameter("upload_id"))
        progress = await self.site.tracker.cancel(upload_id, owner=grant.identity)
        return json_response(progress, status=202)

    async def offset(self, exchange: RequestContext) -> Response:
        """``HEAD /uploads/{upload_id}``: how far it is, as tus and the IETF draft name it."""
        grant = await self.site.door.admit(exchange.connection)
        upload_id = check_id(grant.identity, exchange.parameter("upload_id"))
        progress = await self.site.tracker.get(upload_id, owner=grant.identity)
        headers = {
            **COMMON_HEADERS,
            "upload-offset": str(progress.bytes_transferred),
            "upload-complete": "?1" if progress.state in _ALL_HERE else "?0",
        }
        if progress.total_bytes is not None:
            headers["upload-length"] = str(progress.total_bytes)
        return Response(headers=headers)

    async def subscribe(self, exchange: RequestContext) -> Response:
        """``POST /uploads/{upload_id}/subscribe``: show it on an open socket, too."""
        grant = await self.site.door.admit(exchange.connection)
        identity = grant.identity
        body = await read_body(exchange.receive, SubscribeRequest, most_bytes=self._most_bytes)
        upload_id = check_id(identity, exchange.parameter("upload_id"))
        await self.site.sockets.add(body.client_id, identity, upload_id)
        return Response(status_code=204, headers=COMMON_HEADERS)

    async def unsubscribe(self, exchange: RequestContext) -> Response:
        """``DELETE /uploads/{client_id}/unsubscribe``: take one or all off a socket."""
        grant = await self.site.door.admit(exchange.connection)
        client_id = exchange.parameter("client_id")
        upload_id = exchange.connection.query.get("upload_id")
        await self.site.sockets.drop(client_id, grant.identity, upload_id)
        return Response(status_code=204, headers=COMMON_HEADERS)

    async def ticket(self, exchange: RequestContext) -> Response:
        """``POST /uploads/tickets``: good once, for a WebSocket or EventSource."""
        grant = await self.site.door.admit(exchange.connection)
        answer = {
            "ticket": self.site.tickets.issue(grant),
            "expires_in": TICKET_SECONDS,
        }
        return json_response(answer, status=201)


def _validators(progress: UploadProgress) -> dict[str, str]:
    headers = {"etag": entity_tag(progress)}
    if not is_final(progress.state):
        headers["retry-after"] = str(RETRY_SECONDS)
    return headers


def _snapshot(
    progress: UploadProgress, is_known: bool, extra: Mapping[str, str] | None = None
) -> Response:
    headers = {**_validators(progress), **(extra or {})}
    if is_known:
        return Response(status_code=304, headers={**COMMON_HEADERS, **headers})
    return json_response(progress, headers=headers)


@frozen(eq=False, repr=False)
class _LongPoll:
    """Waits for a newer version: live byte counts alone would answer at once, for ever."""

    site: RouteContext
    exchange: RequestContext
    grant: AccessGrant
    condition: Condition
    wait_seconds: int

    async def answer(self, upload_id: str) -> Response | None:
        """Return the newer snapshot, 304 when there is none in time, None when nobody waits."""
        tracker, identity = self.site.tracker, self.grant.identity
        connection = self.exchange.connection
        with self.site.watching(self.grant, connection, upload_id) as subscription:
            subscription.add_upload(identity.owner_of(upload_id), upload_id)
            progress = await tracker.get(upload_id, owner=identity)
            if self.condition.knows_version(progress) and not await self._news(subscription):
                return None
            await self.site.door.admit(connection)
            progress = await tracker.get(upload_id, owner=identity)
        applied = {"preference-applied": f"wait={self.wait_seconds}"}
        return _snapshot(progress, self.condition.knows_version(progress), applied)

    async def _news(self, subscription: Subscription) -> bool:
        """Wait for news or for the end of patience; return whether the client waits, too."""
        patience = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            with patience:
                tasks.start_soon(cancel_when_gone, self.exchange.receive, patience)
                with anyio.move_on_after(self.wait_seconds):
                    await self._newer(subscription)
            tasks.cancel_scope.cancel()
        return not patience.cancelled_caught

    async def _newer(self, subscription: Subscription) -> None:
        while not subscription.is_closed:
            for update in await internals_of(self.site.tracker).wait(subscription):
                if not self.condition.knows_version(update.progress):
                    return
