"""Iterate over many items without blocking the event loop."""

from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

from anyio.lowlevel import checkpoint

__all__ = ["YIELD_EVERY", "yielding"]

T = TypeVar("T")

YIELD_EVERY: Final = 16
"""The number of items between two checkpoints: at 50 µs each, less than a millisecond."""


async def yielding(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate over *items*, with a checkpoint of the event loop after every 16."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % YIELD_EVERY == 0:
            await checkpoint()
