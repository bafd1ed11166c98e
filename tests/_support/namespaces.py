"""Namespaces of tests that count: the servers are shared, and other tests leave uploads behind."""

from __future__ import annotations

from uuid import uuid4

from tests._support.server_processes import ServerProcess
from upload_progress.backends.postgres.schema import migrate

__all__ = ["new_namespace"]


async def new_namespace(server: ServerProcess) -> str:
    """Return a namespace that no other test uses, with its tables if *server* is PostgreSQL."""
    namespace = f"test-{uuid4().hex[:12]}"
    if server.name == "postgres":
        await migrate(server.url, schema=namespace.replace("-", "_"))
    return namespace
