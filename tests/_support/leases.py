"""Leases that run out quickly."""

from __future__ import annotations

import anyio

from upload_progress.interfaces import SessionStore

__all__ = ["let_lease_run_out"]

LEASE_SECONDS = 0.6
RENEWALS = 11


async def let_lease_run_out(store: SessionStore, worker: str = "w") -> None:
    """Let the lease of *worker* run out, while another worker renews its own."""
    await store.renew(worker, seconds=LEASE_SECONDS)
    for _ in range(RENEWALS):
        await anyio.sleep(LEASE_SECONDS / (RENEWALS - 1))
        await store.renew("alive", seconds=LEASE_SECONDS)
