"""The process of a command: signals that end it, and pipes whose reader may leave early."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TextIO

import anyio

from upload_progress.exceptions import UploadProgressError

__all__ = ["beside", "discard", "interruptible", "write_line"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def interruptible(
    work: Callable[[], Awaitable[object]], clean_up: Callable[[], Awaitable[object]]
) -> bool:
    """Run *work* to its end, or until a signal: then run *clean_up*, and cancel *work* after it.

    Returns:
        Whether a signal came.
    """
    interrupted = anyio.Event()

    async def watch() -> None:
        await interrupted.wait()
        await clean_up()
        tasks.cancel_scope.cancel()

    with _calling_on_signals(interrupted.set):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await work()
            tasks.cancel_scope.cancel()
    return interrupted.is_set()


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[object, object, None]]) -> AsyncGenerator[None]:
    """Run *work* beside the block, until the end of the block.

    Raises:
        UploadProgressError: That of the block, and not in a group.
    """
    error: UploadProgressError | None = None
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            yield
        except UploadProgressError as raised:
            error = raised
        scope.cancel()
    if error is not None:
        raise error


@contextmanager
def _calling_on_signals(callback: Callable[[], object]) -> Iterator[None]:
    # Event loops offer signal handlers of their own on Unix only.
    loop = asyncio.get_running_loop()

    def handle(*_arguments: object) -> None:
        loop.call_soon_threadsafe(callback)

    previous = {each: signal.signal(each, handle) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def write_line(stream: TextIO, line: str) -> bool:
    """Write a line at once, so that a pipe receives it without delay.

    Returns:
        Whether somebody may read it. After the reader of a pipe has left, nothing is written.
    """
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except BrokenPipeError:
        discard(stream)
        return False
    return True


def discard(stream: TextIO) -> None:
    """Let *stream* write to nothing: also what it has kept, which Python writes at the exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
