"""When a report is due: policies, the gates that they return, and the meter that counts bytes.

A policy is called once after each report and returns *gates*: "when that many bytes are received,
and that many seconds have passed". The next report is due when any one gate is reached. So ``|``
joins two lists of gates, and ``&`` pairs each gate of one list with each of the other, with the
later of both conditions.

Counting a chunk is one addition and one comparison with the lowest gate that needs no more time.
Gates that need time are checked by the ticker, not per chunk.
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
    """A report is due at *at_bytes*, but not before *after_seconds* since the last report.

    Attributes:
        at_bytes: The number of received bytes.
        after_seconds: Seconds since the last report; 0 by default.
    """

    at_bytes: int
    after_seconds: float = 0.0


@runtime_checkable
class ThrottlePolicy(Protocol):
    """Decides when the next report is due. Combine policies with ``|`` and ``&``.

    >>> policy = EveryPercent(25) | EveryInterval(2.0)
    >>> policy.gates(received_bytes=0, total_bytes=1000)
    (Gate(at_bytes=250, after_seconds=0.0), Gate(at_bytes=1, after_seconds=2.0))
    """

    @abstractmethod
    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gates after a report at *received_bytes*; without gates, none is due again.

        The method must be pure: it is called after each report.

        Args:
            received_bytes: The bytes received at the time of the report.
            total_bytes: The size of the upload; None if it is unknown.
        """

    def __or__(self, other: "ThrottlePolicy") -> "ThrottlePolicy":
        """Return a policy that reports when either policy is due."""
        return _Either(self, other)

    def __and__(self, other: "ThrottlePolicy") -> "ThrottlePolicy":
        """Return a policy that reports when both policies are due."""
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
        raise InvalidValue(
            type(instance).__name__, f"must be a number greater than 0, not {value!r}"
        )


@frozen
class EveryPercent(ThrottlePolicy):
    """Report at every multiple of *percent* of a known total; never while it is unknown.

    >>> EveryPercent(10).gates(received_bytes=150, total_bytes=1000)
    (Gate(at_bytes=200, after_seconds=0.0),)

    Args:
        percent: The step, greater than 0.
    """

    percent: float = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gate at the next multiple."""
        if not total_bytes or received_bytes >= total_bytes:
            return ()
        # Integer arithmetic, so that a tenth is reported at its exact byte.
        step = total_bytes * self.percent
        mark = ceil(-(-(received_bytes * 100 // step + 1) * step // 100))
        return (Gate(min(max(mark, received_bytes + 1), total_bytes)),)


@frozen
class EveryBytes(ThrottlePolicy):
    """Report after each *size_bytes*.

    >>> EveryBytes(1024).gates(received_bytes=100, total_bytes=None)
    (Gate(at_bytes=1124, after_seconds=0.0),)

    Args:
        size_bytes: The number of bytes, greater than 0.
    """

    size_bytes: int = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gate after that many more bytes."""
        return (Gate(received_bytes + self.size_bytes),)


