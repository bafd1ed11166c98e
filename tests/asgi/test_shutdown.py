"""The tracker is drained as soon as the process is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests._support.simulation import until
from upload_progress import ProgressTracker
from upload_progress._internals import internals_of
from upload_progress.asgi import drain_on_signal

pytestmark = pytest.mark.anyio


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Return the signals that the handlers of the server receive."""
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, previous)


async def test_streams_end_before_the_server_waits_for_them(handled: list[int]) -> None:
    tracker = ProgressTracker()
    handler = signal.getsignal(signal.SIGTERM)
    async with tracker.lifespan():
        subscription = internals_of(tracker).subscribe()
        async with drain_on_signal(tracker):
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: subscription.is_closed)

        assert handled == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler


async def test_signal_without_a_handler_drains_as_well() -> None:
    tracker = ProgressTracker()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    subscription = internals_of(tracker).subscribe()
    async with drain_on_signal(tracker, signal.SIGUSR1):
        signal.raise_signal(signal.SIGUSR1)
        await until(lambda: subscription.is_closed)
