from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest

from upload_progress._runtime.backoff import Backoff
from upload_progress.client.retry import MAX_DELAY_SECONDS, RetryPolicy
from upload_progress.exceptions import ServerBusy, ServerUnreachable, UploadProgressError

pytestmark = pytest.mark.anyio

UNREACHABLE = ServerUnreachable("http://h", "gone")


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of delays, which are recorded instead of waited for."""
    recorded: list[float] = []

    async def record(seconds: float) -> None:
        recorded.append(seconds)

    # Only the module under test: a server in another thread sleeps as well.
    monkeypatch.setattr("upload_progress.client.retry.anyio", SimpleNamespace(sleep=record))
    return recorded


def without_jitter(retries: int) -> RetryPolicy:
    backoff = Backoff(first_seconds=0.5, maximum_seconds=MAX_DELAY_SECONDS, random=lambda: 1.0)
    return RetryPolicy(retries, backoff)


async def wait(retry: RetryPolicy, times: int, error: UploadProgressError = UNREACHABLE) -> None:
    with anyio.fail_after(10):
        for _ in range(times):
            await retry.wait(error)


async def test_delays_double_up_to_30_seconds(delays: list[float]) -> None:
    await wait(without_jitter(9), 9)

    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_default_delays_are_jittered(delays: list[float]) -> None:
    for _ in range(20):
        await wait(RetryPolicy.create(1, 0.5), 1)

    assert len(set(delays)) > 1
    assert all(0.25 <= delay <= 0.5 for delay in delays)


async def test_last_error_is_raised_when_no_retry_is_left(delays: list[float]) -> None:
    retry = without_jitter(2)
    await wait(retry, 2)

    with pytest.raises(ServerUnreachable) as raised:
        await retry.wait(UNREACHABLE)

    assert raised.value is UNREACHABLE
    retry.reset()
    await retry.wait(UNREACHABLE)
    assert delays == [0.5, 1, 0.5]


@pytest.mark.parametrize(("requested", "delay"), [(8, 10), (0, 0.5), (10_000, 4500)])
async def test_delay_is_at_least_what_a_busy_server_asks_for(
    delays: list[float], requested: float, delay: float
) -> None:
    await wait(without_jitter(1), 1, ServerBusy("busy", requested))

    assert delays == [delay]
