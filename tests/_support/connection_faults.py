"""Faults of a broker or of the connection to it: tests that every broker adapter passes.

The broker is real, and a proxy stands before it. A test publishes over a connection of its own,
which is healthy, and subscribes over the one that suffers.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import anyio
import pytest
from anyio import to_thread
from attrs import evolve

from benchmarks.sample_snapshot import sample_snapshot
from tests._support.server_processes import ServerProcess, free_port
from tests._support.services import ProxyTo
from tests._support.tcp_proxy import TcpProxy
from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress._runtime.circuit_breaker import CALL_SECONDS
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import ALL_OWNERS, ConnectionLost, EventsMissed, EventStream
from upload_progress.testing.publisher_contract import next_item, subscribed

__all__ = [
    "FAULT_SECONDS",
    "HEARTBEAT_SECONDS",
    "BrokerFaults",
    "ConnectionFaults",
    "event",
    "is_published",
    "missed",
    "publish_with_retries",
    "received",
    "until",
]

FAULT_SECONDS: Final = 60.0
"""A server may take long to start again on a busy machine."""
HEARTBEAT_SECONDS: Final = 0.5
SECRET: Final = "canary-of-a-password"


def event(sequence: int, owner: str = "ann", text: str | None = None) -> CloudEvent:
    metadata = None if text is None else {"text": text}
    progress = evolve(sample_snapshot(), upload_id="video", sequence=sequence, metadata=metadata)
    return event_of(owner, progress, "/tests")


async def received(stream: EventStream, sequence: int) -> list[int]:
    """Return the sequences that arrive, up to *sequence*; -1 stands for ``EventsMissed``."""
    found: list[int] = []
    with anyio.fail_after(FAULT_SECONDS):
        while max(found, default=0) < sequence:
            found += sequences_in(await anext(stream))
    return found


def sequences_in(item: CloudEvent | EventsMissed | ConnectionLost) -> list[int]:
    """Return the sequence of an event, -1 for ``EventsMissed``, and nothing else."""
    by_kind = {EventsMissed: [-1], ConnectionLost: []}
    return [item.data.sequence] if isinstance(item, CloudEvent) else by_kind[type(item)]


async def missed(stream: AsyncIterator[object]) -> None:
    """Take what arrives, up to ``EventsMissed``."""
    with anyio.fail_after(FAULT_SECONDS):
        item: object = None
        while not isinstance(item, EventsMissed):
            item = await anext(stream)


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    with anyio.fail_after(FAULT_SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await anyio.sleep(0.005)


Adapter = RedisPublisher | PostgresPublisher | RabbitPublisher | KafkaPublisher


class BrokerFaults(ABC):
    """Faults of the broker itself. Subclass it, override what is abstract, and ``server``."""

    pytestmark = pytest.mark.anyio

    @abstractmethod
    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Adapter:
        """Return the adapter under test."""

    @abstractmethod
    async def publish_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        """Send *payloads*, which are no events, to the channel of *owner* without the adapter.

        Returns how many were sent: not every broker accepts everything.
        """

    @abstractmethod
    async def publish_forged(self, url: str, owner: str, forged: CloudEvent) -> None:
        """Send a well-formed event of another owner to the channel of *owner*."""

    async def test_killed_server_is_reconnected_to(self, server: ServerProcess) -> None:
        async with (
            self.open(server.url) as publisher,
            self.open(server.url) as subscriber,
            subscribed(subscriber, "ann") as stream,
        ):
            await publisher.publish([event(1)])
            assert await received(stream, 1) == [1]
            await to_thread.run_sync(server.kill)
            assert not await is_published(publisher, event(2))
            await until(lambda: subscriber.statistics().connection_failures)
            await to_thread.run_sync(server.start)
            await missed(stream)
            await publish_with_retries(publisher, event(3))

            assert (await received(stream, 3))[-1] == 3

    async def test_hung_server_costs_the_timeout_of_a_call(self, server: ServerProcess) -> None:
        """The core cancels calls after a second; the adapter works again afterwards."""
        async with (
            self.open(server.url) as publisher,
            self.open(server.url) as subscriber,
            subscribed(subscriber, "ann") as stream,
        ):
            await publisher.publish([event(1)])
            server.pause()
            for sequence in (2, 3):
                assert not await is_published(publisher, event(sequence))
            await until(lambda: subscriber.statistics().connection_failures)
            server.resume()
            await missed(stream)
            await publish_with_retries(publisher, event(4))

            assert (await received(stream, 4))[-1] == 4

    async def test_unreadable_events_are_skipped(self, server: ServerProcess) -> None:
        """Broken UTF-8, no JSON, the wrong JSON, nothing, and far too much of it."""
        poison = [b"\xff\xfe", b"{", b"null", b"[]", b'{"id": 1}', b"x" * 2000, b"[" * 5000]
        async with (
            self.open(server.url, heartbeat_seconds=FAULT_SECONDS) as adapter,
            subscribed(adapter, "ann") as one,
            subscribed(adapter, ALL_OWNERS) as all_owners,
        ):
            sent = await self.publish_raw(server.url, "ann", poison)
            await adapter.publish([event(1)])

            assert await received(one, 1) == [1]
            assert await received(all_owners, 1) == [1]
        assert adapter.statistics().unreadable >= sent
        assert adapter.statistics().connection_failures == 0

    async def test_event_on_the_channel_of_another_owner_is_rejected(
        self, server: ServerProcess
    ) -> None:
        async with self.open(server.url) as adapter, subscribed(adapter, "ann", "bob") as stream:
            await self.publish_forged(server.url, "ann", event(7, "bob"))
            await adapter.publish([event(1)])

            assert await received(stream, 1) == [1]
        assert adapter.statistics().forged == 1

    async def test_slow_stream_receives_the_newest_and_delays_no_other(
        self, server: ServerProcess
    ) -> None:
        async with (
            self.open(server.url, heartbeat_seconds=FAULT_SECONDS) as adapter,
            subscribed(adapter, "ann") as slow,
            subscribed(adapter, "ann") as quick,
        ):
            for first in range(1, 1000, 100):
                await adapter.publish([event(n) for n in range(first, first + 100)])

            assert (await received(quick, 1000))[-1] == 1000
            assert await received(slow, 1000) == [1000]

    async def test_concurrent_subscriptions_come_and_go(self, server: ServerProcess) -> None:
        """On streams of their own, and on one stream for all owners."""
        owners = [f"owner {number}" for number in range(20)]

        async def use_streams(owner: str) -> None:
            for sequence in range(1, 6):
                async with subscribed(adapter, owner) as stream:
                    await adapter.publish([event(sequence, owner)])
                    assert (await received(stream, sequence))[-1] == sequence

        async def use_shared_stream(owner: str) -> None:
            for _ in range(5):
                await shared.subscribe(owner)
                await shared.unsubscribe(owner)

        async with (
            self.open(server.url) as adapter,
            adapter.events() as shared,
            anyio.create_task_group() as tasks,
        ):
            for owner in owners:
                tasks.start_soon(use_streams, owner)
                tasks.start_soon(use_shared_stream, owner)
        assert adapter.statistics().connection_failures == 0

    async def test_password_is_not_logged(
        self, server: ServerProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "upload_progress")
        scheme = server.url.split("://")[0]
        adapter = self.open(f"{scheme}://user:{SECRET}@127.0.0.1:{free_port()}")
        async with adapter:
            await until(lambda: adapter.statistics().connection_failures)
            with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever the driver raises
                await adapter.publish([event(1)])
        assert SECRET not in repr(adapter) + str(caught.value) + caplog.text
        for url in (f"{scheme}://user:{SECRET}@[::1:x", f"nonsense://{SECRET}@host:99999999"):
            with pytest.raises(InvalidValue) as refused:
                self.open(url)
            assert SECRET not in str(refused.value)

    async def test_adapter_is_entered_once_and_before_it_subscribes(
        self, server: ServerProcess
    ) -> None:
        adapter = self.open(server.url)
        for early in (adapter.events(), adapter.inbox("w")):
            with pytest.raises(NotEntered):
                await early.__aenter__()
        async with adapter:
            with pytest.raises(InvalidValue, match="is entered already"):
                await adapter.__aenter__()
        async with adapter, subscribed(adapter, "ann") as stream:
            await adapter.publish([event(1)])
            assert await received(stream, 1) == [1]
        await adapter.publish([])


class ConnectionFaults(BrokerFaults):
    """Faults of the network, too, for brokers that a client can reach through a proxy."""

    def url_of(self, server: ServerProcess, port: int) -> str:
        return server.url.replace(f":{server.port}", f":{port}")

    async def test_lost_connection_is_replaced_and_reported(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as publisher,
            self.open(self.url_of(server, proxy.port)) as subscriber,
            subscribed(subscriber, "ann") as one,
            subscribed(subscriber, ALL_OWNERS) as all_owners,
            subscriber.inbox("w") as inbox,
        ):
            await publisher.publish([event(1)])
            assert await received(one, 1) == [1]
            assert await received(all_owners, 1) == [1]
            for lose_connections in (proxy.reset_connections, proxy.close_connections):
                lose_connections()
                for stream in (one, all_owners, inbox):
                    await missed(stream)

            await publisher.publish([event(2)])
            await publisher.send("w", b"message")
            assert await received(one, 2) == [2]
            assert await received(all_owners, 2) == [2]
            assert await next_item(inbox) == b"message"
            assert subscriber.statistics().connection_failures >= 2

    async def test_half_open_connection_is_detected(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as publisher,
            self.open(self.url_of(server, proxy.port)) as subscriber,
            subscribed(subscriber, "ann") as stream,
        ):
            proxy.drops_data = True
            await publisher.publish([event(1)])
            await until(lambda: subscriber.statistics().connection_failures)
            proxy.drops_data = False
            await missed(stream)
            await publisher.publish([event(2)])

            assert await received(stream, 2) == [2]

    async def test_heartbeats_are_sent_during_silence(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        """With subscriptions and without."""
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as publisher,
            self.open(self.url_of(server, proxy.port), heartbeat_seconds=0.2) as subscriber,
        ):
            await until(lambda: subscriber.statistics().is_connected)
            await self.heartbeats(proxy)
            async with subscribed(subscriber, "ann") as stream:
                await self.heartbeats(proxy)
                await publisher.publish([event(1)])

                assert (await received(stream, 1))[-1] == 1

    async def heartbeats(self, proxy: TcpProxy) -> None:
        before = proxy.chunks
        await until(lambda: proxy.chunks >= before + 6)

    async def test_subscribing_waits_for_a_broker_that_is_not_available(
        self, server: ServerProcess, proxy_to: ProxyTo, caplog: pytest.LogCaptureFixture
    ) -> None:
        proxy = proxy_to(server.port)
        proxy.refuses_connections = True
        async with self.open(self.url_of(server, proxy.port)) as adapter:
            await until(lambda: adapter.statistics().connection_failures >= 2)
            assert not await is_published(adapter, event(1))
            proxy.refuses_connections = False
            with anyio.fail_after(FAULT_SECONDS):
                async with subscribed(adapter, "ann") as stream:
                    await publish_with_retries(adapter, event(2))
                    assert (await received(stream, 2))[-1] == 2
        ours = [each.getMessage() for each in caplog.records if each.name == "upload_progress"]
        assert len(ours) == 1
        assert type(adapter).__name__ in ours[0]


async def is_published(publisher: Adapter, *events: CloudEvent) -> bool:
    """Publish *events*; return whether that succeeded within the time that the core allows."""
    try:
        with anyio.fail_after(CALL_SECONDS):
            await publisher.publish(events)
    except Exception:  # noqa: BLE001  # whatever the driver raises
        await anyio.sleep(0.05)
        return False
    return True


async def publish_with_retries(publisher: Adapter, *events: CloudEvent) -> None:
    """Publish *events* until that succeeded."""
    with anyio.fail_after(FAULT_SECONDS):
        published = False
        while not published:
            published = await is_published(publisher, *events)
