"""Prepare the stop of a process as soon as it is told to stop, before the server waits."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

from upload_progress.tracker import ProgressTracker

__all__ = ["drain_on_signal"]


@asynccontextmanager
async def drain_on_signal(
    tracker: ProgressTracker, *signals: signal.Signals
) -> AsyncIterator[None]:
    """Call ``tracker.drain()`` when the process is told to stop, while the block runs.

    Servers wait for open connections, event streams among them, before they run the end of the
    lifespan. Use it within the lifespan, with a server that handles signals in Python, such as
    uvicorn; its own handlers are called as well::

        @asynccontextmanager
        async def lifespan(app):
            async with tracker.lifespan(), drain_on_signal(tracker):
                yield

    Args:
        tracker: The tracker.
        signals: The signals; by default SIGTERM and SIGINT.

    Raises:
        ValueError: This is not the main thread.
    """
    schedule = _scheduler()
    previous = {
        number: signal.getsignal(number) for number in signals or (signal.SIGTERM, signal.SIGINT)
    }

    def handle(number: int, frame: FrameType | None) -> None:
        # The signal may arrive in the middle of anything.
        schedule(tracker.drain)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _scheduler() -> Callable[[Callable[[], object]], object]:
    """Return what calls a function in the event loop soon, also from the handler of a signal."""
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio  # noqa: PLC0415  # the other event loop that there is

        return trio.lowlevel.current_trio_token().run_sync_soon
