"""The publisher over Redis: the contract of all publishers, and lines that break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from attrs import evolve
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.daemons import Daemon
from tests.services import ProxyTo
from upload_progress.cloudevents import encode_structured
from upload_progress.errors import InvalidValue
from upload_progress.model import TransferRecord
from upload_progress.ports import Missed
from upload_progress.publishers.redis import RedisPublisher, _Line
from upload_progress.switchboard import Box, Listener, Switchboard, key_of
from upload_progress.testing import PATIENCE_SECONDS, PostContract, PublisherContract
from upload_progress.wire import CloudEvent

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Redis' driver runs on asyncio."""
    return "asyncio"


async def missed(news: Listener | Box) -> None:
    """Read on until something may have been missed."""
    with anyio.fail_after(3 * PATIENCE_SECONDS):
        has_missed = False
        while not has_missed:
            has_missed = await anext(news) == Missed()


async def heard(news: Listener) -> CloudEvent:
    """Read on until an event comes."""
    with anyio.fail_after(PATIENCE_SECONDS):
        event: CloudEvent | Missed = Missed()
        while isinstance(event, Missed):
            event = await anext(news)
    return event


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisPublisher]:
    async with RedisPublisher.open(url, heartbeat_seconds=0.3) as publisher:
        yield publisher


class TestRedisPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with opened(redis_url) as publisher:
            yield publisher

    async def test_who_came_and_went_is_not_subscribed(self, publisher: RedisPublisher) -> None:
        async with publisher.listen("ann"), publisher.listen():
            pass
        async with publisher.listen("bob"), publisher.listen():
            assert publisher.statistics().is_connected
        async with publisher.listen("bob"):
            names = await publisher.client.pubsub_channels()
        assert f"upload-progress:events:{key_of('bob')}".encode() in names

    async def test_what_is_no_event_or_not_hers_is_passed_over(
        self, publisher: RedisPublisher, record: TransferRecord
    ) -> None:
        """B07 and B08: poison and forgery end nothing."""
        channel = f"upload-progress:events:{key_of('ann')}"
        [forged] = self._events(evolve(record, owner="bob"), 1)
        async with publisher.listen("ann") as hers:
            await publisher.client.publish(channel, b"\xff{")
            await publisher.client.publish(channel, encode_structured(forged))
            await publisher.client.publish("upload-progress:events:nobody", b"")
            await publisher.publish(self._events(record, 3))
            assert (await heard(hers)).data.sequence == 3

        figures = publisher.statistics()
        assert (figures.unreadable, figures.forged, figures.events) == (1, 1, 1)

    @pytest.mark.parametrize("trouble", ["cut", "reset", "silence"])
    async def test_a_line_that_breaks_is_mended_and_says_so(
        self, redis_server: Daemon, proxy_to: ProxyTo, record: TransferRecord, trouble: str
    ) -> None:
        """B01 to B03: also one that is dead and does not know it."""
        proxy = proxy_to(redis_server.port)
        async with opened(f"redis://127.0.0.1:{proxy.port}") as publisher:
            async with publisher.listen("ann") as hers, publisher.letters("w1") as box:
                if trouble == "silence":
                    proxy.is_blackhole = True
                    with anyio.fail_after(PATIENCE_SECONDS):
                        is_connected = True
                        while is_connected:
                            await anyio.sleep(0.01)
                            is_connected = publisher.statistics().is_connected
                    proxy.is_blackhole = False
                else:
                    getattr(proxy, trouble)()
                await missed(hers)
                await missed(box)
                await publisher.publish(self._events(record, 3))
                assert (await heard(hers)).data.sequence == 3
                await publisher.send("w1", b"hello")
                assert await anext(box) == b"hello"
            assert publisher.statistics().breaks >= 1

    async def test_a_server_that_was_killed_is_found_again(
        self, redis_server: Daemon, record: TransferRecord
    ) -> None:
        async with opened(redis_server.url) as publisher, publisher.listen("ann") as hers:
            redis_server.kill()
            with pytest.raises(RedisConnectionError):
                await publisher.publish(self._events(record, 2))
            redis_server.start()
            await missed(hers)
            await publisher.publish(self._events(record, 3))
            assert (await heard(hers)).data.sequence == 3

    async def test_a_client_that_was_given_stays_open(
        self, redis_url: str, record: TransferRecord
    ) -> None:
        async with Redis.from_url(redis_url) as client:
            async with RedisPublisher(client) as publisher:
                await publisher.publish(self._events(record, 1))
            assert await client.ping()


def test_what_is_no_redis_is_refused() -> None:
    with pytest.raises(InvalidValue, match="redis://HOST"):
        RedisPublisher.open("amqp://secret@127.0.0.1")
    with pytest.raises(InvalidValue, match="decode_responses"):
        RedisPublisher(Redis(decode_responses=True))


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(RedisPublisher.open("redis://user:secret@127.0.0.1"))


class Silent(PubSub):
    """A subscription that does nothing: what it would do is not what is tested."""

    def __init__(self) -> None:
        pass

    def __del__(self) -> None:
        pass


def line() -> _Line:
    return _Line(Silent(), Switchboard(), "upload-progress", 1000.0)


async def test_a_moment_without_a_message_is_no_silence() -> None:
    await line()._attend(None)


async def test_what_a_client_subscribed_again_by_itself_is_found_out() -> None:
    """Something may have been missed meanwhile: the line counts as broken."""
    told = {"type": "subscribe", "pattern": None, "channel": b"c", "data": 1}
    subscriptions = line()
    await subscriptions._attend(told)
    subscriptions._confirmations[b"c"] = anyio.Event()
    await subscriptions._attend(told)
    with pytest.raises(ConnectionResetError):
        await subscriptions._attend(told)
    await subscriptions._attend({"type": "message", "pattern": None, "channel": 5, "data": b""})
    await subscriptions._attend({"type": "message", "pattern": None, "channel": b"d", "data": b""})


class TestRedisPost(PostContract):
    @pytest.fixture
    async def post(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with opened(redis_url) as publisher:
            yield publisher
