"""Two workers behind one address: sockets and tickets of the other worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from attrs import frozen

from tests._support.asgi_client import (
    App,
    as_user,
    build_app,
    client,
    http_scope,
    name_is_password,
    open_connection,
    open_socket,
    websocket_scope,
)
from tests._support.simulation import deadline
from upload_progress import Identity, Limits, MemoryStore, ProgressTracker
from upload_progress._cluster.messages import (
    CancelRequest,
    IdentityReference,
    IdentityReply,
    SocketReply,
    SocketRequest,
    TicketRequest,
    pack,
)
from upload_progress._internals import internals_of
from upload_progress.backends import MemoryPublisher
from upload_progress.connection import Connection
from upload_progress.interfaces import Authenticate
from upload_progress.starlette.auth.tickets import digest_of
from upload_progress.testing import FaultyStore

pytestmark = pytest.mark.anyio


@frozen
class Worker:
    tracker: ProgressTracker
    store: FaultyStore
    app: App


@asynccontextmanager
async def workers(
    limits: Limits | None = None,
    authenticate: Authenticate = name_is_password,
    revalidate_seconds: float = 60.0,
) -> AsyncIterator[list[Worker]]:
    """Run two workers that share a store and a broker."""
    memory, broker = MemoryStore(), MemoryPublisher()
    running = []
    async with AsyncExitStack() as stack:
        for _ in range(2):
            store = FaultyStore(memory)
            tracker = ProgressTracker(store=store, publisher=broker, limits=limits or Limits())
            await stack.enter_async_context(tracker.lifespan())
            app = build_app(
                tracker, authenticate=authenticate, revalidate_seconds=revalidate_seconds
            )
            running.append(Worker(tracker, store, app))
        with deadline():
            yield running


async def subscribe(worker: Worker, user: str, upload_id: str, client_id: object) -> int:
    async with client(worker.app, user) as http:
        path = f"/uploads/{upload_id}/subscribe"
        return (await http.post(path, json={"client_id": client_id})).status_code


async def unsubscribe(worker: Worker, user: str, client_id: object, query: str = "") -> int:
    async with client(worker.app, user) as http:
        return (await http.delete(f"/uploads/{client_id}/unsubscribe{query}")).status_code


async def test_subscriptions_are_changed_from_another_worker() -> None:
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="alice")
        upload_id = pending.upload_id
        async with open_socket(one.app) as connection:
            client_id = (await connection.receive_json())["client_id"]

            assert await subscribe(other, "alice", upload_id, client_id) == 204
            received = await connection.receive_until("progress")
            assert [each["type"] for each in received] == ["subscribed", "progress"]
            await other.tracker.cancel(upload_id, owner="alice")
            assert (await connection.receive_json())["upload"]["state"] == "cancelled"
            assert await unsubscribe(other, "alice", client_id, f"?upload_id={upload_id}") == 204
            assert await connection.receive_json() == {
                "type": "unsubscribed",
                "upload_id": upload_id,
            }
            assert await unsubscribe(other, "alice", client_id) == 204
            assert await connection.receive_json() == {"type": "unsubscribed", "all": True}


async def test_foreign_socket_is_not_found_on_another_worker() -> None:
    """A foreign and an unknown socket get the same response."""
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="bob")
        async with open_socket(one.app) as connection:
            client_id = (await connection.receive_json())["client_id"]
            worker = one.tracker.worker

            assert await subscribe(other, "bob", pending.upload_id, client_id) == 404
            assert await subscribe(other, "alice", pending.upload_id, client_id) == 404
            assert await subscribe(other, "alice", "none", f"{worker}.guess") == 404
            assert await unsubscribe(other, "bob", client_id) == 404
            assert await unsubscribe(other, "alice", f"{worker}.guess") == 404
            # A worker that does not exist does not reply.
            assert await unsubscribe(other, "alice", "unknown.guess") == 404
            assert await subscribe(one, "alice", pending.upload_id, client_id) == 404


async def test_limits_and_store_failures_are_reported_across_workers() -> None:
    async with workers(Limits(subscriptions_per_socket=1)) as [one, other]:
        ids = [(await one.tracker.announce(owner="alice")).upload_id for _ in range(2)]
        async with open_socket(one.app) as connection:
            client_id = (await connection.receive_json())["client_id"]

            assert await subscribe(other, "alice", ids[0], client_id) == 204
            assert await subscribe(other, "alice", ids[1], client_id) == 429
            one.store.fault = "raise"
            assert await subscribe(other, "alice", ids[0], client_id) == 503


async def test_request_without_a_subject_gets_no_reply() -> None:
    async with workers() as [one, other], open_socket(one.app) as connection:
        client_id = (await connection.receive_json())["client_id"]
        call_rpc, who = (
            internals_of(other.tracker).rpc.call,
            IdentityReference.of(Identity("alice")),
        )
        worker = one.tracker.worker

        assert await call_rpc(worker, "subscribe", SocketRequest(client_id, who, None)) is None
        assert await call_rpc(worker, "revalidate_ticket", {"digest": b"unknown"}) is None
        assert await call_rpc(worker, "no such kind", None) is None
        answer = await call_rpc(worker, "unsubscribe", SocketRequest(client_id, who, None))
        assert answer == pack(SocketReply())


async def issue(worker: Worker, user: str = "alice") -> str:
    async with client(worker.app, user) as http:
        return str((await http.post("/uploads/tickets")).json()["ticket"])


async def open_socket_with(worker: Worker, ticket: str, user: str | None = None) -> int:
    """Open a socket with *ticket*; return the status, 101 if it is accepted."""
    headers = as_user(user) if user else {}
    scope = websocket_scope("/uploads/progress", query=f"ticket={ticket}", headers=headers)
    async with open_connection(worker.app, scope) as connection:
        message = await connection.receive()
        return 101 if message["type"] == "websocket.accept" else int(message["status"])


async def test_ticket_is_valid_once_on_any_worker() -> None:
    async with workers() as [one, other]:
        ticket = await issue(one)
        assert ticket.startswith(f"{one.tracker.worker}.")

        assert await open_socket_with(other, ticket) == 101
        assert await open_socket_with(other, ticket) == 401
        assert await open_socket_with(one, ticket) == 401
        ticket = await issue(one)
        assert await open_socket_with(one, ticket) == 101
        assert await open_socket_with(other, ticket) == 401
        assert await open_socket_with(other, await issue(one), "bob") == 401
        assert await open_socket_with(other, "unknown.guess") == 401


async def test_request_without_a_valid_ticket_causes_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither with the name of a real worker, nor with a ticket that was used."""
    async with workers() as [one, other]:
        used, name = await issue(one), one.tracker.worker
        assert await open_socket_with(other, used) == 101
        calls: list[str] = []

        async def call(_rpc: object, worker: str, kind: str, _body: object) -> None:
            calls.append(f"{kind} at {worker}")

        monkeypatch.setattr("upload_progress._cluster.rpc.RpcEndpoint.call", call)
        for ticket in (used, f"{name}.x", used[:-1] + "~", f"{name}.{'x' * 5000}"):
            assert await open_socket_with(other, ticket) == 401
        assert await unsubscribe(other, "alice", f"{name}.{'x' * 44}") == 404
        assert await subscribe(other, "alice", "u", f"{name}.{'x' * 44}") == 404
        assert calls == []
        async with open_socket(one.app) as connection:
            client_id = (await connection.receive_json())["client_id"]
            assert await unsubscribe(other, "alice", client_id) == 404
        assert calls == [f"unsubscribe at {name}"]


