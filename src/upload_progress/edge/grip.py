"""GRIP: event streams that a proxy such as Pushpin holds, in place of this process.

The proxy passes a request for an event stream to the routes. They authenticate it, and answer with
the current snapshot and the names of channels; the proxy keeps the connection, and writes to it
what is published on them. A channel belongs to one upload, one group, or all uploads of an owner.
The name of a channel is an HMAC with the key: without the key it cannot be computed.

The proxy does not know when a right ends. So each stream is also on a channel of the second in
which it was opened, and every worker publishes ``close`` on that channel when ``hold_seconds`` have
passed. The client then opens another stream, and is authenticated. The name follows from the clock
alone: no worker keeps anything for a stream, and the close does not depend on the worker that
opened it.

A request of Pushpin 1.36 whether to hold on (``Grip-Link``) is not used: it sends 10 per second.

Sources: the GRIP protocol (pushpin.org/docs/protocols/grip), Pushpin 1.36.
"""

import time
from collections.abc import Mapping
from typing import Final, Self

import anyio
import httpx2
import jwt
from attrs import Factory, define, field

from upload_progress._fanout.update import Topic, Update
from upload_progress._model.codec import encode_json
from upload_progress.connection import Connection
from upload_progress.edge.push_server import (
    Channels,
    PushServer,
    check_key,
    check_url,
    key_bytes,
    portions,
    without_slash,
)
from upload_progress.exceptions import InvalidValue

__all__ = ["MAX_REPEATED", "MIN_HOLD_SECONDS", "REPEAT_SECONDS", "GripProxy"]

REPEAT_SECONDS: Final = 2.0
"""The end of an upload is published again after that time, for streams that the proxy did not hold
yet: their snapshots were read before the end."""
MAX_REPEATED: Final = 10_000
MIN_HOLD_SECONDS: Final = 3
_TICK_SECONDS: Final = 1.0
_KEEP_ALIVE: Final = r": heartbeat\n\n; format=cstring; timeout=15"
_CLOSE: Final = {"http-stream": {"action": "close"}}


def _check_seconds(_proxy: object, _attribute: object, seconds: object) -> None:
    if not isinstance(seconds, int) or seconds < MIN_HOLD_SECONDS:
        problem = f"must be a whole number of seconds, at least {MIN_HOLD_SECONDS}"
        raise InvalidValue("edge.hold_seconds", problem)


def _item(channel: str, formats: Mapping[str, object]) -> bytes:
    return encode_json({"channel": channel, "formats": formats})


@define(eq=False, repr=False)
class GripProxy(PushServer):
    """A proxy of the GRIP protocol, such as Pushpin, that holds the event streams of watchers.

    Example:
        ::

            from upload_progress.edge import GripProxy

            proxy = GripProxy("http://127.0.0.1:5561", key="32 or more random characters ....")
            tracker = ProgressTracker(edge=proxy)

    Args:
        control_url: The address of its HTTP control port, without a path.
        key: Its ``sig_key``, at least 32 bytes, by which requests that it has passed on are
            recognised.
        hold_seconds: How long a stream is held at most; its client then opens another one, and is
            authenticated again. At most the ``revalidate_seconds`` of the routes. Default: 60.

    Raises:
        InvalidValue: The address, the key or the time is not valid.
    """

    control_url: str = field(converter=without_slash, validator=check_url)
    key: bytes = field(kw_only=True, converter=key_bytes, validator=check_key)
    hold_seconds: int = field(default=60, kw_only=True, validator=_check_seconds)
    _items: list[bytes] = field(factory=list, init=False)
    _repeated: dict[Topic, tuple[float, list[bytes]]] = field(factory=dict, init=False)
    _closed_until: int = field(default=0, init=False)
    _channels: Channels = field(
        default=Factory(lambda self: Channels(self.key, "up-"), takes_self=True), init=False
    )

    # Publishing

    async def __aenter__(self) -> Self:
        """Open the client; repeat ends and close streams in the background."""
        await super().__aenter__()
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self._tick)
        return self

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(_TICK_SECONDS)
            async with self._lock:
                now = int(time.time())
                self._close_before(now)
                self._repeat()
                try:
                    await self._send()
                except httpx2.HTTPError:
                    continue  # publishing logs it; streams are closed with the next tick
                self._closed_until = now

    def _close_before(self, now: int) -> None:
        """Close the streams that were opened ``hold_seconds`` ago, but for the time of a tick.

        Seconds are counted in a circle. At first, streams of all seconds are closed that may be
        left from before the start of this process.
        """
        oldest = now - self.hold_seconds + 2
        closed = max(self._closed_until - self.hold_seconds + 2, oldest - self.hold_seconds)
        self._items += [_item(self._second(at), _CLOSE) for at in range(closed, oldest)]

    def _repeat(self) -> None:
        until = time.monotonic() - REPEAT_SECONDS
        for topic in [topic for topic, (at, _) in self._repeated.items() if at <= until]:
            self._items += self._repeated.pop(topic)[1]

    @property
    def _headers(self) -> Mapping[str, str]:
        return {"content-type": "application/json"}

    def _add(self, namespace: str, update: Update) -> None:
        message = {"http-stream": {"content": update.sse.decode()}}
        channels = self._channels.of_update(namespace, update)
        items = [_item(each, message) for each in channels]
        if update.is_end and not update.is_inferred_end:
            items.append(_item(channels[0], _CLOSE))
        self._items += items
        self._repeated.pop(update.topic, None)
        if update.is_end:
            self._repeated[update.topic] = time.monotonic(), items
            if len(self._repeated) > MAX_REPEATED:
                del self._repeated[next(iter(self._repeated))]

    async def _send(self) -> None:
        items, self._items = self._items, []
        for portion in portions(items):
            await self._request(f"{self.control_url}/publish/", b'{"items":[%b]}' % portion)

    def _second(self, at: int) -> str:
        """Return the channel of the streams that are opened in a second."""
        return self._channels.named(["opened", self.hold_seconds, at % (2 * self.hold_seconds)])

    # Holding

    def is_proxied(self, connection: Connection) -> bool:
        """Return whether the proxy has passed on a request; it signs each of them."""
        signatures = connection.headers("grip-sig")
        if len(signatures) != 1:
            return False
        try:
            jwt.decode(signatures[0], self.key, ["HS256"], options={"require": ["exp"]})
        except jwt.InvalidTokenError:
            return False
        return True

    def hold(
        self, namespace: str, owner: str, *, upload_id: str | None = None, group: str | None = None
    ) -> Mapping[str, str]:
        """Return the headers of a response with which the proxy holds the stream.

        Args:
            namespace: The system that the owner belongs to.
            owner: The owner of the uploads.
            upload_id: The upload; None for all, or those of a group.
            group: The group.
        """
        channel = self._channels.of(namespace, owner, upload_id=upload_id, group=group)
        return {
            "grip-hold": "stream",
            "grip-channel": f"{channel}, {self._second(int(time.time()))}",
            "grip-keep-alive": _KEEP_ALIVE,
        }
