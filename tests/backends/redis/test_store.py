"""``RedisStore``: the contract of all stores, and what is particular to Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from tests._support import server_factories as recipes
from tests._support.leases import let_lease_run_out
from tests._support.records import record
from tests._support.server_processes import ServerProcess, free_port
from tests._support.services import ProxyTo
from tests.conftest import RequireProgram
from upload_progress._model.models import UploadKey, UploadState
from upload_progress.backends.redis.client import close_client, open_client
from upload_progress.backends.redis.store import RedisStore
from upload_progress.backends.subscriptions import key_of
from upload_progress.config import Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.testing import StoreContract
from upload_progress.testing.lease_contract import comparable

pytestmark = pytest.mark.anyio

S = UploadState


@pytest.fixture
def anyio_backend() -> str:
    """Redis's driver runs on asyncio."""
    return "asyncio"


@pytest.fixture(params=["redis_url", "valkey_url"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """Yield a client of an empty server; all tests with it run against Redis and Valkey."""
    client = open_client(request.getfixturevalue(request.param))
    assert isinstance(client, Redis)
    await client.flushall()
    yield client
    await close_client(client)


async def ask(node: Redis, *words: str | int) -> object:
    """Send a command that redis-py has for clusters only."""
    answer: object = await node.execute_command(*words)  # type: ignore[no-untyped-call]  # its gap
    return answer


@pytest.fixture
async def cluster_server(require_program: RequireProgram) -> AsyncIterator[ServerProcess]:
    """Run a cluster of one node, which checks slots like one of many."""
    bus = ("--cluster-port", str(free_port()))
    daemon = recipes.redis(require_program, "--cluster-enabled", "yes", *bus).start()
    try:
        async with Redis(host="127.0.0.1", port=daemon.port) as node:
            await ask(node, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            is_up = False
            while not is_up:
                await anyio.sleep(0.02)
                is_up = "cluster_state:ok" in str(await ask(node, "CLUSTER", "INFO"))
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def store(client: Redis) -> RedisStore:
    return RedisStore(client)


async def every_key(client: Redis) -> list[bytes]:
    return [key for key in await client.keys() if isinstance(key, bytes)]


def upload_key(upload_id: str = "up", owner: str = "ann") -> str:
    return f"upload-progress:{{0}}:u:{key_of(owner)}:{upload_id}"


def worker_key(kind: str, worker: str) -> str:
    return f"upload-progress:{{0}}:{kind}:{key_of(worker)}"


class TestRedisStore(StoreContract):
    @pytest.fixture
    def store(self, client: Redis) -> RedisStore:
        return RedisStore(client, retention=self.RETENTION)


async def test_batch_is_one_round_trip(client: Redis, store: RedisStore) -> None:
    """Budget: one call of a script, whatever the number of uploads."""
    await store.save([record()])
    before = int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])

    await store.save([record(f"u{number}") for number in range(500)])

    after = int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])
    assert after - before == 1


async def test_newer_version_of_running_transfer_costs_two_commands(
    client: Redis, store: RedisStore
) -> None:
    """Budget: it is compared with the stored one and replaces it; no index is read or written."""
    uploads = [f"u{number}" for number in range(100)]
    await store.save([record(upload, sequence=1) for upload in uploads])
    await client.config_resetstat()

    assert await store.save([record(upload, sequence=2) for upload in uploads]) == []

    used = await client.info("commandstats")
    names = ("evalsha", "time", "hget", "hset")
    assert [used.pop(f"cmdstat_{name}")["calls"] for name in names] == [1, 1, 100, 100]
    assert [name for name in used if "config" not in name] == []


async def test_every_key_has_a_time_to_live(client: Redis, store: RedisStore) -> None:
    """Nothing is left behind if all workers go away."""
    await store.save(
        [
            record(),
            record("p", state=S.PENDING, worker=None),
            record("e", state=S.COMPLETED, worker=None),
        ]
    )
    await store.renew("w", seconds=15)

    seconds_by_key = {str(key, "utf-8"): await client.ttl(key) for key in await every_key(client)}

    assert len(seconds_by_key) == 13
    assert min(seconds_by_key.values()) > 0
    assert 3500 < seconds_by_key[upload_key("e")] <= 3600
    assert seconds_by_key[upload_key("p")] > 24 * 3600


