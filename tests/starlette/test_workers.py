"""Two workers behind one address: sockets and tickets of one are known to the other."""

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
    call,
    client,
    http_scope,
    listening,
    name_is_password,
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
    """Run two workers that share a store and a broker while the block runs."""
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


async def test_a_socket_is_spoken_on_from_another_worker() -> None:
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="alice")
        upload_id = pending.upload_id
        async with listening(one.app) as line:
            client_id = (await line.hear_json())["client_id"]

            assert await subscribe(other, "alice", upload_id, client_id) == 204
            heard = await line.hear_until("progress")
            assert [each["type"] for each in heard] == ["subscribed", "progress"]
            await other.tracker.cancel(upload_id, owner="alice")
            assert (await line.hear_json())["upload"]["state"] == "cancelled"
            assert await unsubscribe(other, "alice", client_id, f"?upload_id={upload_id}") == 204
            assert await line.hear_json() == {"type": "unsubscribed", "upload_id": upload_id}
            assert await unsubscribe(other, "alice", client_id) == 204
            assert await line.hear_json() == {"type": "unsubscribed", "all": True}


async def test_what_is_not_theirs_is_not_there() -> None:
    """A17: nothing tells a foreign socket from one that never was, wherever it is."""
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="bob")
        async with listening(one.app) as line:
            client_id = (await line.hear_json())["client_id"]
            worker = one.tracker.worker

            assert await subscribe(other, "bob", pending.upload_id, client_id) == 404
            assert await subscribe(other, "alice", pending.upload_id, client_id) == 404
            assert await subscribe(other, "alice", "none", f"{worker}.guess") == 404
            assert await unsubscribe(other, "bob", client_id) == 404
            assert await unsubscribe(other, "alice", f"{worker}.guess") == 404
            # Of a worker that is not there no answer comes.
            assert await unsubscribe(other, "alice", "nobody.guess") == 404
            assert await subscribe(one, "alice", pending.upload_id, client_id) == 404


async def test_limits_and_failures_are_told_across() -> None:
    async with workers(Limits(subscriptions_per_socket=1)) as [one, other]:
        ids = [(await one.tracker.announce(owner="alice")).upload_id for _ in range(2)]
        async with listening(one.app) as line:
            client_id = (await line.hear_json())["client_id"]

            assert await subscribe(other, "alice", ids[0], client_id) == 204
            assert await subscribe(other, "alice", ids[1], client_id) == 429
            one.store.fault = "raise"
            assert await subscribe(other, "alice", ids[0], client_id) == 503


async def test_a_letter_that_says_nothing_is_answered_by_nobody() -> None:
    async with workers() as [one, other], listening(one.app) as line:
        client_id = (await line.hear_json())["client_id"]
        ask, who = other.tracker.rpc.call, IdentityReference.of(Identity("alice"))
        worker = one.tracker.worker

        assert await ask(worker, "subscribe", SocketRequest(client_id, who, None)) is None
        assert await ask(worker, "revalidate_ticket", {"digest": b"unknown"}) is None
        assert await ask(worker, "no such kind", None) is None
        answer = await ask(worker, "unsubscribe", SocketRequest(client_id, who, None))
        assert answer == pack(SocketReply())


async def issue(worker: Worker, user: str = "alice") -> str:
    async with client(worker.app, user) as http:
        return str((await http.post("/uploads/tickets")).json()["ticket"])


async def enter(worker: Worker, ticket: str, user: str | None = None) -> int:
    """Try to open a socket with *ticket*; return the status, 101 when it is open."""
    headers = as_user(user) if user else {}
    scope = websocket_scope("/uploads/progress", query=f"ticket={ticket}", headers=headers)
    async with call(worker.app, scope) as line:
        message = await line.hear()
        return 101 if message["type"] == "websocket.accept" else int(message["status"])


