"""Optional dependencies: a missing driver raises an error with the command that installs it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from upload_progress._runtime.optional import hidden, require
from upload_progress.exceptions import MissingExtra

WITHOUT = """
import importlib, sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
try:
    importlib.import_module(sys.argv[2])
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("missing", "module", "extra"),
    [
        ("redis", "upload_progress.backends.redis.client", "redis"),
        ("redis", "upload_progress.backends.redis.store", "redis"),
        ("redis", "upload_progress.backends.redis.publisher", "redis"),
        ("psycopg", "upload_progress.backends.postgres.publisher", "postgres"),
        ("aio_pika", "upload_progress.backends.rabbitmq", "rabbitmq"),
        ("psycopg", "upload_progress.backends.postgres.client", "postgres"),
        ("psycopg", "upload_progress.backends.postgres.schema", "postgres"),
        ("psycopg", "upload_progress.backends.postgres.store", "postgres"),
    ],
)
def test_missing_driver_is_named_with_the_command_that_installs_it(
    missing: str, module: str, extra: str
) -> None:
    run = [sys.executable, "-c", WITHOUT, missing, module]
    finished = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)

    expected = f"{missing} is not installed: pip install 'upload-progress[{extra}]'"
    assert finished.stdout == f"MissingExtra {expected}\n"


def test_first_missing_package_is_named() -> None:
    require("json", "email", extra="redis")

    with pytest.raises(MissingExtra, match=r"^no_such_package is not installed: .*\[redis\]"):
        require("json", "no_such_package", "email", extra="redis")


def test_hidden_package_is_not_imported_inside_of_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with hidden("this", "json"):
        with pytest.raises(ImportError):
            importlib.import_module("this")
        assert importlib.import_module("json") is json, "it was imported before"

    assert "this" not in sys.modules
    assert find_spec("this") is not None
