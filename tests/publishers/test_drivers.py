"""A driver that is not there, an event loop that it cannot use."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder

import anyio
import pytest

from upload_progress._runtime.optional import explained
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.pubsub import Feed
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.exceptions import InvalidValue, MissingExtra


class Absent(MetaPathFinder):
    """Finds that a package is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == self.package:
            raise ModuleNotFoundError(name=fullname)


DRIVERS = [("redis", "redis"), ("postgres", "psycopg"), ("rabbitmq", "aio_pika")]


@pytest.mark.parametrize(("extra", "package"), DRIVERS)
def test_a_driver_that_is_missing_is_named(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"upload_progress.backends.{extra}"
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])

    with pytest.raises(MissingExtra, match=rf"pip install 'upload-progress\[{extra}\]'"):
        importlib.import_module(module)


def test_what_is_broken_inside_a_driver_stays_in_sight() -> None:
    error = ImportError(name="hiredis")

    assert explained(error, "redis", "redis") is error


@pytest.mark.parametrize(
    "publisher",
    [
        RedisPublisher.open("redis://host"),
        PostgresPublisher.open("postgresql://host"),
        RabbitPublisher.open("amqp://host"),
        KafkaPublisher.open("kafka://host"),
    ],
    ids=lambda publisher: type(publisher).__name__,
)
def test_a_loop_that_is_not_asyncio_is_refused(
    publisher: Feed,
) -> None:
    async def enter() -> None:
        with pytest.raises(InvalidValue, match="needs asyncio"):
            await publisher.__aenter__()

    anyio.run(enter, backend="trio")