async def test_a_ticket_is_good_once_at_any_worker() -> None:
    """A16."""
    async with workers() as [one, other]:
        ticket = await issue(one)
        assert ticket.startswith(f"{one.tracker.worker}.")

        assert await enter(other, ticket) == 101
        assert await enter(other, ticket) == 401
        assert await enter(one, ticket) == 401
        ticket = await issue(one)
        assert await enter(one, ticket) == 101
        assert await enter(other, ticket) == 401
        assert await enter(other, await issue(one), "bob") == 401
        assert await enter(other, "nobody.guess") == 401


async def test_a_ticket_of_a_strange_identity_is_good_at_its_own_worker_only() -> None:
    class Tenant(Identity):
        """An identity of the application's own making."""

    def authenticate(connection: Connection) -> Identity | None:
        return None if "ticket" in connection.query else Tenant("alice")

    async with workers(authenticate=authenticate) as [one, other]:
        assert await enter(other, await issue(one)) == 401
        assert await enter(one, await issue(one)) == 101


@pytest.mark.parametrize(("known", "code"), [(False, 4401), (True, None)])
async def test_who_came_in_by_a_ticket_of_another_worker_must_show_it_again(
    known: bool, code: int | None
) -> None:
    """A15: the request that showed it stays where it was; there it is asked again."""
    is_known = [True]

    async def authenticate(connection: Connection) -> Identity | None:
        shows = connection.header("authorization") is not None
        return Identity("alice") if shows and is_known[0] else None

    async with workers(authenticate=authenticate, revalidate_seconds=0.05) as [one, other]:
        ticket = await issue(one)
        scope = websocket_scope("/uploads/progress", query=f"ticket={ticket}")
        async with call(other.app, scope) as line:
            assert (await line.hear())["type"] == "websocket.accept"
            assert (await line.hear_json())["type"] == "welcome"
            is_known[0] = known
            if code is not None:
                assert await line.hear_close() == code
            else:
                # Three lapses later it is still let in, and then its worker goes away.
                await line.tell(type="subscribe", all=True)
                assert (await line.hear_json())["type"] == "subscribed"
                one.tracker.rpc._handlers.clear()
                assert await line.hear_close() == 1013


async def test_tickets_redeemed_elsewhere_are_kept_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upload_progress.starlette.auth.tickets.MAX_TICKETS", 2)
    async with workers() as [one, other]:
        for _ in range(4):
            assert await enter(other, await issue(one)) == 101
        [office] = {
            handler.__self__  # type: ignore[attr-defined]  # a bound method
            for handler in one.tracker.rpc._handlers["redeem_ticket"]
        }
        assert len(office._redeemed) == 2


async def test_a_stream_is_let_in_by_a_ticket_of_another_worker() -> None:
    async with workers() as [one, other]:
        pending = await one.tracker.announce(owner="alice")
        scope = http_scope(
            f"/uploads/{pending.upload_id}/progress",
            query=f"ticket={await issue(one)}",
            headers={"accept": "text/event-stream"},
        )
        async with call(other.app, scope) as line:
            assert (await line.hear())["status"] == 200
            assert (await line.hear())["body"].startswith(b"retry:")
            event = (await line.hear())["body"].decode()
            assert json.loads(event.partition("data: ")[2])["state"] == "pending"


async def test_questions_are_answered_about_what_is_here_only() -> None:
    async with workers() as [one, other]:
        ask = other.tracker.rpc.call
        request = TicketRequest(digest_of(f"{one.tracker.worker}.never"))
        assert await ask(one.tracker.worker, "revalidate_ticket", request) is None
        assert await ask(one.tracker.worker, "redeem_ticket", request) is None
        ticket = await issue(one)
        assert await enter(other, ticket) == 101
        answer = await ask(
            one.tracker.worker, "revalidate_ticket", TicketRequest(digest_of(ticket))
        )
        assert answer == pack(IdentityReply(IdentityReference.of(Identity("alice"))))
        cancel = CancelRequest("alice", "none")
        assert await ask(one.tracker.worker, "cancel", cancel) is None
