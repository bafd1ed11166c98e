"""Pushes or pulls a file with oras, as a process that can be killed.

oras_push.py whole|chunked|pull HOST:PORT/REPOSITORY:TAG FILE
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import oras.client

CHUNK_BYTES = 1024 * 1024


def main(action: str, target: str, file: str) -> None:
    """Run one action as alice, in the folder of the file."""
    client = oras.client.OrasClient(insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("alice", "alice")
    path = Path(file)
    os.chdir(path.parent)
    if action == "pull":
        client.pull(target=target, outdir=str(path.parent))
    else:
        client.push(
            target=target,
            files=[path.name],
            do_chunked=action == "chunked",
            chunk_size=CHUNK_BYTES,
        )


main(*sys.argv[1:])
