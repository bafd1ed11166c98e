"""Asking other workers, and answering them.

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

from upload_progress._cluster.messages import ANSWER, Letter, pack, read
from upload_progress._runtime.circuit_breaker import Backend
from upload_progress._runtime.log_limiter import Complaints
from upload_progress.exceptions import InvalidValue, StoreUnavailable
from upload_progress.interfaces import Missed, Post

__all__ = [
    "AGAIN_SECONDS",
    "ANSWER_SECONDS",
    "Correspondence",
    "Handler",
    "MOST_ASKED",
]

ANSWER_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 1.0
MOST_ASKED: Final = 1000
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
class Correspondence:
    """The letters of one worker.

    Attributes:
        on_missed: Called when letters may have been lost.
        spoiled: Letters that nobody could read, or that came in too large a number.
    """

    post: Post | None
    guard: Backend
    worker: Callable[[], str]
    complaints: Complaints
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
        if post is None or worker == self.worker() or len(self._asked) >= MOST_ASKED:
            return None
        letter = Letter(kind, secrets.token_urlsafe(12), self.worker(), pack(body))
        question = self._asked[letter.id] = _Question()
        try:
            with anyio.move_on_after(ANSWER_SECONDS):
                await self._open()
                await self.guard.call(lambda: post.send(worker, pack(letter)))
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
                self.guard.failed(error)
            await anyio.sleep(AGAIN_SECONDS)

    async def _empty(self, post: Post) -> None:
        async with anyio.create_task_group() as tasks, post.letters(self.worker()) as box:
            self._is_open = True
            self.guard.healed()
            if self._opened is not None:
                self._opened.set()
                self._opened = None
            tasks.start_soon(self._alone, self.on_missed)
            try:
                await self._take(box, tasks)
            finally:
                self._is_open = False
            tasks.cancel_scope.cancel()

    async def _take(self, box: AsyncIterator[bytes | Missed], tasks: TaskGroup) -> None:
        async for letter in box:
            if isinstance(letter, Missed):
                tasks.start_soon(self._alone, self.on_missed)
            elif self._answering >= MOST_ASKED:
                self.spoiled += 1
            else:
                self._open_letter(letter, tasks)

    def _open_letter(self, data: bytes, tasks: TaskGroup) -> None:
        try:
            letter = read(data, Letter)
        except InvalidValue as error:
            self.spoiled += 1
            self.complaints.say("a letter to this worker could not be read", error)
            return
        if letter.kind == ANSWER:
            self._hear(letter)
        else:
            self._answering += 1
            tasks.start_soon(self._alone, lambda: self._answer(letter))

    def _hear(self, answer: Letter) -> None:
        question = self._asked.get(answer.id)
        if question is not None:
            question.answer = answer.body
            question.answered.set()

    async def _answer(self, letter: Letter) -> None:
        try:
            body = b""
            for handler in self._handlers.get(letter.kind, ()):
                body = body or await handler(letter.body) or b""
            answer = pack(Letter(ANSWER, letter.id, body=body))
            await self.guard.call(lambda: self._send(letter.reply_to, answer))
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
            self.complaints.say("answering another worker failed", error)
