"""The steps of the oracle: requests, commands of the owner, watchers, and waiting."""

from __future__ import annotations

from enum import StrEnum, unique

from attrs import asdict, frozen

__all__ = [
    "PARTS",
    "PROTOCOLS",
    "TOTAL",
    "Authentication",
    "Cancel",
    "Kind",
    "Request",
    "Scenario",
    "Step",
    "Wait",
    "Watch",
]

TOTAL = 24
PROTOCOLS = ("plain", "tus", "concatenation", "ietf", "range", "oci", "s3")
PARTS = 3
"""An upload in parts has three of them, of eight bytes each."""


@unique
class Kind(StrEnum):
    """What a request is for; a protocol without it uses the nearest one that it has."""

    CREATE = "create"
    BYTES = "bytes"
    FINISH = "finish"
    ABORT = "abort"
    ASK = "ask"
    STRAY = "stray"
    """Bytes for an address that does not exist: the application never accepts them."""


@frozen
class Authentication:
    """When ``authenticate`` answers.

    Attributes:
        refusals: How many calls return None before one returns the identity.
        after_seconds: How long that call takes; None for a synchronous answer.
    """

    refusals: int = 0
    after_seconds: float | None = None


@frozen
class Request:
    """One request, and what the client, the server and the application do with it.

    Attributes:
        kind: What the request is for.
        worker: Index of the worker that gets it.
        start: Position of its first byte; None to continue where the application is.
        size: Number of its bytes.
        part: Index of its part, where the protocol has parts.
        status: The response; 0 to accept, None to raise an exception.
        kept: How many of its bytes the application keeps, if it accepts it.
        chunks: In how many chunks the body arrives.
        pace_seconds: The time before each chunk.
        breaks_after: After how many bytes the client disconnects; None if it does not.
        keeps_broken: Whether the application keeps the bytes of a broken connection.
        cancelled_after: After how many seconds the server cancels the application; None for never.
        is_early: Whether the application responds before it reads the body.
        think_seconds: How long the application takes to respond.
        endpoint: What the application does with the upload: ``set``, ``fail`` or nothing.
        authentication: When ``authenticate`` answers.
        gap_seconds: The time until the next step; None to wait for the end of this one.
    """

    kind: Kind = Kind.BYTES
    worker: int = 0
    start: int | None = None
    size: int = 8
    part: int = 0
    status: int | None = 0
    kept: int = TOTAL
    chunks: int = 1
    pace_seconds: float = 0.0
    breaks_after: int | None = None
    keeps_broken: bool = False
    cancelled_after: float | None = None
    is_early: bool = False
    think_seconds: float = 0.0
    endpoint: str = ""
    authentication: Authentication = Authentication()
    gap_seconds: float | None = None


@frozen
class Cancel:
    """The owner cancels the upload at a worker."""

    worker: int = 0


@frozen
class Watch:
    """A watcher subscribes at a worker, to the upload or to all uploads of the owner."""

    worker: int = 0
    everything: bool = False


@frozen
class Wait:
    """Nothing happens for some seconds."""

    seconds: float = 1.0


Step = Request | Cancel | Watch | Wait


def _describe(step: Step) -> str:
    """Return the step as a call, with the arguments that are not the defaults."""
    default = asdict(type(step)(), recurse=False)
    given = asdict(step, recurse=False).items()
    arguments = ", ".join(f"{name}={value!r}" for name, value in given if value != default[name])
    return f"{type(step).__name__}({arguments})"


@frozen(repr=False)
class Scenario:
    """A sequence of steps, and the system in which they are done.

    Attributes:
        protocol: The upload protocol.
        has_id: Whether the client sends ``Upload-Id`` with each request.
        is_announced: Whether the upload was announced before; only for plain uploads.
        workers: The number of workers, one or two.
        save_seconds: How long the store takes to save, before and after the records are there.
        load_seconds: How long the store takes to load.
        event_seconds: How long the broker takes to deliver an event.
        lost_events: Which event the broker loses, counted from 1; 0 for none.
        stops_at_end: Whether nothing is sent when the application has ended the upload.
        has_races: Whether a worker may get a request before it knows what the other has done.
        is_reversed: Whether the name of the second worker is before that of the first one.
        is_long: Whether the end is checked again when the last timer has run out.
        steps: The steps.
    """

    protocol: str = "plain"
    has_id: bool = True
    is_announced: bool = False
    workers: int = 1
    save_seconds: tuple[float, float] = (0.0, 0.0)
    load_seconds: float = 0.0
    event_seconds: float = 0.0
    lost_events: int = 0
    stops_at_end: bool = False
    has_races: bool = True
    is_reversed: bool = False
    is_long: bool = False
    steps: tuple[Step, ...] = ()

    def __repr__(self) -> str:
        """Show one step in a line."""
        given = asdict(self, recurse=False).items()
        usual = asdict(type(self)(), recurse=False) | {"steps": self.steps}
        head = ", ".join(f"{name}={value!r}" for name, value in given if value != usual[name])
        return "\n".join([f"Scenario({head})", *(f"    {_describe(each)}" for each in self.steps)])
