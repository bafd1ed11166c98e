"""HTTP endpoints: announce, get, list, cancel, offset, subscribe, unsubscribe and tickets."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import anyio
from attrs import evolve, frozen
from msgspec import UNSET
from starlette.responses import Response
from starlette.types import Receive

from upload_progress._fanout.subscription import Subscription, Transport
from upload_progress._internals import internals_of
from upload_progress._model.api_types import (
    Announcement,
    SubscribeRequest,
    TaskReport,
    Ticket,
    TicketTargets,
)
from upload_progress._model.models import UploadKey, UploadProgress, UploadState
from upload_progress._model.state import is_final
from upload_progress._tracking.hand_over import read_token
from upload_progress.exceptions import InvalidValue, UploadNotFound
from upload_progress.starlette.auth.authentication import RequestAuthenticator, check_upload_id
from upload_progress.starlette.auth.authenticators import bearer_token
from upload_progress.starlette.auth.edge_tokens import EdgeTokens
from upload_progress.starlette.auth.tickets import TICKET_SECONDS, AccessGrant
from upload_progress.starlette.auth.views import as_seen_by
from upload_progress.starlette.connections import ConnectionRegistry, SocketSubscriptions
from upload_progress.starlette.context import RequestContext, cancel_on_disconnect
from upload_progress.starlette.http import (
    COMMON_HEADERS,
    TOKEN_REQUIRED,
    Condition,
    RequestRefused,
    entity_tag,
    json_response,
    parse_list_query,
    parse_wait_seconds,
    prefers_event_stream,
)
from upload_progress.starlette.messages import read_body
from upload_progress.starlette.sse import EventStreams
from upload_progress.tracker import ProgressTracker

__all__ = ["RETRY_AFTER_SECONDS", "RestEndpoints"]

RETRY_AFTER_SECONDS: Final = 1


@frozen(eq=False, repr=False)
class RestEndpoints:
    """The handlers of one mount."""

    tracker: ProgressTracker
    authenticator: RequestAuthenticator
    connections: ConnectionRegistry
    streams: EventStreams
    sockets: SocketSubscriptions
    edge_tokens: EdgeTokens | None

    async def announce(self, request: RequestContext) -> Response:
        """``POST /uploads``: create a pending upload."""
        grant = await self.authenticator.authenticate(request.connection)
        body = await read_body(request.receive, Announcement, max_bytes=self._max_body_bytes)
        progress = await self.tracker.announce(
            owner=grant.identity,
            filename=body.filename,
            total_bytes=body.total_bytes,
            content_type=body.content_type,
            group=body.group,
            metadata=body.metadata,
        )
        headers = {"location": progress.links.progress, **_snapshot_headers(progress)}
        return json_response(progress, status=201, headers=headers)

    @property
    def _max_body_bytes(self) -> int:
        return self.tracker.config.limits.message_bytes

    async def progress(self, request: RequestContext) -> Response | None:
        """``GET /uploads/{upload_id}/progress``: the current or next snapshot, or a stream."""
        connection = request.connection
        if prefers_event_stream(connection):
            return await self.streams.stream_upload(request)
        grant, upload_id = await self._authenticate_for_upload(request)
        wait_seconds = parse_wait_seconds(connection)
        progress = await self._get(grant, upload_id)
        condition = Condition.parse(connection)
        may_change = wait_seconds and not is_final(progress.state) and not request.is_head
        if may_change and condition.matches_version(progress):
            return await self._long_poll(
                request, grant, upload_id, condition.resolved(progress), wait_seconds
            )
        return _snapshot_response(progress, is_known=condition.matches(progress))

    async def _long_poll(
        self,
        request: RequestContext,
        grant: AccessGrant,
        upload_id: str,
        condition: Condition,
        wait_seconds: int,
    ) -> Response | None:
        """Return the next version of a snapshot, a 304 after *wait_seconds*, or None.

        None means that the client has disconnected. The poll waits for a new version, not for
        bytes: the live byte count of a running upload would answer every poll at once.
        """
        identity, connection = grant.subject, request.connection
        with self.connections.subscription(identity, Transport.LONG_POLL) as subscription:
            subscription.add_upload(identity.owner_of(upload_id), upload_id)
            progress = await self._get(grant, upload_id)
            wait = partial(self._wait_for_newer, subscription, condition)
            if condition.matches_version(progress) and not await _is_connected_after(
                request.receive, wait, wait_seconds
            ):
                return None
            await self.authenticator.authenticate(connection)
            progress = await self._get(grant, upload_id)
        return _snapshot_response(
            progress,
            is_known=condition.matches_version(progress),
            extra={"preference-applied": f"wait={wait_seconds}"},
        )

    async def _wait_for_newer(self, subscription: Subscription, condition: Condition) -> None:
        is_newer = False
        while not (is_newer or subscription.is_closed):
            updates = await internals_of(self.tracker).wait(subscription)
            is_newer = not all(condition.matches_version(each.progress) for each in updates)

    async def _get(self, grant: AccessGrant, upload_id: str) -> UploadProgress:
        return as_seen_by(grant.subject, await self.tracker.get(upload_id, owner=grant.subject))

    async def _authenticate_for_upload(self, request: RequestContext) -> tuple[AccessGrant, str]:
        grant = await self.authenticator.authenticate(request.connection)
        return grant, check_upload_id(grant.subject, request.path_parameter("upload_id"))

    async def list(self, request: RequestContext) -> Response | None:
        """``GET /uploads/progress``: the uploads of the user and their sum, or a stream."""
        if prefers_event_stream(request.connection):
            return await self.streams.stream_list(request)
        grant = await self.authenticator.authenticate(request.connection)
        if not grant.subject.listable:
            raise UploadNotFound
        query = parse_list_query(request.connection)
        page = await self.tracker.list(
            owner=grant.subject,
            states=query.states,
            group=query.group,
            cursor=query.cursor,
            limit=query.limit,
        )
        uploads = tuple(as_seen_by(grant.subject, progress) for progress in page.uploads)
        return json_response(evolve(page, uploads=uploads))

    async def cancel(self, request: RequestContext) -> Response:
        """``DELETE /uploads/{upload_id}``: cancel an upload."""
        grant, upload_id = await self._authenticate_for_upload(request)
        progress = await self.tracker.cancel(upload_id, owner=grant.subject)
        return json_response(as_seen_by(grant.subject, progress), status=202)

    async def report(self, request: RequestContext) -> Response:
        """``PATCH /uploads/{upload_id}``: what a task reports, with the token of a hand-over."""
        token = bearer_token(request.connection)
        try:
            read_token(token)
        except InvalidValue:
            raise RequestRefused(TOKEN_REQUIRED) from None
        body = await read_body(request.receive, TaskReport, max_bytes=self._max_body_bytes)
        upload_id = request.path_parameter("upload_id")
        reports = internals_of(self.tracker).task_reports
        return json_response(await reports.add(upload_id, token, body))

    async def offset(self, request: RequestContext) -> Response:
        """``HEAD /uploads/{upload_id}``: the first byte that is not accepted.

        The headers are those of tus and the IETF draft.
        """
        grant, upload_id = await self._authenticate_for_upload(request)
        key = UploadKey(grant.subject.owner_of(upload_id), upload_id)
        progress, offset = await internals_of(self.tracker).reader.get_offset(key)
        headers = {
            **COMMON_HEADERS,
            "upload-offset": str(offset),
            "upload-complete": "?1" if progress.state is UploadState.COMPLETED else "?0",
        }
        if progress.total_bytes is not None:
            headers["upload-length"] = str(progress.total_bytes)
        return Response(headers=headers)

    async def subscribe(self, request: RequestContext) -> Response:
        """``POST /uploads/{upload_id}/subscribe``: add an upload to an open WebSocket."""
        grant = await self.authenticator.authenticate(request.connection)
        body = await read_body(request.receive, SubscribeRequest, max_bytes=self._max_body_bytes)
        upload_id = check_upload_id(grant.subject, request.path_parameter("upload_id"))
        await self.sockets.subscribe(body.client_id, grant.subject, upload_id)
        return Response(status_code=204, headers=COMMON_HEADERS)

    async def unsubscribe(self, request: RequestContext) -> Response:
        """``DELETE /uploads/{client_id}/unsubscribe``: remove uploads from an open WebSocket."""
        grant = await self.authenticator.authenticate(request.connection)
        client_id = request.path_parameter("client_id")
        upload_id = request.connection.query.get("upload_id")
        await self.sockets.unsubscribe(client_id, grant.subject, upload_id)
        return Response(status_code=204, headers=COMMON_HEADERS)

    async def ticket(self, request: RequestContext) -> Response:
        """``POST /uploads/tickets``: issue a one-time ticket, and tokens of the push server."""
        grant = await self.authenticator.authenticate(request.connection)
        body = await read_body(request.receive, TicketTargets, max_bytes=self._max_body_bytes)
        access = self.edge_tokens.of(grant, body) if self.edge_tokens else UNSET
        ticket = self.authenticator.tickets.issue(grant)
        return json_response(Ticket(ticket, TICKET_SECONDS, access), status=201)


def _snapshot_headers(progress: UploadProgress) -> dict[str, str]:
    headers = {"etag": entity_tag(progress)}
    if not is_final(progress.state):
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return headers


def _snapshot_response(
    progress: UploadProgress, *, is_known: bool, extra: Mapping[str, str] | None = None
) -> Response:
    headers = {**_snapshot_headers(progress), **(extra or {})}
    if is_known:
        return Response(status_code=304, headers={**COMMON_HEADERS, **headers})
    return json_response(progress, headers=headers)


async def _is_connected_after(
    receive: Receive, wait: Callable[[], Awaitable[None]], timeout_seconds: float
) -> bool:
    """Call *wait* until it returns or the timeout; return whether the client is still connected."""
    connected = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        with connected:
            tasks.start_soon(cancel_on_disconnect, receive, connected)
            with anyio.move_on_after(timeout_seconds):
                await wait()
        tasks.cancel_scope.cancel()
    return not connected.cancelled_caught