async def test_number_of_remembered_tickets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upload_progress.starlette.auth.tickets.MAX_TICKETS", 2)
    async with workers() as [one, other]:
        for _ in range(4):
            assert await open_socket_with(other, await issue(one)) == 101
        [service] = {
            handler.__self__  # type: ignore[attr-defined]  # a bound method
            for handler in internals_of(other.tracker).rpc.handlers["redeem_ticket"]
        }
        assert len(service._used) == 2


async def test_ticket_of_a_custom_identity_is_valid_on_its_own_worker_only() -> None:
    class Tenant(Identity):
        """An identity class of the application."""

    def authenticate(connection: Connection) -> Identity | None:
        return None if "ticket" in connection.query else Tenant("alice")

    async with workers(authenticate=authenticate) as [one, other]:
        assert await open_socket_with(other, await issue(one)) == 401
        assert await open_socket_with(one, await issue(one)) == 101


@pytest.mark.parametrize(("known", "code"), [(False, 4401), (True, None)])
async def test_socket_opened_by_remote_ticket_is_authenticated_again(
    known: bool, code: int | None
) -> None:
    """The worker that issued the ticket authenticates the original request again."""
    is_known = [True]

    async def authenticate(connection: Connection) -> Identity | None:
        shows = connection.header("authorization") is not None
        return Identity("alice") if shows and is_known[0] else None

    async with workers(authenticate=authenticate, revalidate_seconds=0.05) as [one, other]:
        ticket = await issue(one)
        scope = websocket_scope("/uploads/progress", query=f"ticket={ticket}")
        async with open_connection(other.app, scope) as connection:
            assert (await connection.receive())["type"] == "websocket.accept"
            assert (await connection.receive_json())["type"] == "welcome"
            is_known[0] = known
            if code is not None:
                assert await connection.receive_close() == code
            else:
                # It stays open, until the worker that issued the ticket does not reply.
                await connection.send_json(type="subscribe", all=True)
                assert (await connection.receive_json())["type"] == "subscribed"
                internals_of(one.tracker).rpc.handlers.clear()
                assert await connection.receive_close() == 1013


