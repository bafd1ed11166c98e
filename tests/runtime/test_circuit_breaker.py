"""Circuit breakers: calls have a time limit, and stop for a while after a failure."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest
from anyio.lowlevel import checkpoint

from upload_progress._runtime import circuit_breaker
from upload_progress._runtime.circuit_breaker import (
    CALL_SECONDS,
    FIRST_OPEN_SECONDS,
    LATE_SECONDS,
    LONGEST_OPEN_SECONDS,
    CircuitBreaker,
)
from upload_progress.exceptions import StoreBusy, StoreUnavailable
from upload_progress.testing import FakeClock

pytestmark = pytest.mark.anyio


def test_recovery_takes_ten_seconds_at_most() -> None:
    """I12: after the longest pause one call may still fail, at worst late, and the next succeeds.

    Tests with real servers allow more, as the machine may be busy.
    """
    assert LONGEST_OPEN_SECONDS + 2 * (CALL_SECONDS + LATE_SECONDS) <= 10


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("the store", clock)


async def succeed() -> str:
    return "result"


async def fail() -> str:
    raise OSError


async def test_result_is_returned(breaker: CircuitBreaker) -> None:
    assert await breaker.call(succeed) == "result"
    assert not breaker.is_failing


async def test_circuit_stays_open_longer_after_each_failure(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    open_seconds = []
    for _ in range(7):
        with pytest.raises(StoreUnavailable):
            await breaker.call(fail)
        before = clock.monotonic()
        while breaker.is_open:
            with pytest.raises(StoreUnavailable):
                await breaker.call(succeed)
            clock.advance(FIRST_OPEN_SECONDS)
        open_seconds.append(clock.monotonic() - before)

    assert open_seconds == [0.25, 0.5, 1.0, 2.0, 4.0, LONGEST_OPEN_SECONDS, LONGEST_OPEN_SECONDS]
    assert breaker.failures == 7


async def test_success_resets_the_time(breaker: CircuitBreaker, clock: FakeClock) -> None:
    for _ in range(3):
        breaker.record_failure(OSError())
    clock.advance(LONGEST_OPEN_SECONDS)
    is_failing = [breaker.is_failing]

    await breaker.call(succeed)
    is_failing.append(breaker.is_failing)
    breaker.record_failure(OSError())

    assert is_failing == [True, False]
    clock.advance(FIRST_OPEN_SECONDS)
    assert not breaker.is_open


async def test_reset_allows_the_next_call(breaker: CircuitBreaker) -> None:
    breaker.record_failure(OSError())
    assert breaker.is_open

    breaker.reset()

    assert await breaker.call(succeed) == "result"


async def test_call_that_takes_too_long_is_a_failure(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(circuit_breaker, "CALL_SECONDS", 0.01)

    with pytest.raises(StoreUnavailable):
        await breaker.call(anyio.sleep_forever)

    [message] = caplog.messages
    assert message.startswith("the store is not available (TimeoutError); uploads continue")


async def test_waiting_for_a_connection_is_not_a_failure(breaker: CircuitBreaker) -> None:
    async def wait() -> None:
        raise StoreBusy

    with pytest.raises(StoreBusy):
        await breaker.call(wait)

    assert (breaker.is_open, breaker.failures) == (False, 0)


async def test_timeout_of_a_process_that_stood_still_is_not_a_failure(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may have been there in time, but the event loop did not run."""
    monkeypatch.setattr(circuit_breaker, "CALL_SECONDS", 0.01)
    monkeypatch.setattr(circuit_breaker, "LATE_SECONDS", 0.01)

    async def block() -> None:
        await checkpoint()
        time.sleep(0.03)  # noqa: ASYNC251  # it blocks the event loop
        await anyio.sleep_forever()

    with pytest.raises(StoreBusy):
        await breaker.call(block)

    assert (breaker.is_open, breaker.failures) == (False, 0)


async def test_timeout_of_a_call_in_which_the_loop_stood_still_is_not_a_failure(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at its time limit, but for a part of that time nothing could arrive."""
    monkeypatch.setattr(circuit_breaker, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(circuit_breaker, "LATE_SECONDS", 0.04)
    monkeypatch.setattr(circuit_breaker, "LAG_INTERVAL_SECONDS", 0.01)

    async def block() -> None:
        await checkpoint()
        time.sleep(0.06)  # noqa: ASYNC251  # it blocks the event loop
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(breaker.lag.run)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(StoreBusy):
            await breaker.call(block)
        lag_seconds = breaker.lag.until(anyio.current_time())
        tasks.cancel_scope.cancel()

    assert (breaker.is_open, breaker.failures) == (False, 0)
    assert lag_seconds >= 0.05
    # Without a measurement it does not grow.
    assert breaker.lag.until(1e9) == breaker.lag.until(0.0)


async def test_cancellation_of_the_caller_is_not_a_failure(breaker: CircuitBreaker) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await breaker.call(anyio.sleep_forever)

    assert scope.cancelled_caught
    assert breaker.failures == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_task_of_the_driver_is_a_failure(breaker: CircuitBreaker) -> None:
    async def call_driver() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    with pytest.raises(StoreUnavailable):
        await breaker.call(call_driver)

    assert breaker.failures == 1


async def test_failures_are_logged_once_in_half_a_minute(
    breaker: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        breaker.record_failure(OSError())
        clock.advance(5)

    assert len(caplog.messages) == 2