@frozen
class EveryInterval(ThrottlePolicy):
    """Report after each *seconds* in which a byte arrived.

    >>> EveryInterval(1.0).gates(received_bytes=100, total_bytes=None)
    (Gate(at_bytes=101, after_seconds=1.0),)

    Args:
        seconds: The interval, greater than 0.
    """

    seconds: float = field(validator=_positive)

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gate at the next byte after the interval."""
        return (Gate(received_bytes + 1, self.seconds),)


@frozen
class ByTotal(ThrottlePolicy):
    """Use one policy while the total is *known*, and another one while it is *unknown*.

    >>> policy = ByTotal(known=EveryPercent(10), unknown=EveryInterval(5.0))
    >>> policy.gates(received_bytes=0, total_bytes=None)
    (Gate(at_bytes=1, after_seconds=5.0),)

    Args:
        known: The policy if the total is known.
        unknown: The policy if it is not.
    """

    known: ThrottlePolicy
    unknown: ThrottlePolicy

    def gates(self, received_bytes: int, total_bytes: int | None) -> tuple[Gate, ...]:
        """Return the gates of the applicable policy."""
        policy = self.unknown if total_bytes is None else self.known
        return policy.gates(received_bytes, total_bytes)


DEFAULT_POLICY: Final[ThrottlePolicy] = ByTotal(
    known=EveryPercent(10) | EveryInterval(1.0),
    unknown=(EveryInterval(1.0) & EveryBytes(8 * MEBIBYTE)) | EveryInterval(5.0),
)
"""Known total: at each 10 %, and at least every second while bytes arrive. Unknown total: every
second or every 8 MiB, whichever is later, and at least every 5 s."""


STAGE_POLICY: Final[ThrottlePolicy] = EveryPercent(10) | EveryInterval(1.0)
"""The policy of stages, whose steps may have any size: at each 10 %, and every second."""


@define(weakref_slot=False)
class Meter:
    """A counter of body bytes, without clock, I/O and ``await``.

    Attributes:
        received_bytes: The bytes received so far.
        total_bytes: The announced size, or None.
        gate_bytes: A report is due when that many bytes are received.
        is_waiting: Whether the application is waiting for the next bytes.
        watched_seconds: After that many seconds with new bytes a report is due, whatever the
            policy says, because the upload is watched; None if it is not.
        least_seconds: No report is due by the policy before that many seconds after the last one.
    """

    policy: ThrottlePolicy
    total_bytes: int | None = None
    received_bytes: int = 0
    gate_bytes: int = 0
    is_waiting: bool = False
    watched_seconds: float | None = None
    least_seconds: float = field(default=0.0, init=False)
    _gates: tuple[Gate, ...] = ()
    _policy_bytes: int = 0
    _reported_bytes: int = 0
    _watched_after_seconds: float = 0.0

    def add(self, size_bytes: int) -> bool:
        """Count *size_bytes* more; return whether a report is due."""
        self.received_bytes += size_bytes
        return self.received_bytes >= self.gate_bytes

    @property
    def is_due_by_policy(self) -> bool:
        """Whether a report is due without a watcher."""
        return self.received_bytes >= self._policy_bytes

    def rearm(self, least_seconds: float = 0.0) -> None:
        """Set the next gates, after a report.

        Args:
            least_seconds: See the attribute.
        """
        self.least_seconds = least_seconds
        self._reported_bytes, self._watched_after_seconds = self.received_bytes, 0.0
        try:
            self._gates = tuple(self.policy.gates(self.received_bytes, self.total_bytes))
        except Exception as error:  # noqa: BLE001  # the error of a policy must not affect the upload
            logger.warning(
                "a throttle policy failed (%s); the default policy is used", type(error).__name__
            )
            self.policy = DEFAULT_POLICY
            self._gates = self.policy.gates(self.received_bytes, self.total_bytes)
        if least_seconds:
            self._gates = tuple(map(self._no_earlier, self._gates))
        self._open_gates(0)

    def _no_earlier(self, gate: Gate) -> Gate:
        return Gate(gate.at_bytes, max(gate.after_seconds, self.least_seconds))

    def rearm_watched(self, seconds: float) -> None:
        """Set the next gate of watchers, after a report for them alone.

        Args:
            seconds: The time since the last report that was for everybody.
        """
        self._reported_bytes, self._watched_after_seconds = self.received_bytes, seconds
        self._open_gates(seconds)

    def await_next_byte(self) -> None:
        """Let the next byte be reported, whatever the policy says, after the least interval."""
        self._gates = (*self._gates, Gate(self.received_bytes + 1, self.least_seconds))
        self._open_gates(0)

    def _open_gates(self, seconds: float) -> None:
        self._policy_bytes = _lowest(gate for gate in self._gates if gate.after_seconds <= seconds)
        self.gate_bytes = self._policy_bytes

    def elapse(self, seconds: float) -> bool:
        """Open the gates of *seconds* after the report; return whether a report is due."""
        self._open_gates(seconds)
        watched_at = self._watched_at_seconds
        if watched_at is not None and watched_at <= seconds:
            self.gate_bytes = min(self.gate_bytes, self._reported_bytes + 1)
        return self.received_bytes >= self.gate_bytes

    def later_than(self, seconds: float) -> list[float]:
        """Return the times of gates later than *seconds*, in seconds after the report."""
        times = [gate.after_seconds for gate in self._gates]
        if self._watched_at_seconds is not None:
            times.append(self._watched_at_seconds)
        return [time for time in times if time > seconds]

    @property
    def _watched_at_seconds(self) -> float | None:
        if self.watched_seconds is None:
            return None
        return self._watched_after_seconds + self.watched_seconds


def _lowest(gates: Iterable[Gate]) -> int:
    return min((gate.at_bytes for gate in gates), default=NEVER)
