"""What may happen to the line of any feed, with a real broker behind a proxy that misbehaves.

A test tells through a line of its own, which is whole, and hears through the one that suffers.
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

from benchmarks.snapshots import snapshot
from tests._support.server_processes import ServerProcess, free_port
from tests._support.services import ProxyTo
from tests._support.tcp_proxy import TcpProxy
from upload_progress._model.cloudevents import CloudEvent, event_of
from upload_progress.backends.kafka.publisher import KafkaPublisher
from upload_progress.backends.postgres.publisher import PostgresPublisher
from upload_progress.backends.rabbitmq import RabbitPublisher
from upload_progress.backends.redis.publisher import RedisPublisher
from upload_progress.exceptions import InvalidValue, NotEntered
from upload_progress.interfaces import EventsMissed

__all__ = [
    "FAULT_SECONDS",
    "HEARTBEAT_SECONDS",
    "BrokerFaults",
    "LineFaults",
    "event",
    "heard",
    "missed",
    "told",
    "told_at_last",
    "until",
]

FAULT_SECONDS: Final = 60.0
"""Servers take their time to start again, on a machine that has other things to do."""
HEARTBEAT_SECONDS: Final = 0.5
SECRET: Final = "canary-of-a-password"


def event(sequence: int, owner: str = "ann", text: str | None = None) -> CloudEvent:
    metadata = None if text is None else {"text": text}
    progress = evolve(snapshot(), upload_id="video", sequence=sequence, metadata=metadata)
    return event_of(owner, progress, "/tests")


async def heard(feed: AsyncIterator[CloudEvent | EventsMissed], sequence: int) -> list[int]:
    """Return the sequences that come, up to *sequence*; -1 is ``EventsMissed``."""
    found = [0]
    with anyio.fail_after(FAULT_SECONDS):
        while found[-1] < sequence:
            one = await anext(feed)
            found.append(-1 if isinstance(one, EventsMissed) else one.data.sequence)
    return found[1:]


async def missed(feed: AsyncIterator[CloudEvent | EventsMissed]) -> None:
    with anyio.fail_after(FAULT_SECONDS):
        while not isinstance(await anext(feed), EventsMissed):
            continue


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds, which lasts."""
    with anyio.fail_after(FAULT_SECONDS):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await anyio.sleep(0.005)


Adapter = RedisPublisher | PostgresPublisher | RabbitPublisher | KafkaPublisher


