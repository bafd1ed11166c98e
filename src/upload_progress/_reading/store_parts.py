"""Calls of the store: each part of it through a circuit breaker of its own.

A store of one server is one part. A cluster has several, and a part that is away stops only the
uploads that are in it: calls for uploads of several parts return what the others have answered.

A store may take no writes and still be read: Redis without memory, a read-only PostgreSQL. What it
returns then may be older than what other workers have shown, so nothing is shown from it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, Generic, TypeVar

import anyio
from attrs import Factory, define, field, frozen

from upload_progress._model.models import TransferRecord, UploadKey
from upload_progress._runtime.circuit_breaker import LONGEST_OPEN_SECONDS, CircuitBreaker
from upload_progress.exceptions import StoreBusy, StoreUnavailable
from upload_progress.interfaces import HasParts, SessionStore

__all__ = ["OUTDATED_SECONDS", "REPAIR_SECONDS", "Answers", "StoreParts", "parts_of"]

T = TypeVar("T")
K = TypeVar("K", UploadKey, TransferRecord)

_CallPart = Callable[[int, Callable[[SessionStore], Awaitable[T]]], Awaitable[T]]

OUTDATED_SECONDS: Final = 10.0
"""For how long a part is taken for outdated after a write has failed. A worker that runs tries to
renew its lease within a second, so this ends it only in a process that writes nothing."""
REPAIR_SECONDS: Final = LONGEST_OPEN_SECONDS + 2.0
"""A store that has restarted may have lost records. After so long, the workers that receive these
uploads have noticed, and have stored them again."""


def parts_of(store: SessionStore) -> Sequence[SessionStore]:
    """Return the parts of *store*: itself, unless it has parts."""
    return store.parts if isinstance(store, HasParts) else (store,)


def _part_function(store: SessionStore) -> Callable[[str], int]:
    return store.part_of if isinstance(store, HasParts) else _only_part


def _only_part(_owner: str) -> int:
    return 0


@frozen
class Answers(Generic[T]):
    """What the parts of a store have answered.

    Attributes:
        found: What those that have answered returned, part by part.
        errors: For each owner in one of the others, why there is no answer.
    """

    found: Sequence[T]
    errors: Mapping[str, StoreUnavailable]


@define(eq=False, repr=False)
class StoreParts:
    """The session store, called through one circuit breaker for each of its parts.

    Args:
        store: The store of all workers.
        breaker: The circuit breaker for calls that need the whole store.
        breakers: Those of the parts; by default, the whole store is the only part.
    """

    store: SessionStore
    breaker: CircuitBreaker
    breakers: Sequence[CircuitBreaker] = field(
        default=Factory(lambda self: (self.breaker,), takes_self=True)
    )

    _parts: Sequence[SessionStore] = field(
        default=Factory(lambda self: parts_of(self.store), takes_self=True), init=False
    )
    _part_of: Callable[[str], int] = field(
        default=Factory(lambda self: _part_function(self.store), takes_self=True), init=False
    )
    _write_failed_at: dict[int, float] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._parts)

    @property
    def failures(self) -> int:
        """How many calls failed or took too long."""
        return sum(breaker.failures for breaker in {self.breaker, *self.breakers})

    @property
    def is_open(self) -> bool:
        """Whether calls to a part are refused at the moment, after a recent failure."""
        return any(breaker.is_open for breaker in self.breakers)

    def refuses(self, owner: str) -> bool:
        """Return whether calls for uploads of *owner* are refused at the moment."""
        return self.breakers[self.part_of(owner)].is_open

    def reset(self) -> None:
        """Allow the next call of each part at once, because there is no later one."""
        for breaker in self.breakers:
            breaker.reset()

    def part_of(self, owner: str) -> int:
        """Return the index of the part that has the uploads of *owner*."""
        return self._part_of(owner)

    def is_outdated(self, owner: str) -> bool:
        """Return whether the last write to the part of *owner* has failed, not long ago.

        What can be read from it may then be older than what has been shown of these uploads.
        """
        return self._is_outdated(self.part_of(owner))

    def may_lack(self, owner: str) -> bool:
        """Return whether the part of *owner* was away, and may have lost what workers had stored.

        What is not found there may soon be there again.
        """
        recovered_at = self.breakers[self.part_of(owner)].recovered_at
        return self.breaker.clock.monotonic() - recovered_at < REPAIR_SECONDS

    @property
    def recovered_at(self) -> float:
        """When a part has answered again last, after a failure; in monotonic seconds."""
        return max(breaker.recovered_at for breaker in self.breakers)

    @property
    def outdated(self) -> Sequence[int]:
        """The parts for which that is so."""
        return [part for part in self._write_failed_at if self._is_outdated(part)]

    def _is_outdated(self, part: int) -> bool:
        failed_at = self._write_failed_at.get(part, -inf)
        return self.breaker.clock.monotonic() - failed_at < OUTDATED_SECONDS

    async def call(self, owner: str, function: Callable[[SessionStore], Awaitable[T]]) -> T:
        """Return the result of *function*, called with the part of *owner*.

        Raises:
            StoreUnavailable: The part does not answer.
        """
        return await self._call_part(self.part_of(owner), function)

    async def write(self, owner: str, function: Callable[[SessionStore], Awaitable[T]]) -> T:
        """Return the result of *function*, which writes to the part of *owner*.

        Raises:
            StoreUnavailable: The part does not answer, or takes no writes.
        """
        return await self._write_part(self.part_of(owner), function)

    async def call_parts(
        self, parts: Iterable[int], function: Callable[[SessionStore], Awaitable[T]]
    ) -> Mapping[int, T]:
        """Return what *function* returns for each of *parts* that answers.

        Raises:
            StoreUnavailable: None of them answers.
        """
        results, _ = await self._call_each(self._call_part, dict.fromkeys(parts, function))
        return results

    async def write_parts(
        self, parts: Iterable[int], function: Callable[[SessionStore], Awaitable[T]]
    ) -> Mapping[int, T]:
        """Return what *function*, which writes, returns for each of *parts* that answers.

        Raises:
            StoreUnavailable: None of them answers, or takes writes.
        """
        results, _ = await self._call_each(self._write_part, dict.fromkeys(parts, function))
        return results

    async def load(self, keys: Collection[UploadKey]) -> Answers[TransferRecord]:
        """Load the records of *keys*, in one round trip for each part.

        Raises:
            StoreUnavailable: None of the parts of *keys* answers.
        """
        return await self._call_for(
            keys, lambda batch, store: store.load(*batch), call_part=self._call_part
        )

    async def save(self, records: Collection[TransferRecord]) -> Answers[TransferRecord]:
        """Save *records*, in one round trip for each part, and return those that were refused.

        Raises:
            StoreUnavailable: None of the parts of *records* answers.
        """
        return await self._call_for(
            records, lambda batch, store: store.save(batch), call_part=self._write_part
        )

    async def _call_for(
        self,
        items: Collection[K],
        function: Callable[[Sequence[K], SessionStore], Awaitable[Sequence[TransferRecord]]],
        *,
        call_part: _CallPart[Sequence[TransferRecord]],
    ) -> Answers[TransferRecord]:
        """Call each part with those of *items* whose owners are in it."""
        batches: dict[int, list[K]] = {}
        for item in items:
            batches.setdefault(self.part_of(item.owner), []).append(item)
        results, errors = await self._call_each(
            call_part, {part: partial(function, batch) for part, batch in batches.items()}
        )
        return Answers(
            [record for part in batches if part in results for record in results[part]],
            {item.owner: error for part, error in errors.items() for item in batches[part]},
        )

    async def _call_each(
        self,
        call_part: _CallPart[T],
        calls: Mapping[int, Callable[[SessionStore], Awaitable[T]]],
    ) -> tuple[Mapping[int, T], Mapping[int, StoreUnavailable]]:
        """Call several parts at the same time, and return their results and errors.

        Raises:
            StoreUnavailable: None of them answers.
        """
        results, errors = dict[int, T](), dict[int, StoreUnavailable]()

        async def call(part: int, function: Callable[[SessionStore], Awaitable[T]]) -> None:
            try:
                results[part] = await call_part(part, function)
            except StoreUnavailable as error:
                errors[part] = error

        if len(calls) == 1:
            for part, function in calls.items():
                await call(part, function)
        else:
            async with anyio.create_task_group() as tasks:
                for part, function in calls.items():
                    tasks.start_soon(call, part, function)
        if errors and not results:
            raise next(iter(errors.values()))
        return results, errors

    async def _call_part(self, part: int, function: Callable[[SessionStore], Awaitable[T]]) -> T:
        return await self.breakers[part].call(lambda: function(self._parts[part]))

    async def _write_part(self, part: int, function: Callable[[SessionStore], Awaitable[T]]) -> T:
        if self.breakers[part].is_open:
            raise StoreUnavailable
        try:
            result = await self._call_part(part, function)
        except StoreBusy:
            raise
        except StoreUnavailable:
            self._write_failed_at[part] = self.breaker.clock.monotonic()
            raise
        self._write_failed_at.pop(part, None)
        return result
