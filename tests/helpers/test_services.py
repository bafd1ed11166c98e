"""The tests' own servers: started where asked for, put right after a fault, never left behind."""

from __future__ import annotations

import os
import socket
import sys
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

QUESTION = b"PING\r\n"
PATIENCE_SECONDS = 20.0

# What stands in for a server: says that it is there, and minds no signal when told so.
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"


def stand_in(code: str, **options: float) -> ServerProcess:
    folder = new_folder("stand-in")
    daemon = ServerProcess(
        name="stand-in",
        url="",
        port=0,
        folder=folder,
        command=[sys.executable, "-c", code],
        is_ready=lambda: "up" in daemon.log.read_text(encoding="utf-8"),
        **options,  # type: ignore[arg-type]  # all of them are seconds
    )
    return daemon


def test_an_address_of_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_PROGRESS_TEST_REDIS_URL", "redis://elsewhere")

    def nothing(name: str) -> ServerProcess:
        raise AssertionError(name)

    assert service_url("redis", nothing) == "redis://elsewhere"
    with pytest.raises(AssertionError, match="kafka"):
        service_url("kafka", nothing)


@pytest.mark.parametrize("name", SERVER_FACTORIES)
def test_without_its_program_it_says_how_to_get_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.shutil.which", lambda _name: None)

    with pytest.raises(pytest.skip.Exception, match="apt-get install"):
        SERVER_FACTORIES[name](partial(program_path, required=False))
    with pytest.raises(pytest.fail.Exception, match="apt-get install"):
        SERVER_FACTORIES[name](partial(program_path, required=True))


def test_the_newest_of_several_versions_is_found(tmp_path: Path) -> None:
    for version in ("14", "15"):
        (tmp_path / version).touch()

    assert newest_paths(f"{tmp_path}/1?", "b") == (f"{tmp_path}/15", f"{tmp_path}/1?", "b")


def runs(daemon: ServerProcess) -> bool:
    """Look again: to a type checker, what was so stays so."""
    return daemon.is_running


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_server_that_was_killed_or_paused_is_put_right(name: str, get_server: GetServer) -> None:
    daemon = get_server(name)
    daemon.kill()
    assert not runs(daemon)
    assert not responds_to(daemon.port, QUESTION)
    daemon.kill()

    assert get_server(name) is daemon
    assert runs(daemon)
    daemon.pause()
    assert not responds_to(daemon.port, QUESTION)
    get_server(name)
    assert daemon.is_ready()


def test_all_services_are_there(
    redis_server: ServerProcess,
    postgres_server: ServerProcess,
    rabbitmq_server: ServerProcess,
    kafka_server: ServerProcess,
) -> None:
    for daemon in (redis_server, postgres_server, rabbitmq_server, kafka_server):
        assert daemon.is_ready()


def test_all_services_have_addresses(
    redis_url: str, postgres_url: str, amqp_url: str, kafka_url: str
) -> None:
    schemes = [url.split(":")[0] for url in (redis_url, postgres_url, amqp_url, kafka_url)]

    assert schemes == ["redis", "postgresql", "amqp", "kafka"]


def test_a_pooler_stands_before_the_database(
    postgres_server: ServerProcess, require_program: RequireProgram
) -> None:
    pooler = pgbouncer(require_program, postgres_server).start()
    try:
        assert pooler.is_running
    finally:
        pooler.stop()
    assert not pooler.is_running


def test_one_that_ends_at_once_shows_what_it_said() -> None:
    daemon = stand_in("print('no such luck')")

    with pytest.raises(AssertionError, match="no such luck"):
        daemon.start()
    daemon.stop()


def test_one_that_never_gets_ready_shows_what_it_said() -> None:
    daemon = stand_in("import time; print('wait', flush=True); time.sleep(60)", start_seconds=0.5)

    with pytest.raises(AssertionError, match="is not ready"):
        daemon.start()
    daemon.stop()
    assert not daemon.folder.exists()


def test_one_that_does_not_stop_is_killed() -> None:
    daemon = stand_in(STUBBORN + "; time.sleep(60)", stop_seconds=0.2).start()

    daemon.stop()

    assert not daemon.is_running


def test_one_that_was_never_started_is_stopped() -> None:
    daemon = stand_in("")

    daemon.stop()

    assert not daemon.folder.exists()


def test_a_family_is_those_that_descend() -> None:
    assert process_tree(os.getpid())[0] == os.getpid()
    assert process_tree(2**22 + 1) == [2**22 + 1]


def test_the_jars_are_fetched_once(tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "${last#*=}"\n', encoding="utf-8")
    maven.chmod(0o755)
    asked: list[str] = []

    def find(name: str, *, install: str) -> str:
        asked.append(f"{name}: {install}")
        return str(maven)

    first = kafka_jars(find, tmp_path / "cache")
    second = kafka_jars(find, tmp_path / "cache")

    assert first == second
    assert first.is_dir()
    assert len(asked) == 1


# --- the proxy ------------------------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def test_the_proxy_forwards_and_cuts(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    with connect(proxy.port) as line:
        line.sendall(QUESTION)
        assert line.recv(100) == b"+PONG\r\n"
        proxy.close_connections()
        assert line.recv(100) == b""
    assert proxy.connections == 1


def test_the_proxy_resets(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    with connect(proxy.port) as line:
        line.sendall(QUESTION)
        line.recv(100)
        proxy.reset_connections()
        with pytest.raises(ConnectionResetError):
            line.recv(100)


def test_the_proxy_swallows_and_delays(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    proxy = proxy_to(redis_server.port)
    proxy.drops_data = True
    with connect(proxy.port) as line:
        line.sendall(QUESTION)
        line.settimeout(0.1)
        with pytest.raises(TimeoutError):
            line.recv(100)
    proxy.drops_data = False
    proxy.delay_seconds = 0.2
    with connect(proxy.port) as line:
        line.sendall(QUESTION)
        line.settimeout(0.1)
        with pytest.raises(TimeoutError):
            line.recv(100)
        line.settimeout(PATIENCE_SECONDS)
        assert line.recv(100) == b"+PONG\r\n"


def test_the_proxy_refuses(redis_server: ServerProcess, proxy_to: ProxyTo) -> None:
    refusing = proxy_to(redis_server.port)
    refusing.refuses_connections = True
    nobody_there = proxy_to(free_port())

    for proxy in (refusing, nobody_there):
        with connect(proxy.port) as line:
            assert line.recv(100) == b""
