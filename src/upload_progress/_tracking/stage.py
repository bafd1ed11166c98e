"""Stages: what the application does with an upload after its last byte; and bytes passed on."""

from collections.abc import Callable
from threading import Lock
from typing import Final

from attrs import define, field

from upload_progress._model.models import Stage, truncate_text
from upload_progress._model.validation import MAX_COUNT, STAGE_NAME_CHARACTERS, validate_count
from upload_progress.throttling import NEVER, STAGE_POLICY, Meter

__all__ = ["BEGIN_LOCK", "StageHandle", "StoredBytes"]

BEGIN_LOCK: Final = Lock()
"""Several threads may pass on the first bytes of an upload."""


@define(eq=False, repr=False)
class StageHandle:
    """A running stage; its reports are throttled like those of bytes."""

    _name: str
    _mark_due: Callable[[], None]
    meter: Meter

    @classmethod
    def begin(cls, name: str, total: int | None, mark_due: Callable[[], None]) -> "StageHandle":
        """Return a stage that has just begun.

        Args:
            name: A word for people; at most 100 characters are kept.
            total: The number of steps; None if it is unknown.
            mark_due: Called when the stage has something to report.

        Raises:
            InvalidValue: The total is not a whole number from 0 up.
        """
        if total is not None:
            total = validate_count("stage.total", total)
        meter = Meter(STAGE_POLICY, total)
        meter.rearm()
        return cls(truncate_text(name, STAGE_NAME_CHARACTERS), mark_due, meter)

    def advance(self, steps: int = 1) -> None:
        """Count *steps* more; between two reports this costs little more than an addition.

        Raises:
            InvalidValue: *steps* is not a whole number from 0 up.
        """
        if self.meter.add(validate_count("stage.steps", steps)):
            self.meter.gate_bytes = NEVER
            self._mark_due()

    @property
    def stage(self) -> Stage:
        """The current value, as part of a snapshot."""
        total = self.meter.total_bytes
        limit = MAX_COUNT if total is None else total
        return Stage(self._name, min(self.meter.received_bytes, limit), total)


@define(eq=False, repr=False)
class StoredBytes:
    """How many bytes of an upload the application has passed on; its reports are throttled."""

    meter: Meter
    _lock: Lock = field(factory=Lock, init=False)

    @classmethod
    def begin(cls, total: int | None, size_bytes: int = 0) -> "StoredBytes":
        """Return a counter of an upload of *total* bytes, of which *size_bytes* were passed on."""
        meter = Meter(STAGE_POLICY, total, size_bytes)
        meter.rearm()
        return cls(meter)

    @property
    def size_bytes(self) -> int:
        """How many bytes were passed on."""
        return min(max(0, self.meter.received_bytes), MAX_COUNT)

    def add(self, size_bytes: int) -> bool:
        """Count *size_bytes* more, or fewer; return whether a report is due. From any thread."""
        with self._lock:
            return self.meter.add(size_bytes) or size_bytes < 0
