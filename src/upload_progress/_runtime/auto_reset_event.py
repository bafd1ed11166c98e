"""Events that may be set from another thread, and one that resets itself."""

import threading
from collections.abc import Callable

import anyio
from anyio.lowlevel import current_token
from attrs import define, field

__all__ = ["AutoResetEvent", "LoopEvent"]


def _call_soon_function() -> Callable[[Callable[[], None]], object]:
    """Return the function of the running event loop that calls another one from any thread."""
    token: object = current_token()
    # anyio 4.10 returns what later versions wrap.
    loop: object = getattr(token, "native_token", token)
    name = "call_soon_threadsafe" if hasattr(loop, "call_soon_threadsafe") else "run_sync_soon"
    function: Callable[[Callable[[], None]], object] = getattr(loop, name)
    return function


@define(eq=False, repr=False)
class LoopEvent:
    """An event of the running event loop that any thread may set, also one with another loop."""

    _event: anyio.Event = field(factory=anyio.Event, init=False)
    _thread: int = field(factory=threading.get_ident, init=False)
    _call_soon: Callable[[Callable[[], None]], object] = field(
        factory=_call_soon_function, init=False
    )

    def set(self) -> None:
        """Let ``wait`` return. Nothing happens if the event loop has ended."""
        if threading.get_ident() == self._thread:
            self._event.set()
            return
        try:
            self._call_soon(self._event.set)
        except RuntimeError:
            # Also trio's RunFinishedError: no task waits any more.
            return

    async def wait(self) -> None:
        """Return when ``set`` was called."""
        await self._event.wait()


@define(eq=False, repr=False)
class AutoResetEvent:
    """Wakes one task for any number of changes since it waited last.

    It is not bound to an event loop until a task waits, so that its owner may be created before
    the event loop and used on another one afterwards. Any thread may set it.
    """

    _is_set: bool = field(default=False, init=False)
    _event: LoopEvent | None = field(default=None, init=False)

    def set(self) -> None:
        """Let the task that waits, or the next one that waits, return."""
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when ``set`` was called since the last return."""
        if not self._is_set:
            self._event = LoopEvent()
            await self._event.wait()
        self._is_set = False
