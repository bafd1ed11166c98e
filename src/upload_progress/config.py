"""Settings: what a tracker is configured with, its limits, and how long stores keep sessions."""

from typing import Final

from attrs import Attribute, field, frozen

from upload_progress._model.cloudevents import DEFAULT_NAMESPACE
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import Clock, SystemClock
from upload_progress.throttling import DEFAULT_POLICY, ThrottlePolicy

__all__ = ["Limits", "Retention", "TrackerConfig"]

_MIN_SECRET_BYTES: Final = 16


@frozen
class Limits:
    """Bounds on what one owner, one socket or the process may hold.

    >>> Limits(sockets_per_owner=50).sockets_per_owner
    50

    Without users (``capability()``) the limits per owner count by client address, in each process.

    Attributes:
        announced_per_owner: Pending uploads made by ``POST /uploads``.
        announced_total: The same for all clients without a user, in this process.
        tracked_per_owner: Uploads being received at once; more are received untracked.
        tracked_total: The same for the whole process.
        sockets_per_owner: Open WebSockets, event streams and long polls of a user.
        sockets_per_client: The same for a client address without a user, such as that of a
            network whose computers share one address.
        sockets_total: The same for all clients without a user, in this process.
        subscriptions_per_socket: Uploads that one socket subscribes to.
        message_bytes: Size of a WebSocket message, or of a request body of the progress API.
        metadata_bytes: Size of the metadata of one upload, encoded as JSON.
    """

    announced_per_owner: int = 100
    announced_total: int = field(default=10_000, kw_only=True)
    tracked_per_owner: int = 1000
    tracked_total: int = 100_000
    sockets_per_owner: int = 20
    sockets_per_client: int = field(default=100, kw_only=True)
    sockets_total: int = field(default=10_000, kw_only=True)
    subscriptions_per_socket: int = 1000
    message_bytes: int = 64 * 1024
    metadata_bytes: int = 4 * 1024


def _check_count(_retention: object, attribute: "Attribute[int]", value: int) -> None:
    if value < 1:
        raise InvalidValue(attribute.name, f"must be at least 1, not {value!r}")


@frozen
class Retention:
    """How long a store keeps sessions, and how many of each owner.

    >>> Retention(ended_seconds=600).waiting_seconds
    86400.0

    Attributes:
        ended_seconds: How long after its end an upload is kept.
        waiting_seconds: How long a pending or paused upload waits for a byte until it expires.
        ended_per_owner: How many ended uploads of one owner are kept; beyond that, those that
            ended first are deleted earlier.
        waiting_per_owner: How many pending and paused uploads of one owner are kept; beyond that,
            those that have waited longest expire earlier.

    Raises:
        InvalidValue: A number is less than 1.
    """

    ended_seconds: float = 3600.0
    waiting_seconds: float = 24 * 3600.0
    ended_per_owner: int = field(default=1000, kw_only=True, validator=_check_count)
    waiting_per_owner: int = field(default=1000, kw_only=True, validator=_check_count)


def _check_positive(_config: object, attribute: "Attribute[float]", value: float) -> None:
    if not value > 0:
        raise InvalidValue(attribute.name, f"must be greater than 0, not {value!r}")


def _check_mount_path(_config: object, attribute: "Attribute[str]", value: str) -> None:
    if not value.startswith("/") or value.endswith("/"):
        problem = f"must start with a slash and must not end with one, not {value!r}"
        raise InvalidValue(attribute.name, problem)


def _check_secret(_config: object, attribute: "Attribute[bytes]", value: bytes) -> None:
    if value and len(value) < _MIN_SECRET_BYTES:
        raise InvalidValue(attribute.name, f"must have at least {_MIN_SECRET_BYTES} bytes")


@frozen(kw_only=True)
class TrackerConfig:
    """The settings of a ``ProgressTracker``; immutable, and the same for all of its parts.

    Attributes:
        policy: When a snapshot is sent.
        watched_interval_seconds: How often, at most, a watched upload is reported
            while bytes arrive, in addition to the policy.
        store_records_per_second: How many records per second this process writes to the store, at
            most, before it reports less often than the policy says.
        limits: Bounds on what one owner, one socket or the process may hold.
        mount_path: Where ``progress_routes`` are mounted, as clients see it: links begin with it.
        stall_after_seconds: After how long without a byte an upload is reported as stalled.
        lease_seconds: After how long without a sign of life a worker counts as dead, and its
            uploads as ``worker_lost``. The same for all workers.
        source: The ``source`` of events, a URI reference (CloudEvents 1.0).
        namespace: The ``namespace`` of events, and of messages between workers.
        secret: The key of messages between workers; empty for none.
        clock: The clock; replaceable for tests.

    Raises:
        InvalidValue: The mount path, the secret or a time is not valid.
    """

    policy: ThrottlePolicy = DEFAULT_POLICY
    watched_interval_seconds: float = field(default=0.25, validator=_check_positive)
    store_records_per_second: float = field(default=2000.0, validator=_check_positive)
    limits: Limits = field(factory=Limits)
    mount_path: str = field(default="/uploads", validator=_check_mount_path)
    stall_after_seconds: float = field(default=30.0, validator=_check_positive)
    lease_seconds: float = field(default=15.0, validator=_check_positive)
    source: str = "/upload-progress"
    namespace: str = DEFAULT_NAMESPACE
    secret: bytes = field(default=b"", validator=_check_secret, repr=False)
    clock: Clock = field(factory=SystemClock)
