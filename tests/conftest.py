"""Configuration of all tests: both event loops, deterministic random data, required programs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import settings

# The same examples in every run, as tests are not retried; `--hypothesis-profile=explore` searches
# for new ones. No deadline: a slow machine is not a failure.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("steady")

# A background job ignores SIGINT, and the servers that it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Loading these starts no server: that happens when a test uses one.
pytest_plugins = [
    "tests._support.backend_matrix",
    "tests._support.services",
    "tests._support.simulation_fixtures",
]

RequireProgram = Callable[..., str]
# Fixtures that start or need a program that is not a Python package.
SERVICES = {"get_server", "require_program"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options: which programs are required, which sequences and outages are tested."""
    parser.addoption(
        "--require-services",
        action="store_true",
        help="fail tests, instead of skipping them, if a program or service is missing",
    )
    parser.addoption(
        "--oracle-examples",
        type=int,
        default=420,
        help="how many random sequences tests/oracle tests",
    )
    parser.addoption(
        "--oracle-seed", type=int, default=0, help="the number of the first of these sequences"
    )
    parser.addoption(
        "--interleavings",
        type=int,
        default=28,
        help="how many random delays of store and broker tests/oracle/test_watchers.py tests",
    )
    parser.addoption(
        "--interleavings-with-redis", type=int, default=4, help="how many of them with a server"
    )
    parser.addoption(
        "--outages",
        default="20",
        help="for how many seconds servers are away, for a lease of 15 s, separated by commas",
    )
    parser.addoption(
        "--lease-seconds", type=float, default=0, help="the lease in tests of outages; 0 is short"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a service or another program; `nox -s quick` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and SERVICES & set(item.fixturenames):
            item.add_marker("services")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each asynchronous test on both event loops; modules may override this.

    anyio's own fixture would silently omit trio if it were not installed.
    """
    backend: str = request.param
    return backend


def program_path(*names: str, install: str, required: bool) -> str:
    """Return the path of the first of these programs that is installed.

    Args:
        names: Alternative names or paths of the program.
        install: How to install it, for the message.
        required: Whether the test fails if it is missing, instead of being skipped.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    message = f"{names[0]} is not installed; {install}"
    if required:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def require_program(pytestconfig: pytest.Config) -> RequireProgram:
    """Return `program_path`, with *required* from the command line."""
    return partial(program_path, required=pytestconfig.getoption("--require-services"))
