"""Every watcher at any worker is shown the end, whatever the delays of store and broker are.

Two workers share a store and a broker that answer after random times. Uploads that take a fraction
of a second are received by the first; watchers of all kinds connect to both while they run, and
just after. Everything runs in virtual time, through the real routes.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain

import anyio
import pytest
from attrs import define, field
from redis import Redis as SyncRedis

from tests._support.asgi_client import (
    App,
    AsgiConnection,
    as_user,
    build_app,
    client,
    http_scope,
    open_connection,
    open_socket,
)
from tests._support.patient_redis import PatientRedis
from tests._support.virtual_time import VirtualClock, run_in_virtual_time
from tests.oracle.steps import Scenario
from tests.oracle.system import Broker, SlowBroker, SlowStore, SlowStream, WithoutLeases
from upload_progress import MemoryStore, ProgressTracker, UploadState
from upload_progress._model.cloudevents import CloudEvent
from upload_progress.backends import MemoryPublisher
from upload_progress.backends.redis import RedisPublisher, RedisStore
from upload_progress.interfaces import ConnectionLost, EventsMissed, EventStream, SessionStore

MAX_DELAY_SECONDS = 0.06
UPLOADS = 4
WATCHERS = 18
"""No more than the sockets and streams that a user may have at one worker."""
GROUP = "release"
SETTLE_SECONDS = 40.0
"""Long enough for each path by which a watcher may learn of an end."""

RUNS_PER_TEST = 100
"""So that processes share them."""

Snapshot = dict[str, object]
Item = CloudEvent | EventsMissed | ConnectionLost


@define(eq=False)
class RandomDelays:
    """Waits for a random time.

    Attributes:
        random: Decides how long.
        lost: The share of the events that are lost without a sign.
    """

    random: random.Random
    lost: float = 0.0

    async def wait(self) -> None:
        """Wait for up to 60 ms."""
        await anyio.sleep(self.random.uniform(0, MAX_DELAY_SECONDS))

    def loses(self) -> bool:
        """Decide whether an event is lost."""
        return self.random.random() < self.lost


@define(eq=False)
class RandomStore(SlowStore):
    """A store whose calls take effect, and return, after random times."""

    delays: RandomDelays

    async def _wait(self, seconds: float) -> None:
        await self.delays.wait()


@define(eq=False)
class RandomStream(SlowStream):
    """A stream of events that arrive in order, after random times."""

    delays: RandomDelays

    async def subscribe(self, *owners: str | None) -> None:
        await self.delays.wait()
        await super().subscribe(*owners)
        await self.delays.wait()

    async def __anext__(self) -> Item:
        item = await super().__anext__()
        await self.delays.wait()
        return item


@define(eq=False)
class RandomBroker(SlowBroker):
    """A broker that publishes and delivers after random times."""

    delays: RandomDelays

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        await self.delays.wait()
        await self.inner.publish([each for each in events if not self.delays.loses()])
        await self.delays.wait()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        async with self.inner.events() as stream:
            yield RandomStream(stream, 0.0, self.delays)


@define(eq=False)
class Watcher:
    """A client that watches one upload, or several, and keeps the last snapshot of each.

    Attributes:
        name: What it watches, how and where.
        app: Its worker.
        other: The other worker.
        upload_id: The upload that it watches by its id, if it does.
        shown: The last snapshot of each upload.
        has_ended: Whether the stream of its only upload has ended.
    """

    name: str
    app: App
    other: App
    upload_id: str
    shown: dict[object, Snapshot] = field(factory=dict)
    has_ended: bool = False

    async def stream_upload(self) -> None:
        """Follow one upload by its event stream, and connect again until it exists."""
        path = f"/uploads/{self.upload_id}/progress"
        while not self.has_ended:
            await self._stream(path)
            self.has_ended = self.upload_id in self.shown
            await anyio.sleep(0.1)

    async def stream_all(self) -> None:
        """Follow all uploads by an event stream."""
        await self._stream("/uploads/progress")

    async def stream_group(self) -> None:
        """Follow a group by an event stream."""
        await self._stream("/uploads/progress", f"group={GROUP}")

    async def _stream(self, path: str, query: str = "") -> None:
        headers = {**as_user("alice"), "accept": "text/event-stream"}
        scope = http_scope(path, query=query, headers=headers)
        async with open_connection(self.app, scope) as connection:
            if (await connection.receive())["status"] == 200:
                await self._read_stream(connection)

    async def _read_stream(self, connection: AsgiConnection) -> None:
        more = True
        while more:
            message = await connection._from_app.receive()
            more = message.get("more_body", False)
            for line in message["body"].decode().splitlines():
                if line.startswith("data: "):
                    self._show(json.loads(line.removeprefix("data: ")))

    async def socket_all(self) -> None:
        """Follow all uploads by a socket."""
        await self._use_socket(all=True)

    async def socket_group(self) -> None:
        """Follow a group by a socket."""
        await self._use_socket(group=GROUP)

    async def socket_upload(self) -> None:
        """Follow one upload by a socket."""
        await self._use_socket(upload_id=self.upload_id)

    async def _use_socket(self, **subscription: object) -> None:
        async with open_socket(self.app) as socket:
            await socket.send_json(type="subscribe", **subscription)
            await self._read_socket(socket, subscription)

    async def socket_post(self) -> None:
        """Follow one upload by a socket, which the other worker subscribes to it."""
        async with open_socket(self.app) as socket:
            client_id = (await socket.receive_json())["client_id"]
            path, body = f"/uploads/{self.upload_id}/subscribe", {"client_id": client_id}
            async with client(self.other) as http:
                while (  # noqa: ASYNC110  # time is virtual
                    await http.post(path, json=body)
                ).status_code != 204:
                    await anyio.sleep(0.1)
            await self._read_socket(socket, {})

    async def _read_socket(self, socket: AsgiConnection, subscription: Snapshot) -> None:
        while True:
            message = await socket._from_app.receive()
            received = json.loads(message["text"])
            if received["type"] == "progress":
                self._show(received["upload"])
            elif received["type"] == "error":
                # Another worker has not stored the upload yet.
                await anyio.sleep(0.1)
                await socket.send_json(type="subscribe", **subscription)

    def _show(self, snapshot: Snapshot) -> None:
        self.shown[snapshot["upload_id"]] = snapshot

    @property
    def states(self) -> dict[object, object]:
        """The state in which each upload was last shown."""
        return {upload_id: each["state"] for upload_id, each in self.shown.items()}


KINDS: dict[str, Callable[[Watcher], Awaitable[None]]] = {
    "stream": Watcher.stream_upload,
    "stream of all": Watcher.stream_all,
    "stream of a group": Watcher.stream_group,
    "socket": Watcher.socket_upload,
    "socket by POST": Watcher.socket_post,
    "socket of all": Watcher.socket_all,
    "socket of a group": Watcher.socket_group,
}


async def problems_in_memory(seed: int, lost: float) -> list[str]:
    """Return the problems with a store and a broker in memory."""
    return await problems_of(seed, lost, MemoryStore(clock=VirtualClock()), MemoryPublisher())


async def problems_with_redis(seed: int, lost: float, redis_url: str) -> list[str]:
    """Return the problems with Redis."""
    async with PatientRedis.from_url(redis_url) as client, RedisPublisher(client) as publisher:
        return await problems_of(seed, lost, WithoutLeases(RedisStore(client)), publisher)


async def problems_of(seed: int, lost: float, store: SessionStore, broker: Broker) -> list[str]:
    """Let watchers follow uploads; return what they were not shown."""
    dice = random.Random(seed)  # noqa: S311  # repeatable
    delays = RandomDelays(dice, lost)
    trackers = [
        ProgressTracker(
            store=RandomStore(store, Scenario(), delays),
            publisher=RandomBroker(broker, Scenario(), delays),
            clock=VirtualClock(),
        )
        for _ in range(2)
    ]
    apps = [build_app(each) for each in trackers]
    upload_ids = [f"up-{number}" for number in range(UPLOADS)]
    watchers = []

    async def upload(upload_id: str) -> None:
        await anyio.sleep(dice.uniform(0, 0.3))
        async with trackers[0].track(
            owner="alice", upload_id=upload_id, total_bytes=100, group=GROUP
        ) as live:
            for _ in range(dice.randrange(4)):
                live.advance(25)
                await anyio.sleep(dice.uniform(0, 0.2))

    async def watch(number: int) -> None:
        kind = dice.choice(list(KINDS))
        worker, upload_id = dice.choice([0, 1, 1, 1]), dice.choice(upload_ids)
        name = f"watcher {number}, {kind} at worker {worker} of {upload_id}"
        watcher = Watcher(name, apps[worker], apps[1 - worker], upload_id)
        watchers.append((watcher, {upload_id} if kind in BY_ID else set(upload_ids)))
        await anyio.sleep(dice.uniform(0, 1.0))
        await KINDS[kind](watcher)

    async with AsyncExitStack() as stack:
        for tracker in trackers:
            await stack.enter_async_context(tracker.lifespan())
        async with anyio.create_task_group() as tasks:
            for each in upload_ids:
                tasks.start_soon(upload, each)
            for number in range(WATCHERS):
                tasks.start_soon(watch, number)
            await anyio.sleep(SETTLE_SECONDS)
            tasks.cancel_scope.cancel()
    return [
        f"seed {seed}: {watcher.name} was shown {watcher.states}"
        for watcher, expected in watchers
        if watcher.states != dict.fromkeys(expected, UploadState.COMPLETED)
    ]


BY_ID = {"stream", "socket", "socket by POST"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with the number of interleavings of the command line, in portions."""
    option = metafunc.config.getoption
    if "redis_url" in metafunc.fixturenames:
        count = option("interleavings_with_redis")
    else:
        count = option("interleavings") // 2  # for each of its parameters
    first = option("oracle_seed")
    starts = range(first, first + count, RUNS_PER_TEST)
    portions = [range(each, min(each + RUNS_PER_TEST, first + count)) for each in starts]
    metafunc.parametrize("seeds", portions, ids=[f"{each.start}-{each.stop}" for each in portions])


@pytest.mark.parametrize("lost", [0.0, 0.3], ids=["all events", "lost events"])
def test_each_watcher_is_shown_the_end(lost: float, seeds: range) -> None:
    runs = (partial(problems_in_memory, seed, lost) for seed in seeds)
    found = (run_in_virtual_time(run, "asyncio") for run in runs)
    assert not list(chain.from_iterable(found))


def test_each_watcher_is_shown_the_end_with_redis(seeds: range, redis_url: str) -> None:
    found = (run_with_empty_redis(seed, redis_url) for seed in seeds)
    assert not list(chain.from_iterable(found))


def run_with_empty_redis(seed: int, redis_url: str) -> list[str]:
    # In real time: it takes as long as it takes.
    with SyncRedis.from_url(redis_url) as client:
        client.flushall()
    run = partial(problems_with_redis, seed, 0.0, redis_url)
    return run_in_virtual_time(run, "asyncio", uses_sockets=True)
