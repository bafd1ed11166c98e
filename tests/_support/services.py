"""Fixtures for the servers of stores and brokers, loaded by ``tests/conftest.py``.

``redis_url``, ``valkey_url``, ``postgres_url``, ``amqp_url`` and ``kafka_url`` are the URL of a
server that all tests share: from the environment (``UPLOAD_PROGRESS_TEST_REDIS_URL``,
``…_VALKEY_URL``, ``…_POSTGRES_URL``, ``…_RABBITMQ_URL``, ``…_KAFKA_URL``), else of a server that is
started for the first test that uses it. If its program is missing, the test is skipped with the
command that installs it.

``redis_server``, ``postgres_server``, ``rabbitmq_server`` and ``kafka_server`` are the process
itself, always a child of the tests. A test may kill, pause and restart it; then it is restored.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests._support.server_factories import SERVER_FACTORIES
from tests._support.server_processes import ServerProcess
from tests._support.tcp_proxy import TcpProxy
from tests.conftest import RequireProgram

__all__ = [
    "amqp_url",
    "get_server",
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
    "valkey_url",
]

GetServer = Callable[[str], ServerProcess]
ProxyTo = Callable[[int], TcpProxy]


@pytest.fixture(scope="session")
def get_server(require_program: RequireProgram) -> Iterator[GetServer]:
    """Return a function that starts a server on its first call; all are stopped at the end."""
    started: dict[str, ServerProcess] = {}
    with ExitStack() as started_servers:

        def get(name: str) -> ServerProcess:
            if name not in started:
                made = SERVER_FACTORIES[name](require_program)
                started_servers.callback(made.stop)
                started[name] = made.start()
            return started[name].ensure_running()

        yield get


def service_url(name: str, get_server: GetServer) -> str:
    """Return the URL from the environment, else that of a server started by the tests."""
    return os.environ.get(f"UPLOAD_PROGRESS_TEST_{name.upper()}_URL") or get_server(name).url


@pytest.fixture(scope="session")
def redis_url(get_server: GetServer) -> str:
    return service_url("redis", get_server)


@pytest.fixture(scope="session")
def valkey_url(get_server: GetServer) -> str:
    return service_url("valkey", get_server)


@pytest.fixture(scope="session")
def postgres_url(get_server: GetServer) -> str:
    return service_url("postgres", get_server)


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_url: str) -> str:
    """Return the URL of PostgreSQL, with the tables of a store."""
    command = [sys.executable, "-m", "upload_progress.cli", "migrate", postgres_url]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    return postgres_url


@pytest.fixture(scope="session")
def amqp_url(get_server: GetServer) -> str:
    return service_url("rabbitmq", get_server)


@pytest.fixture(scope="session")
def kafka_url(get_server: GetServer) -> str:
    return service_url("kafka", get_server)


def _restored(name: str, get_server: GetServer) -> Iterator[ServerProcess]:
    yield get_server(name)
    get_server(name)


@pytest.fixture
def redis_server(get_server: GetServer) -> Iterator[ServerProcess]:
    yield from _restored("redis", get_server)


@pytest.fixture
def postgres_server(get_server: GetServer) -> Iterator[ServerProcess]:
    yield from _restored("postgres", get_server)


@pytest.fixture
def rabbitmq_server(get_server: GetServer) -> Iterator[ServerProcess]:
    yield from _restored("rabbitmq", get_server)


@pytest.fixture
def kafka_server(get_server: GetServer) -> Iterator[ServerProcess]:
    yield from _restored("kafka", get_server)


@pytest.fixture
def proxy_to() -> Iterator[ProxyTo]:
    """Return a function that starts a proxy to a port; it is stopped after the test."""
    with ExitStack() as proxies:
        yield lambda port: proxies.enter_context(TcpProxy(port))
