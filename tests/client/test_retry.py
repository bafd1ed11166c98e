from __future__ import annotations

import anyio
import pytest

from upload_progress.client.retry import Patience
from upload_progress.exceptions import ServerBusy, ServerUnreachable, UploadProgressError

pytestmark = pytest.mark.anyio

GONE = ServerUnreachable("http://h", "gone")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return where pauses are noted, instead of made."""
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr("anyio.sleep", note)
    return noted


async def rest(patience: Patience, times: int, reason: UploadProgressError = GONE) -> None:
    with anyio.fail_after(10):
        for _ in range(times):
            await patience.rest(reason)


async def test_pauses_double_up_to_a_bound(pauses: list[float]) -> None:
    await rest(Patience(9, 0.5, random=lambda: 1.0), 9)

    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.25), (0.5, 0.375)])
async def test_chance_makes_them_unequal(pauses: list[float], chance: float, pause: float) -> None:
    await rest(Patience(1, 0.5, random=lambda: chance), 1)

    assert pauses == [pause]


async def test_it_ends_with_the_reason(pauses: list[float]) -> None:
    tired = Patience(2, 0.5)
    await rest(tired, 2)

    with pytest.raises(ServerUnreachable) as raised:
        await tired.rest(GONE)

    assert raised.value is GONE
    tired.renew()
    await tired.rest(GONE)
    assert len(pauses) == 3


@pytest.mark.parametrize(("asked", "pause"), [(7, 7), (0, 0.5), (1000, 30)])
async def test_a_busy_server_is_given_the_time_it_asks_for(
    pauses: list[float], asked: float, pause: float
) -> None:
    await rest(Patience(1, 0.5, random=lambda: 1.0), 1, ServerBusy("busy", asked))

    assert pauses == [pause]
