"""When a report is due: policies, the gates they set, and the meter that passes them.

A policy is asked once after each report and answers with *gates*: "when this many bytes
are here, and this many seconds have gone by". The next report is due as soon as any one
gate is passed. So ``|`` puts two lists of gates together, and ``&`` pairs every gate of one
with every gate of the other, taking the later of both conditions.

Counting a chunk is then one addition and one comparison with the lowest gate that needs no
more time. Gates that wait for time are looked at by the ticker, not per chunk.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable
from math import ceil, inf
from typing import Final, Protocol, TypeVar, runtime_checkable

from attrs import define, field, frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "DEFAULT_POLICY",
    "MEBIBYTE",
    "NEVER",
    "STAGE_POLICY",
    "ByTotal",
    "EveryBytes",
    "EveryInterval",
    "EveryPercent",
    "Gate",
    "Meter",
    "ThrottlePolicy",
]

N = TypeVar("N", int, float)

MEBIBYTE: Final = 1024 * 1024
NEVER: Final = 1 << 63

logger: Final[logging.Logger] = logging.getLogger("upload_progress")


@frozen
class Gate:
    """A report is due at *at_bytes*, but not before *after_seconds* since the last one."""

    at_bytes: int
    after_seconds: float = 0.0


@runtime_checkable
class ThrottlePolicy(Protocol):
    """Says when the next report is due. Pure: asked again after every report."""

    @abstractmethod
    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gates that follow a report at *received_bytes*; none means never."""

    def __or__(self, other: "ThrottlePolicy") -> "ThrottlePolicy":
        """Report when either is due."""
        return _Either(self, other)

    def __and__(self, other: "ThrottlePolicy") -> "ThrottlePolicy":
        """Report when both are due."""
        return _Both(self, other)


@frozen
class _Either(ThrottlePolicy):
    left: ThrottlePolicy
    right: ThrottlePolicy

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        return self.left.gates(received_bytes, total_bytes) + self.right.gates(
            received_bytes, total_bytes
        )


@frozen
class _Both(ThrottlePolicy):
    left: ThrottlePolicy
    right: ThrottlePolicy

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        return tuple(
            Gate(max(a.at_bytes, b.at_bytes), max(a.after_seconds, b.after_seconds))
            for a in self.left.gates(received_bytes, total_bytes)
            for b in self.right.gates(received_bytes, total_bytes)
        )


def _positive(instance: object, _attribute: object, number: N) -> None:
    value: object = number  # callers without a type checker pass anything
    if not isinstance(value, int | float) or not 0 < value < inf:
        raise InvalidValue(type(instance).__name__, f"needs a number above 0, not {value!r}")


@frozen
class EveryPercent(ThrottlePolicy):
    """At every multiple of *percent* of a known total; never while the total is unknown."""

    percent: float = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the next multiple."""
        if not total_bytes or received_bytes >= total_bytes:
            return ()
        # In whole numbers where they are whole: a tenth is reported at its very byte.
        step = total_bytes * self.percent
        mark = ceil(-(-(received_bytes * 100 // step + 1) * step // 100))
        return (Gate(min(max(mark, received_bytes + 1), total_bytes)),)


@frozen
class EveryBytes(ThrottlePolicy):
    """After each *size_bytes*."""

    size_bytes: int = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the size reached after that many more."""
        return (Gate(received_bytes + self.size_bytes),)


@frozen
class EveryInterval(ThrottlePolicy):
    """After each *seconds* in which a byte came."""

    seconds: float = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the next byte, after the interval."""
        return (Gate(received_bytes + 1, self.seconds),)


@frozen
class ByTotal(ThrottlePolicy):
    """One policy while the total is *known*, another while it is *unknown*."""

    known: ThrottlePolicy
    unknown: ThrottlePolicy

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gates of the policy that applies."""
        policy = self.unknown if total_bytes is None else self.known
        return policy.gates(received_bytes, total_bytes)


DEFAULT_POLICY: Final[ThrottlePolicy] = ByTotal(
    known=EveryPercent(10) | EveryInterval(1.0),
    unknown=(EveryInterval(1.0) & EveryBytes(8 * MEBIBYTE)) | EveryInterval(5.0),
)
"""Each 10 %, never silent for longer than 1 s while bytes come; of an unknown total each
second or each 8 MiB, whichever is later, and never silent for longer than 5 s."""


STAGE_POLICY: Final[ThrottlePolicy] = EveryPercent(10) | EveryInterval(1.0)
"""A stage counts steps of any size, so bytes are no measure for it."""


@define
class Meter:
    """Counts body bytes. Holds no clock, does no I/O, never awaits.

    Attributes:
        received_bytes: What has come so far.
        total_bytes: The announced size, or None.
        gate_bytes: A report is due when this many bytes are here.
        is_waiting: Whether the application waits for the next bytes right now.
    """

    policy: ThrottlePolicy
    total_bytes: int | None = None
    received_bytes: int = 0
    gate_bytes: int = 0
    is_waiting: bool = False
    _gates: tuple[Gate, ...] = ()

    def add(self, size_bytes: int) -> bool:
        """Count that many more bytes; return whether a report is due."""
        self.received_bytes += size_bytes
        return self.received_bytes >= self.gate_bytes

    def rearm(self) -> None:
        """Acknowledge the report; stay quiet until the policy's next gate."""
        try:
            self._gates = tuple(self.policy.gates(self.received_bytes, self.total_bytes))
        except Exception as error:  # noqa: BLE001  # a policy's failure is never the upload's
            logger.warning(
                "a throttle policy failed (%s); the default goes on", type(error).__name__
            )
            self.policy = DEFAULT_POLICY
            self._gates = self.policy.gates(self.received_bytes, self.total_bytes)
        self.gate_bytes = _lowest(gate for gate in self._gates if gate.after_seconds <= 0)

    def elapse(self, seconds: float) -> bool:
        """Open the gates whose time has come by *seconds* after the report; return whether due."""
        self.gate_bytes = _lowest(gate for gate in self._gates if gate.after_seconds <= seconds)
        return self.received_bytes >= self.gate_bytes

    def later_than(self, seconds: float) -> list[float]:
        """Return the moments after the report, later than *seconds*, at which a gate may open."""
        return [gate.after_seconds for gate in self._gates if gate.after_seconds > seconds]


def _lowest(gates: Iterable[Gate]) -> int:
    return min((gate.at_bytes for gate in gates), default=NEVER)
