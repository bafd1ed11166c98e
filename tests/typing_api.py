"""The public API as users write it: read by mypy, never run.

Each line that a type checker must refuse carries an ignore; mypy fails on those it does not need.
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


def plain(connection: Connection) -> Identity | None:
    token = connection.header("authorization")
    return Identity(token) if token else None


async def slow(connection: Connection) -> Identity | None:
    return plain(connection)


hooks: list[Authenticate] = [plain, slow]
clock: Clock = FakeClock()
store: SessionStore = MemoryStore(clock=clock, retention=Retention(ended_seconds=60))
faulty: SessionStore = FaultyStore(store, fault="hang")
publisher: EventPublisher = MemoryPublisher()
recorder: list[EventPublisher] = [RecordingPublisher(), FaultyPublisher(fault="raise")]
subscriber: EventSubscriber = MemoryPublisher()
transport: MessageTransport = MemoryPublisher()
policy: ThrottlePolicy = EveryPercent(5) & EveryInterval(0.5) | EveryBytes(1024)
tracker = ProgressTracker(store=store, publisher=publisher, policy=policy, clock=clock)
positional = ProgressTracker(store)  # type: ignore[call-arg]  # keyword-only
nobody = Identity(None)  # type: ignore[arg-type]  # no owner is nobody


async def use() -> None:
    async with subscriber.events() as events:
        stream: EventStream = events
        await stream.subscribe("ann", ALL_OWNERS)
        await stream.subscribe(1)  # type: ignore[arg-type]  # an owner is a string
        async for item in stream:
            latest: UploadProgress | None = item.data if isinstance(item, CloudEvent) else None
            seen: list[UploadProgress | None] = [latest]
            seen.clear()
    async with tracker.lifespan():
        pending: UploadProgress = await tracker.announce(owner="ann", total_bytes=5)
        page: UploadPage = await tracker.list(owner=Identity("ann"), limit=5)
        figures: Statistics = tracker.statistics()
        numbers: list[float | None] = [pending.percent, page.total.eta_seconds]
        numbers.append(figures.live_uploads)
    async with tracker.track(owner="ann", filename="a", metadata={"k": 1}) as upload:
        handle: Upload = upload
        handle.advance("5")  # type: ignore[arg-type]  # a size is a number
        async with handle.stage("scanning", total=3) as stage:
            stage.advance()
        handle.set(filename="b", nonsense=1)  # type: ignore[call-arg]  # not known
    async for snapshot in tracker.watch("up", owner="ann"):
        rate: float | None = snapshot.bytes_per_second
        numbers.append(rate)
    await tracker.get("up")  # type: ignore[call-arg]  # whose?


def frozen(record: TransferRecord, snapshot: UploadProgress) -> None:
    record.sequence = 1  # type: ignore[misc]  # a value
    snapshot.state = "completed"  # type: ignore[misc, assignment]  # a value
