"""Names of workers, and the tokens that contain them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._runtime.worker import SEPARATOR, Worker, is_worker_name, worker_of


def test_each_worker_has_its_own_name() -> None:
    names = {Worker().name for _ in range(100)}

    assert len(names) == 100
    assert all(is_worker_name(name) for name in names)


def test_forked_process_gets_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    name, key = worker.name, worker.key
    assert (worker.name, worker.key) == (name, key)

    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert worker.key != key
    assert worker.name != name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "ä", "a\n", "x" * 65])
def test_invalid_name(name: str) -> None:
    assert not is_worker_name(name)
    assert worker_of(f"{name}{SEPARATOR}id") in {None, "a"}


@given(st.text(max_size=20))
def test_worker_of_a_token_is_the_part_before_the_separator(identifier: str) -> None:
    worker = Worker()

    assert worker_of(f"{worker.name}{SEPARATOR}{identifier}") == worker.name


@pytest.mark.parametrize("token", ["", "worker", ".id", "a b.id"])
def test_token_without_a_worker(token: str) -> None:
    assert worker_of(token) is None
