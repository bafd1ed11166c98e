"""Remote procedure calls between workers.

Each worker has an inbox that is named after it. A request asks for something that only one worker
can do: cut a transfer that it receives, or send on a WebSocket that it holds. The caller waits for
the reply for a second at most.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._cluster.messages import REPLY, MessageSeal, RpcMessage, pack
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter, first_cause
from upload_progress._runtime.worker import Worker
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.interfaces import ConnectionLost, EventsMissed, MessageTransport

__all__ = [
    "ALL_WORKERS",
    "MAX_PENDING",
    "MAX_REMEMBERED",
    "MAX_SENDING",
    "REPLY_SECONDS",
    "RETRY_SECONDS",
    "Handler",
    "RpcEndpoint",
]

REPLY_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
ALL_WORKERS: Final = "all workers"
"""The name of an inbox that every worker opens; no worker can have it, because of the space."""
MAX_PENDING: Final = 1000
"""Requests that wait for a reply, and as many that are being handled."""
MAX_SENDING: Final = 8
"""Messages that are sent at once; further ones wait."""
MAX_REMEMBERED: Final = 10_000
"""Requests whose ids are remembered: one that arrives again is not handled again."""

Handler = Callable[[bytes], Awaitable[bytes | None]]
"""Returns the body of the reply to the body of a request; None if the request concerns nothing
here."""


@define
class _PendingCall:
    replied: anyio.Event = field(factory=anyio.Event)
    reply: bytes = b""


@define(eq=False, repr=False, kw_only=True)
class RpcEndpoint:
    """Calls other workers, and handles their requests.

    Args:
        transport: Carries the messages; with None, no call reaches another worker.
        breaker: The circuit breaker of the transport.
        worker: This process.
        seal: Marks the messages of this system, and recognises them.
        log_limiter: Logs what fails.
        on_missed: Called when requests to this worker may have been lost.

    Attributes:
        rejected: Messages that are not of this system, could not be decoded, arrived twice, or were
            too many.
    """

    transport: MessageTransport | None
    breaker: CircuitBreaker
    worker: Worker
    seal: MessageSeal
    log_limiter: LogLimiter
    on_missed: Callable[[], Awaitable[None]]
    rejected: int = field(default=0, init=False)
    handlers: dict[str, list[Handler]] = field(factory=dict, init=False)
    _pending: dict[str, _PendingCall] = field(factory=dict, init=False)
    _handling: int = field(default=0, init=False)
    _remembered: dict[str, None] = field(factory=dict, init=False)
    _sending: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(MAX_SENDING), init=False)
    _is_open: bool = field(default=False, init=False)
    _opened: anyio.Event | None = field(default=None, init=False)
    _on_open: list[Callable[[], Awaitable[None]]] = field(factory=list, init=False)

    @property
    def is_open(self) -> bool:
        """Whether messages of other workers arrive."""
        return self._is_open

    def register(self, kind: str, handler: Handler) -> None:
        """Let *handler* reply to requests of *kind*; of several, the first that returns bytes."""
        self.handlers.setdefault(kind, []).append(handler)

    def call_when_open(self, work: Callable[[], Awaitable[None]]) -> None:
        """Call *work* when messages to all workers arrive, and after some may have been lost."""
        self._on_open.append(work)

    async def call(self, worker: str, kind: str, body: object) -> bytes | None:
        """Send a request to another worker, and return the body of its reply.

        Returns:
            None if there is no reply within a second, or the request concerns nothing there.
        """
        transport = self.transport
        if transport is None or worker == self.worker.name or len(self._pending) >= MAX_PENDING:
            return None
        request = RpcMessage(kind, _new_id(), self.worker.name, pack(body))
        pending = self._pending[request.id] = _PendingCall()
        try:
            with anyio.move_on_after(REPLY_SECONDS):
                await self._wait_until_open()
                await self._send(transport, worker, request)
                await pending.replied.wait()
        except StoreUnavailable:
            return None
        finally:
            del self._pending[request.id]
        return pending.reply or None

    async def notify(self, worker: str, kind: str, body: object) -> None:
        """Send a request to which no reply is needed; it may be lost."""
        if self.transport is None:
            return
        with suppress(StoreUnavailable):
            message = RpcMessage(kind, _new_id(), body=pack(body))
            await self._send(self.transport, worker, message)

    async def _send(self, transport: MessageTransport, worker: str, message: RpcMessage) -> None:
        """Send a message: few at once, as each takes a connection to the broker."""
        sealed = self.seal.seal(worker, message)
        async with self._sending:
            await self.breaker.call(lambda: transport.send(worker, sealed))

    async def _wait_until_open(self) -> None:
        """Wait until replies can arrive."""
        if not self._is_open:
            self._opened = self._opened or anyio.Event()
            await self._opened.wait()

    async def run(self) -> None:
        """Receive messages until cancelled."""
        while self.transport is not None:
            try:
                await self._use_inbox(self.transport)
            except Exception as error:  # noqa: BLE001  # any error of a driver: try again
                self.breaker.record_failure(first_cause(error))
            await anyio.sleep(RETRY_SECONDS)

    async def _use_inbox(self, transport: MessageTransport) -> None:
        async with (
            anyio.create_task_group() as tasks,
            transport.inbox(self.worker.name) as inbox,
            transport.inbox(ALL_WORKERS) as common_inbox,
        ):
            self._is_open = True
            self.breaker.record_success()
            if self._opened is not None:
                self._opened.set()
                self._opened = None
            dispatch = partial(self._dispatch, transport, tasks)
            receive_common = partial(self._receive, tasks, common_inbox, self._on_open)
            tasks.start_soon(receive_common, partial(dispatch, ALL_WORKERS))
            try:
                dispatch_own = partial(dispatch, self.worker.name)
                await self._receive(tasks, inbox, [self.on_missed], dispatch_own)
            finally:
                self._is_open = False
            tasks.cancel_scope.cancel()

    async def _receive(
        self,
        tasks: TaskGroup,
        inbox: AsyncIterator[bytes | EventsMissed | ConnectionLost],
        on_missed: Sequence[Callable[[], Awaitable[None]]],
        dispatch: Callable[[bytes], None],
    ) -> None:
        """Receive messages; call *on_missed* first, and whenever messages may have been lost."""
        for work in on_missed:
            tasks.start_soon(self._run_safely, work)
        async for item in inbox:
            if isinstance(item, bytes):
                dispatch(item)
            elif isinstance(item, EventsMissed):
                for work in on_missed:
                    tasks.start_soon(self._run_safely, work)

    def _dispatch(
        self, transport: MessageTransport, tasks: TaskGroup, recipient: str, data: bytes
    ) -> None:
        if self._handling >= MAX_PENDING:
            self.rejected += 1
            return
        try:
            message = self.seal.unseal(recipient, data)
        except InvalidValue as error:
            self.rejected += 1
            self.log_limiter.log_warning("a message to this worker was rejected", error)
            return
        if message.kind == REPLY:
            self._resume(message)
        elif message.id in self._remembered:
            self.rejected += 1
        else:
            self._remember(message.id)
            self._handling += 1
            tasks.start_soon(self._run_safely, lambda: self._handle(message, transport))

    def _resume(self, reply: RpcMessage) -> None:
        """Give *reply* to the call that waits for it, if there is one."""
        pending = self._pending.get(reply.id)
        if pending is not None:
            pending.reply = reply.body
            pending.replied.set()

    def _remember(self, request_id: str) -> None:
        self._remembered[request_id] = None
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    async def _handle(self, request: RpcMessage, transport: MessageTransport) -> None:
        try:
            body = b""
            for handler in self.handlers.get(request.kind, ()):
                body = body or await handler(request.body) or b""
            if not request.reply_to:
                return
            reply = RpcMessage(REPLY, request.id, body=body)
            await self._send(transport, request.reply_to, reply)
        finally:
            self._handling -= 1

    async def _run_safely(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*; its failure is logged, and ends nothing else."""
        try:
            await work()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is logged
            self.log_limiter.log_warning("replying to another worker failed", error)


def _new_id() -> str:
    return secrets.token_urlsafe(12)
