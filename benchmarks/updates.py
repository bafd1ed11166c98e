"""What the benchmarks of stores share: servers of their own, and uploads that go on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from time import perf_counter_ns

import pytest
from attrs import evolve

from benchmarks.common import CannotRun, Figure, Samples, turned
from tests._support.server_processes import ServerProcess
from tests.conftest import program_path
from upload_progress._model.models import TransferRecord, UploadState

ROUNDS = 60
NOW = 1_800_000_000.0

Batch = Sequence[TransferRecord]
Way = Callable[[Batch], Awaitable[object]]
"""Writes a batch."""


@contextmanager
def served(recipe: Callable[..., ServerProcess]) -> Iterator[str]:
    """Run a server, and yield its URL."""
    try:
        daemon = recipe(partial(program_path, required=True))
    except pytest.fail.Exception as reason:
        raise CannotRun(str(reason)) from None
    try:
        yield daemon.start().url
    finally:
        daemon.stop()


def batches(owner: str, size: int) -> Iterator[Batch]:
    """Tell of *size* uploads that are being received, of more bytes each time."""
    records = [
        TransferRecord(
            owner=owner,
            upload_id=f"{number:04}-0123456789abcdef",
            transfer_id=f"{number:016x}",
            attempt=1,
            sequence=1,
            state=UploadState.RECEIVING,
            received_bytes=0,
            total_bytes=1 << 40,
            bytes_per_second=12_345_678.9,
            filename="artifact.tar.gz",
            content_type="application/gzip",
            worker="0123456789abcdef",
            created_at=NOW,
            started_at=NOW,
            updated_at=NOW,
            last_byte_at=NOW,
        )
        for number in range(size)
    ]
    while True:
        yield records
        records = [
            evolve(
                each,
                sequence=each.sequence + 1,
                received_bytes=each.received_bytes + 262_144,
                updated_at=each.updated_at + 0.1,
                last_byte_at=each.updated_at + 0.1,
            )
            for each in records
        ]


async def _in_turns(ways: Mapping[str, Way], size: int) -> dict[str, Samples]:
    samples = {name: Samples() for name in ways}
    coming = {name: batches(name, size) for name in ways}
    names = list(ways)
    for name in names:
        await ways[name](next(coming[name]))
    gc.collect()
    gc.disable()
    try:
        for number in range(ROUNDS):
            for name in turned(names, number):
                batch = next(coming[name])
                begun = perf_counter_ns()
                await ways[name](batch)
                samples[name].taken.append(perf_counter_ns() - begun)
    finally:
        gc.enable()
    return samples


def in_turns(
    ways: Callable[[], AbstractAsyncContextManager[Mapping[str, Way]]], size: int
) -> dict[str, Samples]:
    """Time each way of writing once per round, in an order that turns, in nanoseconds."""

    async def main() -> dict[str, Samples]:
        async with ways() as made:
            return await _in_turns(made, size)

    return asyncio.run(main())


def compared(
    taken: Mapping[str, Samples], size: int, baseline: str, *, least: float | None = None
) -> Figure:
    """Hold the store's updates a second against those of *baseline*: the least disturbed runs."""
    ours, theirs = taken["store"], taken[baseline]
    ratio = theirs.least / ours.least
    return Figure(
        what=f"batches of {size}: the store, against {baseline}",
        value=size / ours.least * 1e9,
        unit="updates/s",
        baseline=size / theirs.least * 1e9,
        ratio=ratio,
        control=theirs.control,
        budget="" if least is None else f"ratio >= {least}",
        holds=None if least is None else ratio >= least,
    )


Ways = AsyncIterator[Mapping[str, Way]]
