"""Fixtures of the tests with real clients: example servers, files, tus-js-client."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from attrs import frozen

from tests._support.client_commands import INSTALL_HINT
from tests._support.client_report import ClientReport
from tests._support.upload_watcher import ExampleServer, run_example
from tests.conftest import RequireProgram

# Of each request, where several run at a time; and how large an artifact is that shall show it.
BYTES_PER_SECOND = 6_000_000
SIZE = 4_000_000
NPM = Path.home() / ".cache" / "upload-progress" / "npm" / "clients"
TUS_JS_CLIENT = "tus-js-client@4.3.1"
NPM_SECONDS = 120


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of random bytes."""
    path = tmp_path_factory.mktemp("artifact") / "big.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture(scope="session")
def large_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file larger than what the system keeps on the way.

    A killed client's bytes go on arriving from there: of a small file, all of them.
    """
    path = tmp_path_factory.mktemp("artifact") / "large.bin"
    path.write_bytes(os.urandom(3 * SIZE))
    return path


@pytest.fixture(scope="session")
def files() -> Iterator[ExampleServer]:
    with run_example("generic_put.py", bytes_per_second=BYTES_PER_SECOND) as server:
        yield server


@pytest.fixture(scope="session")
def index() -> Iterator[ExampleServer]:
    with run_example("pypi_server.py", bytes_per_second=BYTES_PER_SECOND) as server:
        yield server


@pytest.fixture(scope="session")
def registry() -> Iterator[ExampleServer]:
    with run_example("oci_registry.py", bytes_per_second=BYTES_PER_SECOND) as server:
        yield server


@pytest.fixture(scope="session")
def tus() -> Iterator[ExampleServer]:
    with run_example("tus_server.py", bytes_per_second=BYTES_PER_SECOND) as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[ExampleServer]:
    with run_example("s3_gateway.py", bytes_per_second=BYTES_PER_SECOND) as server:
        yield server


@frozen
class Certificate:
    """A server's certificate: with its key, and for those who shall trust it."""

    server: Path
    trusted: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder, authority = tmp_path_factory.mktemp("certificate"), trustme.CA()
    created = Certificate(folder / "server.pem", folder / "trusted.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(created.server)
    authority.cert_pem.write_to_path(created.trusted)
    return created


@pytest.fixture(scope="session")
def s3_over_tls(certificate: Certificate) -> Iterator[ExampleServer]:
    """By TLS, boto3 signs no body, but sends it in chunks with a checksum behind them."""
    context = ssl.create_default_context(cafile=certificate.trusted)
    # TLS 1.3 sends tickets after the handshake: websockets' thread then waits in a read for what
    # is no data yet, while another writes, and neither comes back.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    options = ("--certificate", str(certificate.server))
    with run_example(
        "s3_gateway.py", *options, bytes_per_second=BYTES_PER_SECOND, tls=context
    ) as server:
        yield server


@pytest.fixture(scope="session")
def report() -> ClientReport:
    return ClientReport()


@pytest.fixture(scope="session")
def node_path(require_program: RequireProgram) -> str:
    """Return where Node finds tus-js-client, which is fetched once for all runs."""
    npm = require_program(
        "npm", install="install nodejs and npm with your system's package manager"
    )
    NPM.mkdir(parents=True, exist_ok=True)
    # Nothing is fetched if it is there.
    options = ["--prefer-offline", "--no-audit", "--no-fund", "--prefix", str(NPM)]
    subprocess.run([npm, "install", *options, TUS_JS_CLIENT], check=True, timeout=NPM_SECONDS)
    return str(NPM / "node_modules")


@pytest.fixture(scope="session")
def curl(require_program: RequireProgram) -> list[str]:
    program = require_program("curl", install=INSTALL_HINT.format("curl"))
    return [program, "--silent", "--show-error", "--fail", "--user", "alice:alice"]


@pytest.fixture(scope="session")
def skopeo(require_program: RequireProgram) -> str:
    return require_program("skopeo", install=INSTALL_HINT.format("skopeo"))
