"""Redis behind Sentinels, and URLs of Redis and Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from tests._support.connection_faults import event, publish_with_retries, received, until
from tests._support.records import record
from tests._support.server_factories import redis, redis_sentinel
from tests._support.server_processes import ServerProcess
from tests.conftest import RequireProgram
from upload_progress import InvalidValue, ProgressTracker, UploadState
from upload_progress.backends.redis import RedisPublisher, RedisStore
from upload_progress.backends.redis.client import close_client, open_client
from upload_progress.testing.publisher_contract import subscribed

SECONDS = 60.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture
async def service(
    require_program: RequireProgram,
) -> AsyncIterator[tuple[ServerProcess, ServerProcess]]:
    """Run a Sentinel, and the primary of its service, which has a replica."""
    primary, replica = (
        redis(require_program, "--repl-diskless-sync-delay", "0").start() for _ in range(2)
    )
    started = [primary, replica]
    try:
        with anyio.fail_after(SECONDS):
            async with open_client(replica.url) as client:
                await client.replicaof("127.0.0.1", primary.port)
            await until_answer_contains(replica, "'master_link_status': 'up'", "INFO")
            started += [redis_sentinel(require_program, primary).start()]
            await until_answer_contains(started[-1], "'slaves': 1", "INFO")
        yield started[-1], primary
    finally:
        for server in started:
            server.stop()


async def until_answer_contains(server: ServerProcess, wanted: str, command: str) -> None:
    answer: object = None
    while wanted not in str(answer):
        await anyio.sleep(0.02)
        async with Redis(port=server.port) as client:
            answer = await client.execute_command(command)  # type: ignore[no-untyped-call]  # its gap


@pytest.mark.anyio
async def test_tracker_finds_the_new_primary_after_a_failover(
    service: tuple[ServerProcess, ServerProcess],
) -> None:
    """Uploads go on, and their ends are stored and published at the new primary."""
    sentinel, primary = service
    with anyio.fail_after(SECONDS):
        tracker = ProgressTracker.from_url(f"{sentinel.url}/2")
        async with tracker.lifespan():
            assert tracker.config.namespace == "upload-progress.2"
            async with tracker.track(owner="ann", upload_id="up", total_bytes=9) as upload:
                upload.advance(5)
                await until(lambda: tracker.statistics().records_written)
                primary.kill()
                upload.advance(4)
            await until(lambda: not tracker.statistics().live_uploads)
        other = ProgressTracker.from_url(f"{sentinel.url}/2")
        async with other.lifespan():
            ended = await other.get("up", owner="ann")

    assert (ended.state, ended.bytes_transferred) == (UploadState.COMPLETED, 9)


@pytest.mark.anyio
async def test_subscription_follows_the_new_primary(
    service: tuple[ServerProcess, ServerProcess],
) -> None:
    sentinel, primary = service
    with anyio.fail_after(SECONDS):
        async with (
            RedisPublisher.open(sentinel.url, heartbeat_seconds=0.5) as publisher,
            subscribed(publisher, "ann") as stream,
        ):
            await publisher.publish([event(1)])
            assert await received(stream, 1) == [1]
            primary.kill()
            await until(lambda: publisher.statistics().connection_failures)
            await until(lambda: publisher.statistics().is_connected)
            await publish_with_retries(publisher, event(2))
            assert (await received(stream, 2))[-1] == 2


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_scheme_of_either_server(scheme: str, redis_url: str) -> None:
    async with RedisStore.open(f"{scheme}:{redis_url.partition(':')[2]}") as store:
        await store.save([record("scheme")])
        assert len(await store.load(record("scheme").key)) == 1


def sentinel_options(url: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the parameters of connections to the service, and of those to its Sentinels."""
    client: Any = open_client(url)
    pool = client.connection_pool
    sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    return {"service": pool.service_name, **pool.connection_kwargs}, sentinels


def test_parts_of_a_sentinel_url() -> None:
    service, sentinels = sentinel_options(
        "rediss+sentinel://ann:p%40ss@one:1,two/my%20service/3"
        "?sentinel_username=guard&sentinel_password=secret"
    )

    assert (service["service"], service["db"]) == ("my service", 3)
    assert (service["username"], service["password"]) == ("ann", "p@ss")
    assert [(each["host"], each["port"]) for each in sentinels] == [("one", 1), ("two", 26379)]
    assert {(each["username"], each["password"]) for each in sentinels} == {("guard", "secret")}


def test_sentinel_url_without_credentials() -> None:
    service, [sentinel] = sentinel_options("valkey+sentinel://[::1]:5/uploads")

    assert (service["db"], service["username"], service["password"]) == (0, None, None)
    assert (sentinel["host"], sentinel["username"], sentinel["password"]) == ("::1", None, None)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host",
        "redis+sentinel://host/",
        "redis+sentinel://:secret@/uploads",
        "redis+sentinel://host:port/uploads?sentinel_password=secret",
        "redis+sentinel://host,/uploads",
        "redis+sentinel://host/uploads/secret",
        "valkey://host:secret",
        "mysql://host",
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match=r"redis\+sentinel://HOST:PORT") as caught:
        open_client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.anyio
async def test_client_of_sentinels_is_closed(service: tuple[ServerProcess, ServerProcess]) -> None:
    client: Any = open_client(service[0].url)
    await client.ping()
    pool = client.connection_pool

    await close_client(client)

    for each in (pool, pool.sentinel_manager.sentinels[0].connection_pool):
        assert not any(connection.is_connected for connection in each._available_connections)
