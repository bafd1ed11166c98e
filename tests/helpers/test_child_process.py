"""The helper that runs a server process reports why it did not start."""

from __future__ import annotations

import pytest

from tests._support.child_process import run_python_server


def test_failed_start_contains_the_output() -> None:
    server = run_python_server("-c", "import sys; sys.exit('no such app')")

    with pytest.raises(AssertionError, match="no such app"):
        server.__enter__()