async def test_index_of_an_owner_expires_with_the_last_upload(
    client: Redis, store: RedisStore
) -> None:
    """Without users, each upload is an owner, and the keys of a day would be left behind."""
    index, done = f"upload-progress:{{0}}:o:{key_of('ann')}", {"state": S.COMPLETED, "worker": None}
    await store.save([record("first"), record("second")])
    await store.save([record("first", sequence=2, **done)])
    assert await client.ttl(index) > 24 * 3600
    await store.save([record("second", sequence=2, **done)])
    assert max([await client.ttl(key) for key in await every_key(client) if b"u:" in key]) <= 3600
    assert await client.ttl(index) <= 3600

    await store.save([record("third")])
    assert await client.ttl(index) > 24 * 3600
    await client.delete(upload_key("first"))
    await client.zrem(f"upload-progress:{{0}}:e:{key_of('ann')}", "first")
    await store.save([record("third", sequence=2, **done)])
    assert await client.ttl(index) <= 3600


async def test_silent_upload_is_kept_while_its_worker_lives(
    client: Redis, store: RedisStore
) -> None:
    """S14: an application may take longer to answer than the time to live of keys."""
    await store.save([record()])
    await store.renew("w", seconds=15)
    keys = [upload_key(), f"upload-progress:{{0}}:o:{key_of('ann')}", worker_key("w", "w")]
    for key in [*keys, "upload-progress:{0}:leases"]:
        await client.expire(key, 100)

    await store.renew("w", seconds=15)
    assert await client.ttl(upload_key()) <= 100
    await client.delete(worker_key("k", "w"))
    await store.renew("w", seconds=15)

    for key in [*keys, "upload-progress:{0}:leases"]:
        assert await client.ttl(key) > 24 * 3600


async def test_owner_index_drops_expired_uploads(client: Redis, store: RedisStore) -> None:
    for number in range(50):
        await store.save([record(f"u{number}", created_at=float(number))])
        await client.delete(upload_key(f"u{number}"))

    index = f"upload-progress:{{0}}:o:{key_of('ann')}"
    assert await client.zcard(index) <= 2
    assert (await store.list("ann")).uploads == ()
    assert await client.zcard(index) == 0