async def test_number_of_kept_redeemed_tickets_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upload_progress.starlette.auth.tickets.MAX_TICKETS", 2)
    async with workers() as [one, other]:
        for _ in range(4):
            assert await open_socket_with(other, await issue(one)) == 101
        [service] = {
            handler.__self__  # type: ignore[attr-defined]  # a bound method
            for handler in internals_of(one.tracker).rpc.handlers["redeem_ticket"]
        }
        assert len(service._redeemed) == 2


async def test_stream_is_opened_by_a_ticket_of_another_worker() -> None:
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="alice")
        scope = http_scope(
            f"/uploads/{pending.upload_id}/progress",
            query=f"ticket={await issue(one)}",
            headers={"accept": "text/event-stream"},
        )
        async with open_connection(other.app, scope) as connection:
            assert (await connection.receive())["status"] == 200
            assert (await connection.receive())["body"].startswith(b"retry:")
            event = (await connection.receive())["body"].decode()
            assert json.loads(event.partition("data: ")[2])["state"] == "pending"


async def test_requests_about_unknown_things_get_no_reply() -> None:
    async with workers() as [one, other]:
        call_rpc = internals_of(other.tracker).rpc.call
        request = TicketRequest(digest_of(f"{one.tracker.worker}.never"))
        assert await call_rpc(one.tracker.worker, "revalidate_ticket", request) is None
        assert await call_rpc(one.tracker.worker, "redeem_ticket", request) is None
        ticket = await issue(one)
        assert await open_socket_with(other, ticket) == 101
        answer = await call_rpc(
            one.tracker.worker, "revalidate_ticket", TicketRequest(digest_of(ticket))
        )
        assert answer == pack(IdentityReply(IdentityReference.of(Identity("alice"))))
        cancel = CancelRequest("alice", "none")
        assert await call_rpc(one.tracker.worker, "cancel", cancel) is None
