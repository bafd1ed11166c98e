"""UploadAuthentication other workers, and answering them.

Each worker has a box, named after it. A letter asks for something that only that worker can do:
cut a transfer that it receives, speak on a socket that it holds. The answer comes within a
second, or not at all, and whoever asked has to know what to do then.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from upload_progress._cluster.messages import ANSWER, RpcMessage, pack, read
from upload_progress._runtime.circuit_breaker import CircuitBreaker
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.interfaces import EventsMissed, MessageTransport

__all__ = [
    "AGAIN_SECONDS",
    "ANSWER_SECONDS",
    "RpcEndpoint",
    "Handler",
    "MAX_PENDING",
]

ANSWER_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 1.0
MAX_PENDING: Final = 1000
"""Questions that wait for an answer, and letters that are being answered."""

Handler = Callable[[bytes], Awaitable[bytes | None]]
"""Answers the body of a letter; None when it is about nothing that is here."""


async def _ignore() -> None:
    """Stand in until somebody cares about what was missed."""


@define
class _Question:
    answered: anyio.Event = field(factory=anyio.Event)
    answer: bytes | None = None


@define(eq=False, repr=False)
class RpcEndpoint:
    """The letters of one worker.

    Attributes:
        on_missed: Called when letters may have been lost.
        spoiled: Letters that nobody could read, or that came in too large a number.
    """

    post: MessageTransport | None
    breaker: CircuitBreaker
    worker: Callable[[], str]
    log_limiter: LogLimiter
    on_missed: Callable[[], Awaitable[None]] = field(default=_ignore, init=False)
    spoiled: int = field(default=0, init=False)
    _handlers: dict[str, list[Handler]] = field(factory=dict, init=False)
    _asked: dict[str, _Question] = field(factory=dict, init=False)
    _answering: int = field(default=0, init=False)
    _is_open: bool = field(default=False, init=False)
    _opened: anyio.Event | None = field(default=None, init=False)

    def on(self, kind: str, handler: Handler) -> None:
        """Let *handler* answer letters of that kind; of several the first that knows answers."""
        self._handlers.setdefault(kind, []).append(handler)

    async def ask(self, worker: str, kind: str, body: object) -> bytes | None:
        """Return what another worker answers; None when it does not, or has nothing to say."""
        post = self.post
        if post is None or worker == self.worker() or len(self._asked) >= MAX_PENDING:
            return None
        letter = RpcMessage(kind, secrets.token_urlsafe(12), self.worker(), pack(body))
        question = self._asked[letter.id] = _Question()
        try:
            with anyio.move_on_after(ANSWER_SECONDS):
                await self._open()
                await self.breaker.call(lambda: post.send(worker, pack(letter)))
                await question.answered.wait()
        except StoreUnavailable:
            return None
        finally:
            del self._asked[letter.id]
        return question.answer or None

    async def _open(self) -> None:
        """Wait until answers can come."""
        if not self._is_open:
            self._opened = self._opened or anyio.Event()
            await self._opened.wait()

    async def run(self) -> None:
        """Empty the box for ever."""
        while self.post is not None:
            try:
                await self._empty(self.post)
            except Exception as error:  # noqa: BLE001  # whatever a driver raises means: not now
                self.breaker.record_failure(error)
            await anyio.sleep(AGAIN_SECONDS)

    async def _empty(self, post: MessageTransport) -> None:
        async with anyio.create_task_group() as tasks, post.letters(self.worker()) as box:
            self._is_open = True
            self.breaker.record_success()
            if self._opened is not None:
                self._opened.set()
                self._opened = None
            tasks.start_soon(self._alone, self.on_missed)
            try:
                await self._take(box, tasks)
            finally:
                self._is_open = False
            tasks.cancel_scope.cancel()

    async def _take(self, box: AsyncIterator[bytes | EventsMissed], tasks: TaskGroup) -> None:
        async for letter in box:
            if isinstance(letter, EventsMissed):
                tasks.start_soon(self._alone, self.on_missed)
            elif self._answering >= MAX_PENDING:
                self.spoiled += 1
            else:
                self._open_letter(letter, tasks)

    def _open_letter(self, data: bytes, tasks: TaskGroup) -> None:
        try:
            letter = read(data, RpcMessage)
        except InvalidValue as error:
            self.spoiled += 1
            self.log_limiter.warn("a letter to this worker could not be read", error)
            return
        if letter.kind == ANSWER:
            self._hear(letter)
        else:
            self._answering += 1
            tasks.start_soon(self._alone, lambda: self._answer(letter))

    def _hear(self, answer: RpcMessage) -> None:
        question = self._asked.get(answer.id)
        if question is not None:
            question.answer = answer.body
            question.answered.set()

    async def _answer(self, letter: RpcMessage) -> None:
        try:
            body = b""
            for handler in self._handlers.get(letter.kind, ()):
                body = body or await handler(letter.body) or b""
            answer = pack(RpcMessage(ANSWER, letter.id, body=body))
            await self.breaker.call(lambda: self._send(letter.reply_to, answer))
        finally:
            self._answering -= 1

    async def _send(self, worker: str, data: bytes) -> None:
        assert self.post is not None  # noqa: S101  # a letter came by it
        await self.post.send(worker, data)

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work* so that its failure ends nothing else."""
        try:
            await work()
        except StoreUnavailable:
            return
        except Exception as error:  # noqa: BLE001  # it is reported, and ends nothing else
            self.log_limiter.warn("answering another worker failed", error)
