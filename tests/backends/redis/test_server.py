"""``RedisStore`` with a server that fails, is full, or restricts rights."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.resources import files

import anyio
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests._support.leases import let_lease_run_out
from tests._support.paths import ROOT
from tests._support.records import record
from tests._support.server_factories import redis
from tests._support.server_processes import ServerProcess
from tests.conftest import RequireProgram
from upload_progress._model.models import UploadState
from upload_progress.backends import redis as redis_backend
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.backends.redis.store import RedisStore
from upload_progress.exceptions import InvalidValue, StoreBusy
from upload_progress.interfaces import ALL_OWNERS
from upload_progress.testing.lease_contract import comparable

pytestmark = pytest.mark.anyio

GUIDE = ROOT / "docs" / "guides" / "stores.md"
SECONDS = 10.0


@pytest.fixture
def anyio_backend() -> str:
    """Redis's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture
async def admin(redis_server: ServerProcess) -> AsyncIterator[Redis]:
    """Yield a client with all rights on a server of this test."""
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
        yield client


async def test_replica_raises_until_it_is_promoted(
    redis_server: ServerProcess, admin: Redis
) -> None:
    """S05: READONLY, as after a failover to the wrong side."""
    async with RedisStore.open(redis_server.url) as store:
        await store.save([record()])
        try:
            await admin.replicaof("127.0.0.1", 1)
            with pytest.raises(ResponseError, match="read only replica"):
                await store.save([record(sequence=2)])
            assert comparable(await store.load(record().key)) == [record()]
        finally:
            await admin.replicaof("NO", "ONE")
        await store.save([record(sequence=3)])
        assert comparable(await store.load(record().key)) == [record(sequence=3)]


async def test_loading_server_raises_until_it_has_loaded(
    require_program: RequireProgram,
) -> None:
    """S05: LOADING, as after a restart with much data: here 2 ms per key."""
    slowly = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    daemon = redis(require_program, *slowly).start()
    try:
        async with Redis.from_url(daemon.url) as client:
            await client.mset({f"key-{number}": number for number in range(2000)})
            await client.save()
        daemon.kill()
        daemon.start()
        async with RedisStore.open(daemon.url) as store:
            with pytest.raises((BusyLoadingError, TimeoutError)):
                await store.save([record()])
            with anyio.fail_after(SECONDS):
                while not await try_to_save(store):  # noqa: ASYNC110  # the server sends no event
                    await anyio.sleep(0.05)
            assert comparable(await store.load(record().key)) == [record(sequence=2)]
    finally:
        daemon.stop()


async def try_to_save(store: RedisStore) -> bool:
    """Save, and return whether that succeeded."""
    with suppress(BusyLoadingError, TimeoutError):
        await store.save([record(sequence=2)])
        return True
    return False


async def test_full_pool_of_a_client_is_not_a_failure_of_the_server(
    redis_server: ServerProcess, admin: Redis
) -> None:
    """An application may pass a client with few connections, and use them itself."""
    client = Redis.from_url(redis_server.url, max_connections=1)
    async with client, RedisStore(client) as store:
        assert await store.load(record().key) == []
        async with client.client():
            with pytest.raises(StoreBusy):
                await store.load(record().key)
        await admin.config_set("maxclients", "1")
        await client.connection_pool.disconnect()
        with pytest.raises(RedisConnectionError):
            await store.load(record().key)
        await admin.config_set("maxclients", "10000")


async def test_failed_authentication_raises_error_without_password(
    redis_server: ServerProcess, admin: Redis
) -> None:
    """S01 and S05: no password, a wrong one, and the right one."""
    place = redis_server.url.removeprefix("redis://")
    try:
        await admin.config_set("requirepass", "right-secret")
        for url in (redis_server.url, f"redis://:wrong-secret@{place}"):
            async with RedisStore.open(url) as store:
                with pytest.raises(AuthenticationError) as caught:
                    await store.save([record()])
                assert "secret" not in str(caught.value)
        async with RedisStore.open(f"redis://:right-secret@{place}") as store:
            await store.save([record()])
            assert len(await store.load(record().key)) == 1
    finally:
        await admin.config_set("requirepass", "")


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
async def test_unreachable_server_raises_error_without_password(host: str) -> None:
    """S01: the message of the driver holds no secret."""
    async with RedisStore.open(f"redis://user:secret@{host}/0") as store:
        with pytest.raises(RedisConnectionError) as caught:
            await store.save([record()])
    assert "secret" not in str(caught.value)


