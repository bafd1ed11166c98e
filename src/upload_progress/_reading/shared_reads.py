"""Sharing reads that many callers ask for at once: one runs, and all that wait share the next one.

A caller must not get the result of a read that began before the call, because what changed in
between would be missing. So callers that arrive during a read wait together for one further read.
After each read there is a pause in proportion to its duration. However often one owner asks for
a list, on any number of connections, the lists of that owner are read one after the other, for at
most a quarter of the time.
"""

from collections.abc import Awaitable, Callable, Hashable
from itertools import islice
from typing import Final, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar
from attrs import define, field

from upload_progress.exceptions import UploadProgressError

__all__ = ["MAX_PAUSE_SECONDS", "PAUSE_FACTOR", "SharedReads"]

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q", bound=Hashable)
V = TypeVar("V")

PAUSE_FACTOR: Final = 3
"""A pause lasts that many times as long as the read before it."""
MAX_PAUSE_SECONDS: Final = 0.5
_CHECKED_PER_CALL: Final = 2


@define(eq=False)
class _Read(Generic[V]):
    """A read, and what came of it; neither a result nor an error if its caller was cancelled."""

    has_ended: anyio.Event = field(factory=anyio.Event)
    results: list[V] = field(factory=list)
    error: UploadProgressError | None = None


@define(eq=False)
class _State(Generic[Q, V]):
    """The reads of one owner.

    Attributes:
        running: Held while a read runs.
        next_reads: The reads that wait to begin, by query; further callers join them.
        paused_until: When the next one may begin.
    """

    running: anyio.Lock = field(factory=anyio.Lock)
    next_reads: dict[Q, _Read[V]] = field(factory=dict)
    paused_until: float = float("-inf")


@define(eq=False, repr=False)
class SharedReads(Generic[K, Q, V]):
    """Runs the reads of each owner one after the other, each for all callers that wait for it.

    That is so in each event loop: callers in different ones share nothing.
    """

    _loop_states: RunVar[dict[K, _State[Q, V]]] = field(
        factory=lambda: RunVar("shared_reads"), init=False
    )

    @property
    def _states(self) -> dict[K, _State[Q, V]]:
        states = self._loop_states.get(None)
        if states is None:
            states = {}
            self._loop_states.set(states)
        return states

    def __len__(self) -> int:
        """Return the number of owners that are being read, or were read a moment ago."""
        return len(self._states)

    async def get(self, owner: K, query: Q, read: Callable[[], Awaitable[V]]) -> V:
        """Return the result of a call of *read* that begins after this call.

        Args:
            owner: Whose uploads are read.
            query: What is read of them: callers with the same query share a read.
            read: Reads it.

        Raises:
            UploadProgressError: As raised by *read*.
        """
        self._remove_idle()
        state = self._states.setdefault(owner, _State())
        while (joined := state.next_reads.get(query)) is not None:
            await joined.has_ended.wait()
            if joined.error is not None:
                raise joined.error
            if joined.results:
                return joined.results[0]
        return await self._read(state, query, read)

    async def _read(self, state: _State[Q, V], query: Q, read: Callable[[], Awaitable[V]]) -> V:
        own = state.next_reads[query] = _Read()
        try:
            async with state.running:
                await anyio.sleep_until(state.paused_until)
                del state.next_reads[query]
                began = anyio.current_time()
                try:
                    own.results.append(await read())
                except UploadProgressError as error:
                    own.error = error
                    raise
                finally:
                    now = anyio.current_time()
                    pause = min(PAUSE_FACTOR * (now - began), MAX_PAUSE_SECONDS)
                    state.paused_until = now + pause
        finally:
            if state.next_reads.get(query) is own:
                del state.next_reads[query]
            own.has_ended.set()
        return own.results[0]

    def _remove_idle(self) -> None:
        """Check the oldest owners, more than one for each call, and remove those that are idle."""
        now = anyio.current_time()
        for owner, state in list(islice(self._states.items(), _CHECKED_PER_CALL)):
            del self._states[owner]
            if state.running.locked() or state.next_reads or now < state.paused_until:
                self._states[owner] = state
