"""Events and letters over Redis: the contracts, and what may happen to the line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest
from redis.asyncio import Redis

from tests._support.connection_faults import (
    HEARTBEAT_SECONDS,
    LineFaults,
    event,
    heard,
    missed,
    told_at_last,
)
from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from upload_progress._model.cloudevents import CloudEvent, encode_structured
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.testing import MessageTransportContract, PublisherContract


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


class TestRedisPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with RedisPublisher.open(redis_url) as publisher:
            yield publisher


class TestRedisPost(MessageTransportContract):
    @pytest.fixture
    async def post(self, redis_url: str) -> AsyncIterator[RedisPublisher]:
        async with RedisPublisher.open(redis_url) as publisher:
            yield publisher


class TestRedisFaults(LineFaults):
    @pytest.fixture
    def server(self, redis_server: ServerProcess) -> ServerProcess:
        return redis_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> RedisPublisher:
        return RedisPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def tell_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        async with Redis.from_url(url) as client:
            for payload in [*payloads, bytes(10_000_000)]:
                await client.publish(f"upload-progress:events:{key_of(owner)}", payload)
        return len(payloads) + 1

    async def tell_as(self, url: str, owner: str, forged: CloudEvent) -> None:
        await self.tell_raw(url, owner, [encode_structured(forged)])


@pytest.mark.anyio
async def test_a_client_that_is_given_stays_open(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        for sequence in (1, 2):
            async with RedisPublisher(client) as publisher, publisher.listen("ann") as hers:
                await publisher.publish([event(sequence)])
                assert await heard(hers, sequence) == [sequence]
                async with publisher.listen():
                    pass
                async with publisher.listen("bob"):
                    pass
        assert await client.ping()


@pytest.mark.anyio
async def test_what_is_confirmed_twice_was_subscribed_again(redis_url: str) -> None:
    async with RedisPublisher.open(redis_url) as publisher:
        line = await publisher._dial()
        line._confirmations[b"known"] = anyio.Event()
        confirmation = {"type": "subscribe", "pattern": None, "channel": b"known", "data": 1}
        line._take(confirmation)
        line._take({**confirmation, "channel": b"left meanwhile"})
        line._take(None)
        with pytest.raises(ConnectionResetError):
            line._take(confirmation)
        await line.close()


@pytest.mark.anyio
async def test_a_client_that_repairs_itself_without_a_word_is_found_out(
    redis_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """So does redis-py by default."""
    proxy = proxy_to(redis_server.port)
    async with (
        Redis.from_url(f"redis://127.0.0.1:{proxy.port}", health_check_interval=1) as client,
        RedisPublisher(client, heartbeat_seconds=0.1) as publisher,
        publisher.listen("ann") as hers,
        publisher.listen() as everybodys,
    ):
        proxy.reset_connections()
        await missed(hers)
        await missed(everybodys)
        await told_at_last(publisher, event(1))

        assert (await heard(hers, 1))[-1] == 1


def test_a_client_that_decodes_is_refused() -> None:
    with pytest.raises(InvalidValue, match="client: must not decode"):
        RedisPublisher(Redis(decode_responses=True))
