"""Which workers belong to this system, and which tickets and client ids they have made.

A ticket or a ``client_id`` names the worker that made it. Anyone can send such a text, without
credentials, so this worker asks another one only about a text that was really made there: each
worker signs what it makes with a key of its own, and every worker knows the keys of all others.

Keys are exchanged over the broker, which carries the identities of users between workers anyway.
A worker that opens its inbox introduces itself on a channel that all workers receive, and each of
them introduces itself in return. A text with an unknown name or a wrong signature is refused here.
Only if an introduction may have been lost, the workers are asked once more: at most every 5
seconds, whatever the number of requests. A key is as short-lived as its worker, and is never part
of a response.
"""

import hmac
from base64 import urlsafe_b64encode
from hashlib import blake2b
from secrets import token_urlsafe
from typing import Final, Literal

import anyio
from attrs import define, field

from upload_progress._cluster.messages import WorkerIntroduction, unpack
from upload_progress._cluster.rpc import ALL_WORKERS, REPLY_SECONDS, RpcEndpoint
from upload_progress._runtime.worker import SEPARATOR, Worker, worker_of

__all__ = [
    "ASK_INTERVAL_SECONDS",
    "MAX_WORKERS",
    "SIGNATURE_CHARACTERS",
    "TokenKind",
    "WorkerDirectory",
]

ASK_INTERVAL_SECONDS: Final = 5.0
"""Unknown names cause one question to all workers in this time."""
MAX_WORKERS: Final = 1024
"""Workers whose keys are kept; beyond that, the oldest is forgotten."""
SIGNATURE_CHARACTERS: Final = 22
_SIGNATURE_BYTES: Final = 16

_HELLO: Final = "hello"
_INTRODUCTION: Final = "introduction"

TokenKind = Literal["ticket", "client_id"]


@define(eq=False, repr=False)
class WorkerDirectory:
    """Makes signed tokens of this worker, and recognises those of other workers.

    Args:
        worker: This process.
        rpc: Carries the introductions.
    """

    worker: Worker
    rpc: RpcEndpoint
    _keys: dict[str, bytes] = field(factory=dict, init=False)
    _asked_at: float = field(default=float("-inf"), init=False)
    _learned: anyio.Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        """Handle the introductions of other workers."""
        self.rpc.register(_HELLO, self._handle_hello)
        self.rpc.register(_INTRODUCTION, self._handle_introduction)
        self.rpc.call_when_open(self.introduce)

    def make_token(self, kind: TokenKind, random_bytes: int) -> str:
        """Return a new token: the name of this worker, random bits, and a signature."""
        text = self.worker.name + SEPARATOR + token_urlsafe(random_bytes)
        return text + _signature(kind, text, self.worker.key)

    async def issuer_of(self, kind: TokenKind, token: str) -> str | None:
        """Return the other worker that made *token*; None if no known worker made it.

        It takes constant time, and waits for at most a second, if the workers are being asked.
        """
        name = worker_of(token) or self.worker.name
        if name == self.worker.name or self.rpc.transport is None:
            return None
        if name not in self._keys:
            await self._ask_for(name)
        key = self._keys.get(name)
        if key is None:
            return None
        text, signature = token[:-SIGNATURE_CHARACTERS], token[-SIGNATURE_CHARACTERS:]
        expected = _signature(kind, text, key)
        return name if hmac.compare_digest(_encode(signature), expected.encode()) else None

    async def introduce(self) -> None:
        """Introduce this worker to all others, who do the same in return."""
        await self.rpc.notify(ALL_WORKERS, _HELLO, self._introduction())

    def _introduction(self) -> WorkerIntroduction:
        return WorkerIntroduction(self.worker.name, self.worker.key)

    async def _ask_for(self, name: str) -> None:
        """Wait for the introduction of *name*, while the answers to a question may arrive."""
        now = anyio.current_time()
        is_due = now >= self._asked_at + ASK_INTERVAL_SECONDS
        if is_due:
            self._asked_at = now
        elif now >= self._asked_at + REPLY_SECONDS:
            return
        with anyio.move_on_after(self._asked_at + REPLY_SECONDS - now):
            if is_due:
                await self.introduce()
            while name not in self._keys:
                self._learned = self._learned or anyio.Event()
                await self._learned.wait()

    async def _handle_hello(self, body: bytes) -> bytes | None:
        name = self._learn(body)
        if name is not None:
            await self.rpc.notify(name, _INTRODUCTION, self._introduction())
        return None

    async def _handle_introduction(self, body: bytes) -> bytes | None:
        self._learn(body)
        return None

    def _learn(self, body: bytes) -> str | None:
        """Keep the key of another worker; return the name of that worker."""
        introduced = unpack(body, WorkerIntroduction)
        if introduced.name == self.worker.name:
            return None
        self._keys.pop(introduced.name, None)
        self._keys[introduced.name] = introduced.key
        if len(self._keys) > MAX_WORKERS:
            del self._keys[next(iter(self._keys))]
        if self._learned is not None:
            self._learned.set()
            self._learned = None
        return introduced.name


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _signature(kind: TokenKind, text: str, key: bytes) -> str:
    """Return the keyed BLAKE2b of *text* (RFC 7693, section 2.9), as base64url."""
    digest = blake2b(_encode(text), digest_size=_SIGNATURE_BYTES, key=key, person=kind.encode())
    return urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
