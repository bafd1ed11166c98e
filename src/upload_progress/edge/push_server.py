"""What publishers to push servers have in common: the HTTP requests, and the names of channels."""

import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

import anyio
import httpx2
from attrs import Attribute, define, field, frozen

from upload_progress._fanout.update import Update
from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.codec import encode_json
from upload_progress.exceptions import InvalidValue, NotEntered

__all__ = [
    "MAX_BODY_BYTES",
    "MIN_KEY_BYTES",
    "Channels",
    "PushServer",
    "check_key",
    "check_url",
    "key_bytes",
    "portions",
    "without_slash",
]

MAX_BODY_BYTES: Final = 400_000
"""A batch is sent in requests of this size; a push server may refuse those of 1 MB."""
MIN_KEY_BYTES: Final = 32
_CONNECTIONS: Final = 4


def portions(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Join *texts*, which are JSON, by commas to portions of up to ``MAX_BODY_BYTES``.

    >>> list(portions([b"1", b"2"]))
    [b'1,2']
    """
    portion, size = list[bytes](), 0
    for text in texts:
        if portion and size + len(text) >= MAX_BODY_BYTES:
            yield b",".join(portion)
            portion, size = [], 0
        portion.append(text)
        size += len(text) + 1
    if portion:
        yield b",".join(portion)


def key_bytes(key: str | bytes) -> bytes:
    """Return a key as bytes."""
    return key.encode() if isinstance(key, str) else key


def check_key(_edge: object, attribute: "Attribute[bytes]", key: bytes) -> None:
    """Refuse a key that is too short."""
    if len(key) < MIN_KEY_BYTES:
        raise InvalidValue(f"edge.{attribute.name}", f"must have at least {MIN_KEY_BYTES} bytes")


def check_url(_edge: object, attribute: "Attribute[str]", url: str) -> None:
    """Refuse an address that is none of HTTP."""
    if not url.startswith(("http://", "https://")):
        raise InvalidValue(f"edge.{attribute.name}", "must begin with http:// or https://")


def without_slash(url: str) -> str:
    """Return an address without a slash at its end."""
    return url.rstrip("/")


@frozen(repr=False)
class Channels:
    """The names of channels: HMACs that cannot be computed without the key.

    A channel belongs to one upload, one group, or all uploads of an owner.

    Attributes:
        key: The key.
        prefix: How each name begins.
    """

    key: bytes
    prefix: str

    def of(
        self, namespace: str, owner: str, *, upload_id: str | None = None, group: str | None = None
    ) -> str:
        """Return the channel of an upload, of a group, or of all uploads of *owner*."""
        if upload_id is not None:
            return self.named(["events", namespace, owner, "upload", upload_id])
        if group is not None:
            return self.named(["events", namespace, owner, "group", group])
        return self.named(["events", namespace, owner, "all"])

    def of_update(self, namespace: str, update: Update) -> list[str]:
        """Return the channels on which *update* is published; the first is that of the upload."""
        owner, progress = update.owner, update.progress
        channels = [self.of(namespace, owner, upload_id=progress.upload_id)]
        channels.append(self.of(namespace, owner))
        if progress.group is not None:
            channels.append(self.of(namespace, owner, group=progress.group))
        return channels

    def named(self, parts: Sequence[object]) -> str:
        """Return the name that stands for *parts*."""
        return self.prefix + hmac.digest(self.key, encode_json(parts), "sha256").hex()


@define(eq=False, repr=False)
class PushServer(ABC):
    """A publisher that a tracker enters, and that posts events while it is entered."""

    _client: httpx2.AsyncClient | None = field(default=None, init=False)
    _stack: AsyncExitStack = field(factory=AsyncExitStack, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def __aenter__(self) -> Self:
        """Open the client, which connects with the first request."""
        self._lock = anyio.Lock()
        # Not through a proxy that the environment names: the push server is near.
        client = httpx2.AsyncClient(
            headers=self._headers,
            limits=httpx2.Limits(max_connections=_CONNECTIONS),
            trust_env=False,
        )
        self._client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._client = None
        await self._stack.aclose()

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        """Send *events*, in order.

        Raises:
            NotEntered: The tracker does not run: its lifespan is not entered.
            httpx2.HTTPError: The push server does not answer, or refuses the events.
        """
        # In the order of the calls: an older event must not overtake a newer one.
        async with self._lock:
            for event in events:
                self._add(event.namespace, Update(event.owner, event.data))
            await self._send()

    @property
    @abstractmethod
    def _headers(self) -> Mapping[str, str]:
        """The headers of each request."""

    @abstractmethod
    def _add(self, namespace: str, update: Update) -> None:
        """Add what is sent of *update*."""

    @abstractmethod
    async def _send(self) -> None:
        """Send what was added; the lock is held."""

    async def _request(self, url: str, body: bytes) -> httpx2.Response:
        if self._client is None:
            raise NotEntered(type(self).__name__)
        response = await self._client.post(url, content=body)
        return response.raise_for_status()
