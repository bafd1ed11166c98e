"""Remote procedure calls between workers.

Each worker has an inbox that is named after it. A request asks for something that only one worker
can do: cut a transfer that it receives, or send on a WebSocket that it holds. The caller waits for
the reply for a second at most.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._cluster.messages import REPLY, RpcMessage, pack, unpack
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter, first_cause
from upload_progress._runtime.worker import Worker
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.interfaces import ConnectionLost, EventsMissed, MessageTransport

__all__ = ["ALL_WORKERS", "MAX_PENDING", "REPLY_SECONDS", "RETRY_SECONDS", "Handler", "RpcEndpoint"]

REPLY_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
ALL_WORKERS: Final = "all workers"
"""The name of an inbox that every worker opens; no worker can have it, because of the space."""
MAX_PENDING: Final = 1000
"""Requests that wait for a reply, and as many that are being handled."""

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
        log_limiter: Logs what fails.
        on_missed: Called when requests to this worker may have been lost.

    Attributes:
        rejected: Messages that could not be decoded, or were too many.
    """

    transport: MessageTransport | None
    breaker: CircuitBreaker
    worker: Worker
    log_limiter: LogLimiter
    on_missed: Callable[[], Awaitable[None]]
    rejected: int = field(default=0, init=False)
    _handlers: dict[str, list[Handler]] = field(factory=dict, init=False)
    _pending: dict[str, _PendingCall] = field(factory=dict, init=False)
    _handling: int = field(default=0, init=False)
    _is_open: bool = field(default=False, init=False)
    _opened: anyio.Event | None = field(default=None, init=False)
    _on_open: list[Callable[[], Awaitable[None]]] = field(factory=list, init=False)

    def register(self, kind: str, handler: Handler) -> None:
        """Let *handler* reply to requests of *kind*; of several, the first that returns bytes."""
        self._handlers.setdefault(kind, []).append(handler)

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
        request = RpcMessage(kind, secrets.token_urlsafe(12), self.worker.name, pack(body))
        pending = self._pending[request.id] = _PendingCall()
        try:
            with anyio.move_on_after(REPLY_SECONDS):
                await self._wait_until_open()
                await self.breaker.call(lambda: transport.send(worker, pack(request)))
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
        transport, message = self.transport, pack(RpcMessage(kind, "", body=pack(body)))
        with suppress(StoreUnavailable):
            await self.breaker.call(lambda: transport.send(worker, message))

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
            tasks.start_soon(self._receive, common_inbox, transport, tasks, self._on_open)
            try:
                await self._receive(inbox, transport, tasks, [self.on_missed])
            finally:
                self._is_open = False
            tasks.cancel_scope.cancel()

    async def _receive(
        self,
        inbox: AsyncIterator[bytes | EventsMissed | ConnectionLost],
        transport: MessageTransport,
        tasks: TaskGroup,
        on_missed: Sequence[Callable[[], Awaitable[None]]],
    ) -> None:
        """Receive messages; call *on_missed* first, and whenever messages may have been lost."""
        for work in on_missed:
            tasks.start_soon(self._run_safely, work)
        async for item in inbox:
            if isinstance(item, bytes):
                self._dispatch(item, transport, tasks)
            elif isinstance(item, EventsMissed):
                for work in on_missed:
                    tasks.start_soon(self._run_safely, work)

    def _dispatch(self, data: bytes, transport: MessageTransport, tasks: TaskGroup) -> None:
        if self._handling >= MAX_PENDING:
            self.rejected += 1
            return
        try:
            message = unpack(data, RpcMessage)
        except InvalidValue as error:
            self.rejected += 1
            self.log_limiter.log_warning("a message to this worker could not be decoded", error)
            return
        if message.kind != REPLY:
            self._handling += 1
            tasks.start_soon(self._run_safely, lambda: self._handle(message, transport))
        elif (pending := self._pending.get(message.id)) is not None:
            pending.reply = message.body
            pending.replied.set()

    async def _handle(self, request: RpcMessage, transport: MessageTransport) -> None:
        try:
            body = b""
            for handler in self._handlers.get(request.kind, ()):
                body = body or await handler(request.body) or b""
            if not request.reply_to:
                return
            reply = pack(RpcMessage(REPLY, request.id, body=body))
            await self.breaker.call(lambda: transport.send(request.reply_to, reply))
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
