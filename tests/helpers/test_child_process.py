"""What tests use to run servers says what went wrong."""

from __future__ import annotations

import pytest

from tests._support.child_process import run_python_server


def test_a_server_that_does_not_start_is_heard() -> None:
    server = run_python_server("-c", "import sys; sys.exit('no such app')")

    with pytest.raises(AssertionError, match="no such app"):
        server.__enter__()
