"""How much one owner, one socket and one process may hold."""

from attrs import frozen

__all__ = ["Limits"]


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