async def test_evicted_key_is_restored_by_later_writes(
    redis_server: ServerProcess, admin: Redis
) -> None:
    """S06: Redis may evict any key at any time; within 16 writes all keys are restored."""
    async with RedisStore.open(redis_server.url) as store:
        await store.save([record()])
        for key in await admin.keys():
            await admin.delete(key)
            for _ in range(16):
                await store.save([record(sequence=await sequence(store) + 1)])
            assert len(await store.load(record().key)) == 1
            assert len((await store.list("ann")).uploads) == 1
            assert await admin.exists(key)
        await let_lease_run_out(store, "w")
        assert len(await store.overdue(limit=9)) == 1


async def sequence(store: RedisStore) -> int:
    """Return the highest stored sequence."""
    return max((each.sequence for each in await store.load(record().key)), default=0)


async def test_user_of_guide_has_enough_rights(redis_server: ServerProcess, admin: Redis) -> None:
    """D03: least privilege, with the rules of the documentation."""
    [rule] = re.findall(r"ACL SETUSER uploads (on .*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    place = redis_server.url.removeprefix("redis://")
    await admin.execute_command(  # type: ignore[no-untyped-call]  # its gap
        "ACL", "SETUSER", "uploads", *rule.replace("PASSWORD", "few").split()
    )
    try:
        with anyio.fail_after(SECONDS):
            await use(f"redis://uploads:few@{place}", admin)
        async with Redis.from_url(f"redis://uploads:few@{place}") as stranger:
            with pytest.raises(RedisError, match="permission"):
                await stranger.set("of-others", "1")
            with pytest.raises(RedisError, match="permission"):
                await stranger.flushall()
    finally:
        await admin.acl_deluser("uploads")


def test_user_of_guide_has_the_right_to_each_command_of_the_scripts() -> None:
    """Some of them run only for owners with many uploads."""
    [rule] = re.findall(r"ACL SETUSER uploads (on .*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    scripts = files(redis_backend).joinpath("scripts")
    sources = [each.read_text("utf-8") for each in scripts.iterdir() if each.name.endswith(".lua")]
    call = re.compile(r"(?:call_index|redis\.p?call)\(\s*'([A-Z]+)'")
    commands = {name.lower() for source in sources for name in call.findall(source)}

    assert {"zadd", "hmget"} <= commands
    assert commands <= {word.removeprefix("+") for word in rule.split()}


async def use(url: str, admin: Redis) -> None:
    """Run every operation that a tracker uses."""
    async with (
        RedisStore.open(url) as store,
        RedisPublisher.open(url) as publisher,
        publisher.events() as stream,
        publisher.inbox("w"),
    ):
        await stream.subscribe("ann", ALL_OWNERS)
        await publisher.send("w", b"message")
        await admin.script_flush()
        await store.save(
            [record(attempt=2), record("ended", state=UploadState.FAILED, worker=None)]
        )
        assert await store.announce(record("p", state=UploadState.PENDING), limit=9)
        assert len(await store.running("w", limit=9)) == 1
        await let_lease_run_out(store, "w")
        assert len((await store.list("ann")).uploads) == 3
        assert len(await store.overdue(limit=9)) == 1


def test_prefix_with_brace_is_rejected() -> None:
    """D06: the text between the first braces decides the slot of a key."""
    for prefix in ("a{b}", "}", "{"):
        with pytest.raises(InvalidValue, match="prefix"):
            RedisStore.open("redis://127.0.0.1", prefix=prefix)
