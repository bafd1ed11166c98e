"""How much one owner, one socket and one process may hold."""

from attrs import frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "Limits",
    "Retention",
    "check_mount_path",
    "check_stall",
]


@frozen
class Limits:
    """Bounds on what one owner, socket or process may hold.

    Attributes:
        announced_per_owner: Open uploads made by ``POST``.
        tracked_per_owner: Uploads being received at once; more are received untracked.
        tracked_total: The same for the whole process.
        sockets_per_owner: Open WebSockets and event streams.
        subscriptions_per_socket: Uploads on one socket.
        message_bytes: A WebSocket message, or a request body of the API.
        metadata_bytes: The metadata of one upload, encoded as JSON.
    """

    announced_per_owner: int = 100
    tracked_per_owner: int = 1000
    tracked_total: int = 100_000
    sockets_per_owner: int = 20
    subscriptions_per_socket: int = 1000
    message_bytes: int = 64 * 1024
    metadata_bytes: int = 4 * 1024


# FROM checks: What a tracker refuses to be told.


def check_stall(_instance: object, _attribute: object, value: float) -> None:
    """Refuse a time after which an upload is stalled that is none."""
    if not value > 0:
        raise InvalidValue("stall_after_seconds", f"must be above 0, not {value!r}")


def check_mount_path(_instance: object, _attribute: object, value: str) -> None:
    """Refuse a mount path that cannot begin a link."""
    if not value.startswith("/") or value.endswith("/"):
        raise InvalidValue("mount_path", f"starts with a slash and ends without, not {value!r}")


@frozen
class Retention:
    """How long sessions are kept.

    Attributes:
        ended_seconds: After the end.
        waiting_seconds: Pending or paused, without a byte; then the upload has expired.
    """

    ended_seconds: float = 3600.0
    waiting_seconds: float = 24 * 3600.0