class BrokerFaults(ABC):
    """What the broker itself may do. Subclass, override what is abstract, and ``server``."""

    pytestmark = pytest.mark.anyio

    @abstractmethod
    def open(self, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> Adapter:
        """Return the adapter under test."""

    @abstractmethod
    async def tell_raw(self, url: str, owner: str, payloads: Sequence[bytes]) -> int:
        """Send what is no event to the channel of *owner*, without anything of ours.

        Returns how many of them went: not every broker takes everything.
        """

    @abstractmethod
    async def tell_as(self, url: str, owner: str, forged: CloudEvent) -> None:
        """Send a well-formed event of somebody else to the channel of *owner*."""

    async def test_a_server_that_was_killed_comes_back(self, server: ServerProcess) -> None:
        async with (
            self.open(server.url) as teller,
            self.open(server.url) as hearer,
            hearer.listen("ann") as hers,
        ):
            await teller.publish([event(1)])
            assert await heard(hers, 1) == [1]
            await to_thread.run_sync(server.kill)
            assert not await told(teller, event(2))
            await until(lambda: hearer.statistics().breaks)
            await to_thread.run_sync(server.start)
            await missed(hers)
            await told_at_last(teller, event(3))

            assert (await heard(hers, 3))[-1] == 3

    async def test_a_broker_that_hangs_costs_a_second_and_no_more(
        self, server: ServerProcess
    ) -> None:
        """The core cancels what takes longer; after that, this is as good as new."""
        async with (
            self.open(server.url) as teller,
            self.open(server.url) as hearer,
            hearer.listen("ann") as hers,
        ):
            await teller.publish([event(1)])
            server.pause()
            for sequence in (2, 3):
                assert not await told(teller, event(sequence))
            await until(lambda: hearer.statistics().breaks)
            server.resume()
            await missed(hers)
            await told_at_last(teller, event(4))

            assert (await heard(hers, 4))[-1] == 4

    async def test_what_cannot_be_read_is_passed_over(self, server: ServerProcess) -> None:
        """Broken UTF-8, no JSON, the wrong JSON, nothing, and far too much of it."""
        poison = [b"\xff\xfe", b"{", b"null", b"[]", b'{"id": 1}', b"x" * 2000, b"[" * 5000]
        async with (
            self.open(server.url, heartbeat_seconds=FAULT_SECONDS) as publisher,
            publisher.listen("ann") as hers,
            publisher.listen() as everybodys,
        ):
            sent = await self.tell_raw(server.url, "ann", poison)
            await publisher.publish([event(1)])

            assert await heard(hers, 1) == [1]
            assert await heard(everybodys, 1) == [1]
        assert publisher.statistics().unreadable >= sent
        assert publisher.statistics().breaks == 0

    async def test_an_event_on_the_channel_of_somebody_else_is_no_event(
        self, server: ServerProcess
    ) -> None:
        async with self.open(server.url) as publisher, publisher.listen("ann") as hers:
            await self.tell_as(server.url, "ann", event(7, "bob"))
            await publisher.publish([event(1)])

            assert await heard(hers, 1) == [1]
        assert publisher.statistics().forged == 1

    async def test_a_slow_listener_gets_the_newest_and_harms_nobody(
        self, server: ServerProcess
    ) -> None:
        async with (
            self.open(server.url, heartbeat_seconds=FAULT_SECONDS) as publisher,
            publisher.listen("ann") as slow,
            publisher.listen("ann") as quick,
        ):
            for first in range(1, 1000, 100):
                await publisher.publish([event(n) for n in range(first, first + 100)])

            assert (await heard(quick, 1000))[-1] == 1000
            assert await heard(slow, 1000) == [1000]

    async def test_who_comes_and_goes_hears_what_is_theirs(self, server: ServerProcess) -> None:
        """Subscribing, leaving and subscribing again, while others do the same."""
        owners = [f"owner {number}" for number in range(20)]

        async def stay(owner: str) -> None:
            for sequence in range(1, 6):
                async with publisher.listen(owner) as theirs:
                    await publisher.publish([event(sequence, owner)])
                    assert (await heard(theirs, sequence))[-1] == sequence

        async with self.open(server.url) as publisher, anyio.create_task_group() as tasks:
            for owner in owners:
                tasks.start_soon(stay, owner)
        assert publisher.statistics().breaks == 0

    async def test_a_password_stays_secret(
        self, server: ServerProcess, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "upload_progress")
        scheme = server.url.split("://")[0]
        publisher = self.open(f"{scheme}://user:{SECRET}@127.0.0.1:{free_port()}")
        async with publisher:
            await until(lambda: publisher.statistics().breaks)
            with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever the driver raises
                await publisher.publish([event(1)])
        assert SECRET not in repr(publisher) + str(caught.value) + caplog.text
        for url in (f"{scheme}://user:{SECRET}@[::1:x", f"nonsense://{SECRET}@host:99999999"):
            with pytest.raises(InvalidValue) as refused:
                self.open(url)
            assert SECRET not in str(refused.value)

    async def test_it_is_entered_once_and_before_it_listens(self, server: ServerProcess) -> None:
        publisher = self.open(server.url)
        for early in (publisher.listen(), publisher.letters("w")):
            with pytest.raises(NotEntered):
                await early.__aenter__()
        async with publisher:
            with pytest.raises(InvalidValue, match="is entered already"):
                await publisher.__aenter__()
        async with publisher, publisher.listen("ann") as hers:
            await publisher.publish([event(1)])
            assert await heard(hers, 1) == [1]
        await publisher.publish([])


class LineFaults(BrokerFaults):
    """What may happen on the way, too, for brokers that a client finds behind a proxy."""

    def url_of(self, server: ServerProcess, port: int) -> str:
        return server.url.replace(f":{server.port}", f":{port}")

    async def test_a_line_that_breaks_is_mended_and_says_so(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as teller,
            self.open(self.url_of(server, proxy.port)) as hearer,
            hearer.listen("ann") as hers,
            hearer.listen() as everybodys,
            hearer.letters("w") as box,
        ):
            await teller.publish([event(1)])
            assert await heard(hers, 1) == [1]
            assert await heard(everybodys, 1) == [1]
            for break_it in (proxy.reset_connections, proxy.close_connections):
                break_it()
                await missed(hers)
                await missed(everybodys)
                with anyio.fail_after(FAULT_SECONDS):
                    assert await anext(box) == EventsMissed()

            await teller.publish([event(2)])
            await teller.send("w", b"letter")
            assert await heard(hers, 2) == [2]
            assert await heard(everybodys, 2) == [2]
            with anyio.fail_after(FAULT_SECONDS):
                assert await anext(box) == b"letter"
            assert hearer.statistics().breaks >= 2

    async def test_a_line_that_is_silently_dead_is_found_out(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as teller,
            self.open(self.url_of(server, proxy.port)) as hearer,
            hearer.listen("ann") as hers,
        ):
            proxy.drops_data = True
            await teller.publish([event(1)])
            await until(lambda: hearer.statistics().breaks)
            proxy.drops_data = False
            await missed(hers)
            await teller.publish([event(2)])

            assert await heard(hers, 2) == [2]

    async def test_signs_of_life_are_asked_for_and_given(
        self, server: ServerProcess, proxy_to: ProxyTo
    ) -> None:
        """With listeners and without."""
        proxy = proxy_to(server.port)
        async with (
            self.open(server.url) as teller,
            self.open(self.url_of(server, proxy.port), heartbeat_seconds=0.2) as hearer,
        ):
            await until(lambda: hearer.statistics().is_connected)
            await self.silence(proxy)
            async with hearer.listen("ann") as hers:
                await self.silence(proxy)
                await teller.publish([event(1)])

                assert (await heard(hers, 1))[-1] == 1

    async def silence(self, proxy: TcpProxy) -> None:
        before = proxy.chunks
        await until(lambda: proxy.chunks >= before + 6)

    async def test_who_listens_before_the_broker_is_there_waits_for_it(
        self, server: ServerProcess, proxy_to: ProxyTo, caplog: pytest.LogCaptureFixture
    ) -> None:
        proxy = proxy_to(server.port)
        proxy.refuses_connections = True
        async with self.open(self.url_of(server, proxy.port)) as publisher:
            await until(lambda: publisher.statistics().breaks >= 2)
            assert not await told(publisher, event(1))
            proxy.refuses_connections = False
            with anyio.fail_after(FAULT_SECONDS):
                async with publisher.listen("ann") as hers:
                    await told_at_last(publisher, event(2))
                    assert (await heard(hers, 2))[-1] == 2
        ours = [each.getMessage() for each in caplog.records if each.name == "upload_progress"]
        assert len(ours) == 1
        assert type(publisher).__name__ in ours[0]


async def told(teller: Adapter, *events: CloudEvent) -> bool:
    """Return whether they were told within the time that the core gives."""
    try:
        with anyio.fail_after(1):
            await teller.publish(events)
    except Exception:  # noqa: BLE001  # whatever the driver raises
        await anyio.sleep(0.05)
        return False
    return True


async def told_at_last(teller: Adapter, *events: CloudEvent) -> None:
    """Tell them until it was done within that time."""
    is_told = False
    with anyio.fail_after(FAULT_SECONDS):
        while not is_told:
            is_told = await told(teller, *events)
