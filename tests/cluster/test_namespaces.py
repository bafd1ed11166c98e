"""Two systems on one server: each with workers, owners and upload ids of the same names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio
import pytest
from attrs import define

from tests._support.connection_faults import until
from upload_progress import InvalidValue, MemoryStore, ProgressTracker, UploadProgress, UploadState
from upload_progress._internals import internals_of
from upload_progress.backends import MemoryPublisher, publisher_from_url
from upload_progress.backends.kafka import KafkaPublisher, KafkaStore
from upload_progress.backends.namespaces import namespace_of, validate_namespace
from upload_progress.backends.postgres import PostgresPublisher, PostgresStore, migrate
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis import RedisPublisher, RedisStore

DEADLINE_SECONDS: Final = 60.0
SYSTEMS: Final = ("shop", "forum")

OpenTracker = Callable[[str, str], ProgressTracker]
"""Returns a new worker of a system, at the server of a URL."""


def in_databases(url: str, system: str) -> ProgressTracker:
    database = SYSTEMS.index(system)
    return ProgressTracker.from_url(f"{url.rpartition('/')[0]}/{database}")


def in_database_with_own_clients(url: str, system: str) -> ProgressTracker:
    url = f"{url.rpartition('/')[0]}/{SYSTEMS.index(system)}"
    return ProgressTracker(store=RedisStore.open(url), publisher=RedisPublisher.open(url))


def in_namespaces(url: str, system: str) -> ProgressTracker:
    return ProgressTracker.from_url(url, namespace=system)


def in_schemas_with_common_channels(url: str, system: str) -> ProgressTracker:
    return ProgressTracker(
        store=PostgresStore.open(url, schema=system), publisher=PostgresPublisher.open(url)
    )


STORES: Final = {system: MemoryStore() for system in SYSTEMS}


def with_common_broker(url: str, system: str) -> ProgressTracker:
    publisher = publisher_from_url(url, namespace=system)
    return ProgressTracker(store=STORES[system], publisher=publisher, namespace=system)


BROKER: Final = MemoryPublisher()


def with_common_channels(_url: str, system: str) -> ProgressTracker:
    return ProgressTracker(store=STORES[system], publisher=BROKER, source=f"/{system}")


@define
class System:
    """Two workers of a system."""

    receiving: ProgressTracker
    watching: ProgressTracker

    @classmethod
    @asynccontextmanager
    async def running(cls, url: str, name: str, open_tracker: OpenTracker) -> AsyncIterator[System]:
        """Run both, until they have heard of each other."""
        async with AsyncExitStack() as stack:
            trackers = [open_tracker(url, name) for _ in range(2)]
            for tracker in trackers:
                await stack.enter_async_context(tracker.lifespan())
            one, other = trackers
            await until(lambda: other.worker in known_workers(one))
            yield cls(one, other)


def known_workers(tracker: ProgressTracker) -> set[str]:
    return set(internals_of(tracker).directory._keys)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("service", "open_tracker"),
    [
        ("redis_url", in_databases),
        ("redis_url", in_database_with_own_clients),
        ("redis_url", in_namespaces),
        ("postgres_url", in_namespaces),
        ("postgres_url", in_schemas_with_common_channels),
        ("kafka_url", in_namespaces),
        ("amqp_url", with_common_broker),
        ("kafka_url", with_common_broker),
        (None, with_common_channels),
    ],
)
async def test_systems_do_not_receive_events_and_commands_of_each_other(
    service: str | None, open_tracker: OpenTracker, request: pytest.FixtureRequest
) -> None:
    """A user of the one is not the user of that name of the other, and neither is their upload."""
    owner = request.node.name
    url = request.getfixturevalue(service) if service else ""
    for system in SYSTEMS:
        await prepare(url, system)
    seen = list[UploadProgress]()
    with anyio.fail_after(DEADLINE_SECONDS):
        async with (
            System.running(url, "shop", open_tracker) as shop,
            System.running(url, "forum", open_tracker) as forum,
            anyio.create_task_group() as tasks,
            forum.receiving.track(owner=owner, upload_id="release", total_bytes=9) as own,
        ):
            own.set(metadata={"of": "forum"})
            await until_found(forum.watching, owner)

            async def watch() -> None:
                seen.extend([each async for each in forum.watching.watch("release", owner=owner)])

            tasks.start_soon(watch)
            await until(lambda: internals_of(forum.watching).follower.is_current(owner))
            async with shop.receiving.track(
                owner=owner, upload_id="release", total_bytes=5, filename="salaries.xlsx"
            ) as foreign:
                foreign.advance(5)
            await until(lambda: shop.receiving.statistics().events_published)
            own.advance(9)

        known = [known_workers(each) for each in (forum.receiving, forum.watching)]
    assert forum.watching.statistics().events_received
    assert {(each.metadata or {}).get("of") for each in seen} == {"forum"}
    assert {each.filename for each in seen} == {None}
    assert (seen[-1].state, seen[-1].bytes_transferred) == (UploadState.COMPLETED, 9)
    assert known == [{forum.watching.worker}, {forum.receiving.worker}]


async def prepare(url: str, schema: str) -> None:
    """Create the tables of a store, if the server is PostgreSQL."""
    if url.startswith("postgresql:"):
        await migrate(url, schema=schema)


async def until_found(tracker: ProgressTracker, owner: str) -> None:
    """Wait until the upload is in the store."""
    with anyio.fail_after(DEADLINE_SECONDS):
        while not (await tracker.list(owner=owner)).uploads:  # noqa: ASYNC110  # sets no event
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("url", "namespace", "expected", "source"),
    [
        ("memory:", None, "upload-progress", "/upload-progress"),
        ("redis://127.0.0.1/0", None, "upload-progress", "/upload-progress"),
        ("redis://127.0.0.1/3", None, "upload-progress.3", "/upload-progress.3"),
        ("unix:///socket?db=2", None, "upload-progress.2", "/upload-progress.2"),
        ("postgresql://127.0.0.1/d", None, "upload-progress", "/upload-progress"),
        ("kafka://127.0.0.1", None, "upload-progress", "/upload-progress"),
        ("postgresql://127.0.0.1/d", "shop-eu", "shop-eu", "/shop-eu"),
        ("redis://127.0.0.1/3", "shop", "shop", "/shop"),
    ],
)
def test_namespace_and_source_of_a_tracker(
    url: str, namespace: str | None, expected: str, source: str
) -> None:
    config = ProgressTracker.from_url(url, namespace=namespace).config

    assert (config.namespace, config.source) == (expected, source)


def test_source_separates_systems_without_a_namespace() -> None:
    source = "https://shop.example/uploads"

    assert ProgressTracker(source=source).config.namespace == f"upload-progress:{source}"
    assert ProgressTracker(source=source, namespace="shop").config.source == source


def test_names_of_backends_begin_with_the_namespace() -> None:
    def parts(url: str, events: str | None = None) -> tuple[object, object]:
        internals = internals_of(ProgressTracker.from_url(url, events=events, namespace="a-shop"))
        return internals.flusher.loader.parts.store, internals.flusher.outbox.publisher

    redis_store, redis_publisher = parts("redis://127.0.0.1/1")
    postgres_store, postgres_publisher = parts("postgresql://127.0.0.1/d")
    kafka_store, kafka_publisher = parts("kafka://127.0.0.1")
    _, rabbit_publisher = parts("memory:", "amqp://127.0.0.1")

    assert isinstance(redis_store, RedisStore)
    assert isinstance(redis_publisher, RedisPublisher)
    assert (redis_store.prefix, redis_publisher.prefix) == ("a-shop", "a-shop")
    assert isinstance(postgres_store, PostgresStore)
    assert isinstance(postgres_publisher, PostgresPublisher)
    assert (postgres_store.schema, postgres_publisher.prefix) == ("a_shop", "a_shop")
    assert isinstance(kafka_store, KafkaStore)
    assert isinstance(kafka_publisher, KafkaPublisher)
    assert (kafka_store.topic, kafka_publisher.topic) == ("a-shop", "a-shop")
    assert isinstance(rabbit_publisher, RabbitPublisher)
    assert rabbit_publisher.exchange == "a-shop"


def test_events_elsewhere_are_named_after_the_database_of_the_store() -> None:
    tracker = ProgressTracker.from_url("redis://127.0.0.1/4", events="amqp://127.0.0.1")
    publisher = internals_of(tracker).flusher.outbox.publisher

    assert isinstance(publisher, RabbitPublisher)
    assert publisher.exchange == "upload-progress.4"


def test_own_schema_is_the_namespace() -> None:
    store = PostgresStore.open("postgresql://127.0.0.1/d", schema="shop_uploads")

    assert ProgressTracker(store=store).config.namespace == namespace_of(store) == "shop-uploads"


@pytest.mark.parametrize(
    "name", ["", "1shop", "Shop", "shop_eu", "shop.eu", "a" * 32, "shop-events", "a-messages", "ä"]
)
def test_invalid_namespace_is_refused(name: str) -> None:
    for open_tracker in (ProgressTracker, lambda **kw: ProgressTracker.from_url("memory:", **kw)):
        with pytest.raises(InvalidValue, match=r"namespace: must have 1 to 31 of a-z 0-9 -"):
            open_tracker(namespace=name)


@pytest.mark.parametrize("name", ["a", "a" * 31, "shop-eu-1", "upload-progress.15"])
def test_valid_namespace(name: str) -> None:
    assert validate_namespace(name) == name
