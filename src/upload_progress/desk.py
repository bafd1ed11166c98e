"""Where a live upload reports to, and on what terms it is received."""

from typing import TYPE_CHECKING, Protocol

from upload_progress.identity import Identity
from upload_progress.limits import Limits
from upload_progress.ports import Clock
from upload_progress.throttle import ThrottlePolicy

if TYPE_CHECKING:
    from upload_progress.live import LiveUpload

__all__ = ["Desk", "Terms"]


class Terms(Protocol):
    """On what terms uploads are received: what the tracker was told."""

    clock: Clock
    limits: Limits
    policy: ThrottlePolicy
    mount_path: str
    stall_after_seconds: float

    @property
    def worker(self) -> str:
        """The name of this process."""


class Desk(Protocol):
    """Where a live upload reports to: the tracker that opened it."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def limits(self) -> Limits:
        """How much may be held."""

    @property
    def mount_path(self) -> str:
        """Where the progress API is mounted."""

    @property
    def stall_after_seconds(self) -> float:
        """After how long without a byte an upload is stalled."""

    def due(self, upload: "LiveUpload") -> None:
        """Take *upload* into the next sending."""

    def ended(self, upload: "LiveUpload") -> None:
        """Take note that *upload*, which may be tracked or not, has just ended."""

    def remember(self, owner: str, address: str, upload_id: str) -> None:
        """Let *owner*'s requests to the resource with the id *address* belong to an upload."""

    def admit(self, upload: "LiveUpload", identity: Identity) -> bool:
        """Track *upload* for *identity*; return whether there was room."""
