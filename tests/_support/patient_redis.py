"""A client of Redis for event loops with virtual time."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from tests._support.virtual_time import PatientLoop

__all__ = ["PatientRedis"]


class PatientPipeline(Pipeline):
    """Commands that are sent together, whose answers a `PatientLoop` waits for."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands, and return the answers."""
        with PatientLoop.waiting():
            return await super().execute(raise_on_error)


class PatientRedis(Redis):
    """A client whose answers a `PatientLoop` waits for."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as in redis-py
        """Send a command, and return the answer."""
        with PatientLoop.waiting():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # its gap

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return commands that are sent together."""
        return PatientPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
