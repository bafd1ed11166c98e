"""Throughput of stores: temporary servers, batches of records, interleaved writers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from time import perf_counter_ns

import pytest
from attrs import evolve

from benchmarks.harness import BenchmarkUnavailable, Figure, Samples, rotate
from tests._support.server_processes import ServerProcess
from tests.conftest import program_path
from upload_progress._model.models import TransferRecord, UploadState

ROUNDS = 60
NOW = 1_800_000_000.0

Batch = Sequence[TransferRecord]
Writer = Callable[[Batch], Awaitable[object]]
"""Writes a batch to a store."""


@contextmanager
def running_backend(recipe: Callable[..., ServerProcess]) -> Iterator[str]:
    """Run a backend server; yield its URL."""
    try:
        daemon = recipe(partial(program_path, required=True))
    except pytest.fail.Exception as reason:
        raise BenchmarkUnavailable(str(reason)) from None
    try:
        yield daemon.start().url
    finally:
        daemon.stop()


def batches(owner: str, size: int) -> Iterator[Batch]:
    """Yield batches of *size* records of the same uploads, each with more bytes."""
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


async def _interleave(writers: Mapping[str, Writer], size: int) -> dict[str, Samples]:
    samples = {name: Samples() for name in writers}
    # Other uploads for each size: a store refuses versions that are not newer than those before.
    remaining = {name: batches(f"{name}, {size}", size) for name in writers}
    names = list(writers)
    for name in names:
        await writers[name](next(remaining[name]))
    gc.collect()
    gc.disable()
    try:
        for number in range(ROUNDS):
            for name in rotate(names, number):
                batch = next(remaining[name])
                started = perf_counter_ns()
                await writers[name](batch)
                samples[name].durations.append(perf_counter_ns() - started)
    finally:
        gc.enable()
    return samples


def interleave(
    writers: Callable[[], AbstractAsyncContextManager[Mapping[str, Writer]]], size: int
) -> dict[str, Samples]:
    """Time each writer once per round, in rotating order, in nanoseconds."""

    async def main() -> dict[str, Samples]:
        async with writers() as writers_by_name:
            return await _interleave(writers_by_name, size)

    return asyncio.run(main())


def compare_with(
    durations: Mapping[str, Samples], size: int, baseline: str, *, minimum: float | None = None
) -> Figure:
    """Compare the updates per second of the store and of *baseline*, in their fastest runs."""
    store, other = durations["store"], durations[baseline]
    ratio = other.minimum / store.minimum
    return Figure(
        name=f"batches of {size}: store, against {baseline}",
        value=size / store.minimum * 1e9,
        unit="updates/s",
        baseline=size / other.minimum * 1e9,
        ratio=ratio,
        control=other.control,
        budget="" if minimum is None else f"ratio >= {minimum}",
        is_met=None if minimum is None else ratio >= minimum,
    )


Writers = AsyncIterator[Mapping[str, Writer]]