async def test_page_of_list_scans_a_bounded_number_of_uploads(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upload_progress.backends.redis.store.LIST_SCAN_LIMIT", 4)
    await store.save([record(f"u{number}", created_at=float(number)) for number in range(10)])
    await store.save([record("wanted", created_at=-1.0, group="g")])

    pages, cursor = 0, None
    found: list[str] = []
    while pages == 0 or cursor is not None:
        page = await store.list("ann", group="g", cursor=cursor)
        found += [upload[0].upload_id for upload in page.uploads]
        pages, cursor = pages + 1, page.next

    assert found == ["wanted"]
    assert pages == 3


async def test_value_of_newer_release_is_kept_and_unreadable_value_is_skipped(
    client: Redis, store: RedisStore
) -> None:
    """D03 and D04: such values are neither read nor overwritten, and do not end an upload."""
    future = b"2\tsomething else\n\x00"
    await client.hset(upload_key(), mapping={"t": future, "": "ann"})
    await client.hset(upload_key(), mapping={"junk": b"\xff\x00 no record"})
    await client.hset(upload_key(), mapping={"torn": b"1\t1\tR\t\t\t1\t5.0\n\xc1"})

    await store.save([record(sequence=9)])
    await store.save([record(transfer_id="other")])
    await store.save([record(transfer_id="junk")])

    loaded = await store.load(record().key)
    assert {each.transfer_id for each in loaded} == {"other", "junk"}
    assert store.unreadable == 2
    assert await client.hget(upload_key(), "t") == future


async def test_upload_without_readable_record_is_not_loaded(
    client: Redis, store: RedisStore
) -> None:
    await client.hset(upload_key(), mapping={"t": b"2\tx\n", "": "ann"})
    assert await store.load(record().key) == []


async def test_key_of_wrong_type_does_not_affect_other_uploads(
    client: Redis, store: RedisStore
) -> None:
    await client.set(upload_key("wrong"), "mine")

    await store.save([record("wrong"), record("right")])

    assert await store.load(record("wrong").key) == []
    assert len(await store.load(record("right").key)) == 1
    assert await client.get(upload_key("wrong")) == b"mine"


@pytest.mark.parametrize("index", ["o", "e", "p", "a", "w", "due", "leases", "renewals"])
async def test_index_of_wrong_type_is_created_again(
    client: Redis, store: RedisStore, index: str
) -> None:
    """S07: a foreign key under the name of an index stops neither the batch nor other owners."""
    names = {"w": f"w:{key_of('wbad')}"} | {name: name for name in ("due", "leases", "renewals")}
    owner_index = f"{index}:{key_of('bad')}"
    name = f"upload-progress:{{0}}:{names.get(index, owner_index)}"
    await client.set(name, "foreign")
    batch = [
        record("first", worker="w"),
        record("bad", owner="bad", worker="wbad"),
        record("ended", owner="bad", state=S.COMPLETED, worker=None),
        record("paused", owner="bad", state=S.PAUSED, worker=None),
        record("pending", owner="bad", state=S.PENDING, worker=None),
        record("last", worker="w"),
    ]

    await store.save(batch)
    await client.set(name, "foreign")
    await store.renew("w", seconds=9)
    await client.set(name, "foreign")
    assert list(await store.overdue(limit=9)) == []
    await client.set(name, "foreign")
    page = await store.list("bad")
    await store.save(batch)

    assert {each.upload_id for each in await store.load(*(each.key for each in batch))} == {
        each.upload_id for each in batch
    }
    assert {upload[0].upload_id for upload in page.uploads} <= {each.upload_id for each in batch}
    assert len((await store.list("ann")).uploads) == 2


async def test_records_and_scripts_are_restored_after_flush(
    client: Redis, store: RedisStore
) -> None:
    """S06: the next write restores both."""
    await store.save([record()])
    await client.flushall()
    await client.script_flush()

    await store.save([record(sequence=2)])

    assert comparable(await store.load(record().key)) == [record(sequence=2)]


async def test_only_transfers_of_dead_worker_are_overdue(client: Redis, store: RedisStore) -> None:
    await store.save([record(), record(transfer_id="t2", worker="w2")])
    await store.renew("w", seconds=60)
    await let_lease_run_out(store, "w2")

    [lost] = await store.overdue(limit=9)

    assert lost.transfer_id == "t2"
    # Not again at once.
    assert await store.overdue(limit=9) == []


async def test_record_of_cancelled_upload_is_not_overdue(client: Redis, store: RedisStore) -> None:
    """The worker that cancels adds a record beside that of the worker that receives."""
    await store.save([record()])
    await let_lease_run_out(store, "w")
    await client.zadd(f"upload-progress:{{0}}:w:{key_of('w')}", {f"{key_of('ann')}:gone": 0})
    await store.save(
        [record(transfer_id="c", state=S.CANCELLED, worker=None, finished_at=1_800_000_001.0)]
    )
    await client.zadd(f"upload-progress:{{0}}:w:{key_of('w')}", {f"{key_of('ann')}:up": 0})

    assert await store.overdue(limit=9) == []


async def test_worker_without_lease_gets_one_of_a_minute(client: Redis, store: RedisStore) -> None:
    await store.save([record()])

    [loaded] = await store.load(record().key)

    assert loaded.lease_until is not None
    score = await client.zscore("upload-progress:{0}:leases", key_of("w"))
    assert score is not None
    seconds, micros = await client.time()
    assert 50 < score - seconds - micros / 1e6 <= 60


async def test_upload_expired_on_server_clock_is_expired(client: Redis, store: RedisStore) -> None:
    """Also on the clock of this machine, which may be behind: else it would not be ended."""
    now = time.time()
    await store.save([record(state=S.PENDING, worker=None, updated_at=now)])
    [waiting] = await store.load(record().key)
    assert waiting.expires_at == now + 24 * 3600
    await client.zadd("upload-progress:{0}:due", {f"{key_of('ann')}:up": 5})

    [expired] = await store.overdue(limit=9)

    assert expired.expires_at is not None
    assert expired.expires_at <= time.time()


async def test_overdue_stops_at_its_limit(store: RedisStore) -> None:
    many = RedisStore(store.client, shards=8)
    owners = [record(f"u{number}", owner=f"o{number}") for number in range(20)]
    await many.save(owners)
    assert len(await many.running("w", limit=3)) == 3
    await let_lease_run_out(many, "w")

    assert len(await many.overdue(limit=3)) == 3


async def test_out_of_memory_raises_until_memory_is_free(client: Redis, store: RedisStore) -> None:
    """S05: the error of Redis is raised, and later batches are saved."""
    try:
        await client.config_set("maxmemory", "1")
        with pytest.raises(ResponseError, match="maxmemory"):
            await store.save([record()])
    finally:
        await client.config_set("maxmemory", "0")

    await store.save([record()])
    assert len(await store.load(record().key)) == 1


async def test_cancelled_call_leaves_no_response_for_next_call(
    redis_server: ServerProcess, proxy_to: ProxyTo
) -> None:
    """CVE-2023-28858: the next caller must not get the response to the cancelled call."""
    proxy = proxy_to(redis_server.port)
    async with RedisStore.open(f"redis://127.0.0.1:{proxy.port}") as store:
        await store.save([record(f"u{number}", received_bytes=number) for number in range(20)])
        proxy.delay_seconds = 0.05
        for number in range(5):
            with anyio.move_on_after(0.02):
                await store.load(UploadKey("ann", f"u{number}"))
        proxy.delay_seconds = 0.0
        for number in range(20):
            [loaded] = await store.load(UploadKey("ann", f"u{number}"))
            assert loaded.received_bytes == number


async def test_restarted_server_is_found_at_first_attempt(redis_server: ServerProcess) -> None:
    async with RedisStore.open(redis_server.url) as store:
        redis_server.kill()
        with pytest.raises(RedisConnectionError):
            await store.save([record()])
        redis_server.start()
        await store.save([record()])
        assert len(await store.load(record().key)) == 1


async def test_client_of_application_stays_open(client: Redis) -> None:
    async with RedisStore(client) as store:
        await store.save([record()])
    assert await client.ping()


async def test_each_script_uses_one_slot_of_cluster(
    client: Redis, cluster_server: ServerProcess
) -> None:
    async with (
        RedisCluster(host="127.0.0.1", port=cluster_server.port) as cluster,
        RedisStore(cluster) as store,
    ):
        assert store.shards == 16
        records = [record(f"u{number}", owner=f"o{number}") for number in range(40)]
        await store.save(records)
        await let_lease_run_out(store, "w")

        assert comparable(await store.load(*(each.key for each in records))) == comparable(records)
        assert len((await store.list("o7")).uploads) == 1
        assert len(await store.overdue(limit=100)) == 40


def test_invalid_url_and_decoding_client_are_rejected() -> None:
    with pytest.raises(InvalidValue, match="redis://HOST"):
        RedisStore.open("amqp://secret@127.0.0.1")
    with pytest.raises(InvalidValue, match="decode_responses"):
        RedisStore(Redis(decode_responses=True))


def test_password_is_not_in_repr() -> None:
    opened = RedisStore.open("redis://user:secret@127.0.0.1", retention=Retention())
    assert "secret" not in repr(opened)


async def test_wrong_clock_of_a_worker_expires_nothing_early(store: RedisStore) -> None:
    """The clock of the server decides."""
    a_month_ago = time.time() - 30 * 24 * 3600
    for number, state in enumerate((S.PENDING, S.PAUSED, S.COMPLETED)):
        await store.save(
            [
                record(
                    f"u{number}",
                    state=state,
                    worker=None,
                    created_at=a_month_ago,
                    updated_at=a_month_ago,
                    finished_at=a_month_ago if state is S.COMPLETED else None,
                )
            ]
        )

    assert list(await store.overdue(limit=9)) == []
    assert len((await store.list("ann")).uploads) == 3
