"""An event for one waiting task that resets itself."""

import anyio
from attrs import define, field

__all__ = ["AutoResetEvent"]


@define(eq=False, repr=False)
class AutoResetEvent:
    """Wakes one task for any number of changes since it waited last.

    It is not bound to an event loop until a task waits, so that its owner may be created before
    the event loop and used on another one afterwards.
    """

    _is_set: bool = field(default=False, init=False)
    _event: anyio.Event | None = field(default=None, init=False)

    def set(self) -> None:
        """Let the task that waits, or the next one that waits, return."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when ``set`` was called since the last return."""
        if not self._is_set:
            self._event = anyio.Event()
            await self._event.wait()
        self._is_set = False
