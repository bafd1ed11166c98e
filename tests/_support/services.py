"""Fixtures for the services that stores and brokers stand for, loaded by ``tests/conftest.py``.

``redis_url``, ``postgres_url``, ``amqp_url`` and ``kafka_url`` give the address of a service that
the whole run shares: from the environment (``UPLOAD_PROGRESS_TEST_REDIS_URL``, ``…_POSTGRES_URL``,
``…_RABBITMQ_URL``, ``…_KAFKA_URL``), else of a server that is started when a test first asks for
it; where its program is missing, the test is skipped and says how to get it.

``redis_server``, ``postgres_server``, ``rabbitmq_server`` and ``kafka_server`` give that server
itself, always one of ours, to be killed, paused and started again; after the test it is healthy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests._support.server_processes import Daemon
from tests._support.server_recipes import RECIPES
from tests._support.tcp_proxy import Proxy
from tests.conftest import RequireProgram

__all__ = [
    "amqp_url",
    "daemons",
    "kafka_server",
    "kafka_url",
    "migrated_postgres_url",
    "postgres_server",
    "postgres_url",
    "proxy_to",
    "rabbitmq_server",
    "redis_server",
    "redis_url",
    "service_url",
]

Daemons = Callable[[str], Daemon]
ProxyTo = Callable[[int], Proxy]


@pytest.fixture(scope="session")
def daemons(require_program: RequireProgram) -> Iterator[Daemons]:
    """Start each server when it is first asked for, and stop all of them at the end."""
    started: dict[str, Daemon] = {}
    with ExitStack() as at_the_end:

        def daemon(name: str) -> Daemon:
            if name not in started:
                made = RECIPES[name](require_program)
                at_the_end.callback(made.stop)
                started[name] = made.start()
            return started[name].healthy()

        yield daemon


def service_url(name: str, daemons: Daemons) -> str:
    """Return the address from the environment, else that of a server of our own."""
    return os.environ.get(f"UPLOAD_PROGRESS_TEST_{name.upper()}_URL") or daemons(name).url


@pytest.fixture(scope="session")
def redis_url(daemons: Daemons) -> str:
    return service_url("redis", daemons)


@pytest.fixture(scope="session")
def postgres_url(daemons: Daemons) -> str:
    return service_url("postgres", daemons)


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_url: str) -> str:
    """Return the address of PostgreSQL, where the tables of a store are."""
    command = [sys.executable, "-m", "upload_progress.cli", "migrate", postgres_url]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    return postgres_url


@pytest.fixture(scope="session")
def amqp_url(daemons: Daemons) -> str:
    return service_url("rabbitmq", daemons)


@pytest.fixture(scope="session")
def kafka_url(daemons: Daemons) -> str:
    return service_url("kafka", daemons)


def _mended(name: str, daemons: Daemons) -> Iterator[Daemon]:
    yield daemons(name)
    daemons(name)


@pytest.fixture
def redis_server(daemons: Daemons) -> Iterator[Daemon]:
    yield from _mended("redis", daemons)


@pytest.fixture
def postgres_server(daemons: Daemons) -> Iterator[Daemon]:
    yield from _mended("postgres", daemons)


@pytest.fixture
def rabbitmq_server(daemons: Daemons) -> Iterator[Daemon]:
    yield from _mended("rabbitmq", daemons)


@pytest.fixture
def kafka_server(daemons: Daemons) -> Iterator[Daemon]:
    yield from _mended("kafka", daemons)


@pytest.fixture
def proxy_to() -> Iterator[ProxyTo]:
    """Return what makes a proxy to a port of 127.0.0.1; it is closed after the test."""
    with ExitStack() as proxies:
        yield lambda port: proxies.enter_context(Proxy(port))
