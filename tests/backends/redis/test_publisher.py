"""Events and messages over Redis: the contracts, and faults of server and connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import pytest
from redis.asyncio import Redis

from tests._support.connection_faults import (
    HEARTBEAT_SECONDS,
    ConnectionFaults,
    event,
    missed,
    publish_with_retries,
    received,
)
from tests._support.server_processes import ServerProcess
from tests._support.services import ProxyTo
from upload_progress._model.cloudevents import CloudEvent, encode_structured
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.subscriptions import key_of
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import ALL_OWNERS
from upload_progress.testing import MessageTransportContract, PublisherContract
from upload_progress.testing.publisher_contract import subscribed


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Its driver runs on asyncio only."""
    return "asyncio"


@pytest.fixture(params=["redis_url", "valkey_url"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[RedisPublisher]:
    """Yield a publisher at Redis, and at Valkey."""
    async with RedisPublisher.open(request.getfixturevalue(request.param)) as publisher:
        yield publisher


class TestRedisPublisher(PublisherContract):
    @pytest.fixture
    async def publisher(self, opened: RedisPublisher) -> RedisPublisher:
        return opened


class TestRedisTransport(MessageTransportContract):
    @pytest.fixture
    async def transport(self, opened: RedisPublisher) -> RedisPublisher:
        return opened


class TestRedisFaults(ConnectionFaults):
    @pytest.fixture
    def server(self, redis_server: ServerProcess) -> ServerProcess:
        return redis_server

    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> RedisPublisher:
        return RedisPublisher.open(url, heartbeat_seconds=heartbeat_seconds)

    async def publish_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        async with Redis.from_url(url) as client:
            for payload in [*payloads, bytes(10_000_000)]:
                await client.publish(f"upload-progress:events:{key_of(owner)}", payload)
        return len(payloads) + 1

    async def publish_forged(self, url: str, owner: str, forged: CloudEvent) -> None:
        await self.publish_raw(url, owner, [encode_structured(forged)])


@pytest.mark.anyio
async def test_client_that_is_passed_in_stays_open(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        for sequence in (1, 2):
            async with RedisPublisher(client) as publisher, subscribed(publisher, "ann") as stream:
                await publisher.publish([event(sequence)])
                assert await received(stream, sequence) == [sequence]
                async with subscribed(publisher, ALL_OWNERS):
                    pass
                async with subscribed(publisher, "bob"):
                    pass
        assert await client.ping()


@pytest.mark.anyio
async def test_second_confirmation_is_a_lost_connection(redis_url: str) -> None:
    async with RedisPublisher.open(redis_url) as publisher:
        connection = await publisher._connect()
        connection._confirmations[b"known"] = anyio.Event()
        confirmation = {"type": "subscribe", "pattern": None, "channel": b"known", "data": 1}
        connection._handle(confirmation)
        connection._handle({**confirmation, "channel": b"unsubscribed meanwhile"})
        connection._handle(None)
        with pytest.raises(ConnectionResetError):
            connection._handle(confirmation)
        await connection.close()


@pytest.mark.anyio
async def test_reconnect_of_the_client_itself_is_reported(
    redis_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """redis-py reconnects by itself by default."""
    proxy = proxy_to(redis_server.port)
    async with (
        Redis.from_url(f"redis://127.0.0.1:{proxy.port}", health_check_interval=1) as client,
        RedisPublisher(client, heartbeat_seconds=0.1) as publisher,
        subscribed(publisher, "ann") as stream,
        subscribed(publisher, ALL_OWNERS) as all_owners,
    ):
        proxy.reset_connections()
        await missed(stream)
        await missed(all_owners)
        await publish_with_retries(publisher, event(1))

        assert (await received(stream, 1))[-1] == 1


def test_client_that_decodes_is_refused() -> None:
    with pytest.raises(InvalidValue, match="client: must not decode"):
        RedisPublisher(Redis(decode_responses=True))
