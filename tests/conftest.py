"""What all tests share: both event loops, steady random data, and the rule for missing programs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import settings

# The same examples on every run, as nothing here is retried; `--hypothesis-profile=explore` seeks
# new ones. Neither measures time: a busy machine is no finding.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("steady")

# Of a job in the background, Ctrl-C is ignored, and so it would be of the servers started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Servers are started by who asks for one; to load this costs nothing.
pytest_plugins = ["tests.matrix", "tests.services"]

RequireProgram = Callable[..., str]
# Fixtures that start or need a program that is not a Python package.
SERVICES = {"daemons", "require_program"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that turns each skip for want of a program into a failure."""
    parser.addoption(
        "--require-services",
        action="store_true",
        help="fail, instead of skipping, where a program or service that a test needs is missing",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a service or another program; `nox -s quick` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and SERVICES & set(item.fixturenames):
            item.add_marker("services")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each asynchronous test on both event loops; a module for one of them overrides this.

    anyio's own fixture takes the loops that are installed: without trio it would say nothing.
    """
    backend: str = request.param
    return backend


def program_path(*names: str, install: str, required: bool) -> str:
    """Return the path of the first program of these *names* that is there.

    Args:
        names: What the program may be called, or paths.
        install: How to get it, for the person who reads why a test did not run.
        required: Whether its lack is a failure, not a reason to skip.
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
    """Return `program_path`, told what the command line says about missing programs."""
    return partial(program_path, required=pytestconfig.getoption("--require-services"))
