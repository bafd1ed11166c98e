"""A task that goes on with an upload, until it is told to end: for tests that kill it."""

from __future__ import annotations

import sys

from upload_progress import ProgressTracker


def main(url: str, lease_seconds: str, token: str) -> None:
    """Resume the upload, say so, and end it at the end of the input."""
    tracker = ProgressTracker.from_url(url, lease_seconds=float(lease_seconds))
    with tracker.resume_blocking(token) as upload, upload.stage("scanning"):
        print(upload.snapshot().attempt, flush=True)  # noqa: T201  # the test waits for it
        sys.stdin.read()


main(*sys.argv[1:])
