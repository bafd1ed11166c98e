"""The public API as users write it: checked by mypy, never run.

A line that a type checker must reject has an ignore; mypy reports an ignore that is not needed.
"""

from __future__ import annotations

from upload_progress import (
    CloudEvent,
    Connection,
    EveryBytes,
    EveryInterval,
    EveryPercent,
    Identity,
    MemoryStore,
    ProgressTracker,
    Retention,
    Statistics,
    ThrottlePolicy,
    Upload,
    UploadPage,
    UploadProgress,
)
from upload_progress._model.models import TransferRecord
from upload_progress.backends import MemoryPublisher
from upload_progress.interfaces import (
    ALL_OWNERS,
    Authenticate,
    Clock,
    EventPublisher,
    EventStream,
    EventSubscriber,
    MessageTransport,
    SessionStore,
)
from upload_progress.testing import FakeClock, FaultyPublisher, FaultyStore, RecordingPublisher


def authenticate(connection: Connection) -> Identity | None:
    token = connection.header("authorization")
    return Identity(token) if token else None


async def authenticate_later(connection: Connection) -> Identity | None:
    return authenticate(connection)


authenticators: list[Authenticate] = [authenticate, authenticate_later]
clock: Clock = FakeClock()
store: SessionStore = MemoryStore(clock=clock, retention=Retention(ended_seconds=60))
faulty: SessionStore = FaultyStore(store, fault="hang")
publisher: EventPublisher = MemoryPublisher()
fakes: list[EventPublisher] = [RecordingPublisher(), FaultyPublisher(fault="raise")]
subscriber: EventSubscriber = MemoryPublisher()
transport: MessageTransport = MemoryPublisher()
policy: ThrottlePolicy = EveryPercent(5) & EveryInterval(0.5) | EveryBytes(1024)
tracker = ProgressTracker(store=store, publisher=publisher, policy=policy, clock=clock)
positional = ProgressTracker(store)  # type: ignore[call-arg]  # keyword-only
without_owner = Identity(None)  # type: ignore[arg-type]  # an owner is a string


async def use() -> None:
    async with subscriber.events() as events:
        stream: EventStream = events
        await stream.subscribe("ann", ALL_OWNERS)
        await stream.subscribe(1)  # type: ignore[arg-type]  # an owner is a string
        async for item in stream:
            latest: UploadProgress | None = item.data if isinstance(item, CloudEvent) else None
            received: list[UploadProgress | None] = [latest]
            received.clear()
    async with tracker.lifespan():
        pending: UploadProgress = await tracker.announce(owner="ann", total_bytes=5)
        page: UploadPage = await tracker.list(owner=Identity("ann"), limit=5)
        statistics: Statistics = tracker.statistics()
        numbers: list[float | None] = [pending.percent, page.total.eta_seconds]
        numbers.append(statistics.live_uploads)
    async with tracker.track(owner="ann", filename="a", metadata={"k": 1}) as upload:
        handle: Upload = upload
        handle.advance("5")  # type: ignore[arg-type]  # a size is a number
        async with handle.stage("scanning", total=3) as stage:
            stage.advance()
        handle.set(filename="b", nonsense=1)  # type: ignore[call-arg]  # unknown field
    async for snapshot in tracker.watch("up", owner="ann"):
        rate: float | None = snapshot.bytes_per_second
        numbers.append(rate)
    await tracker.get("up")  # type: ignore[call-arg]  # the owner is missing


def frozen(record: TransferRecord, snapshot: UploadProgress) -> None:
    record.sequence = 1  # type: ignore[misc]  # immutable
    snapshot.state = "completed"  # type: ignore[misc, assignment]  # immutable
