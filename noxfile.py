"""The sessions that check a change; CONTRIBUTING.md says what each of them shows.

Sessions run under the Python that runs nox, with the versions in ``uv.lock``. Arguments after
``--`` are passed to pytest.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import nox

# An option of tests/conftest.py that selects no tests: coverage is still required.
REQUIRE_SERVICES = "--require-services"
# Each process starts its own servers. The tests wait for them and for timers: of two cores, three
# processes would use two thirds.
PROCESSES = 4
# Patterns of files and folders in tests/: what tests whole programs, ...
PROGRAMS = ("browser", "clients", "cluster", "demo", "test_doc*.py", "test_examples.py")
# ... what starts push servers, or other programs and servers, ...
PUSH_SERVERS = ("edge/test_centrifugo.py", "edge/test_load.py", "edge/test_pushpin.py")
SLOW = (
    *("cli/test_commands.py", "*/test_demo.py", "*/test_doctor.py", "*/test_frameworks.py"),
    *PUSH_SERVERS,
    *(
        "*/test_servers.py",
        "*/test_transparency.py",
        "*/test_workers.py",
        "openapi/test_schemathesis.py",
    ),
)
# ... and what does not depend on the versions of dependencies.
ABOUT_THE_PROJECT = ("test_budgets.py", "helpers", "test_project.py")
# Drivers of these extras have no packages for Pythons without the global interpreter lock, ...
NOT_FREE_THREADED = ("kafka", "postgres")
# ... and these tests need them, or one of the dependency group "clients".
NEED_OTHERS = (
    *("asgi/test_behind_nginx.py", "backends", "cli/test_migrate.py", "cli/test_resume.py"),
    *("openapi", "starlette/test_application.py", "starlette/test_mistakes.py"),
)
UI_FRAMEWORKS = "tests/browser/test_ui_frameworks.py"
PUSH_SERVER = "tests/browser/test_push_server.py"
WATCHERS = "tests/oracle/test_watchers.py"
OLDEST_PYTHON = "3.11"

# Else each process of the tests, and each server and command that they start, compiles all modules
# again: images of containers set this.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
# A missing Python is an error: uv must not download one.
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "docs", "lowest", "browser", "tests"]


def sync(session: nox.Session, *options: str) -> None:
    """Install what ``uv.lock`` has for these options of ``uv sync``, and remove the rest."""
    environment = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    command = ("uv", "sync", "--frozen", "--quiet", "--no-default-groups", *options)
    session.run_install(*command, env=environment)


def groups(*names: str) -> list[str]:
    """Return the options that select these dependency groups and every extra."""
    return ["--all-extras", *(f"--group={name}" for name in names)]


def dependency_group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group in ``pyproject.toml``."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), name)


def pytest(session: nox.Session, *arguments: str, runner: tuple[str, ...] = ("python",)) -> None:
    """Run pytest: in several processes, unless the command line selects tests."""
    options = ["--durations=20"]
    if selects_no_tests(session) and not has_shared_services():
        options += [f"--numprocesses={PROCESSES}", "--dist=loadfile"]
    session.run(*runner, "-m", "pytest", *options, *arguments, *session.posargs)


def ignored(*names: str) -> list[str]:
    """Return the options that leave out these files and folders in tests/."""
    return [f"--ignore-glob=tests/{name}" for name in names]


def selects_no_tests(session: nox.Session) -> bool:
    """Return whether all tests of the session run."""
    return all(argument == REQUIRE_SERVICES for argument in session.posargs)


def has_shared_services() -> bool:
    """Return whether the environment names a service, which processes would have to share."""
    return any(name.startswith("UPLOAD_PROGRESS_TEST_") for name in os.environ)


@nox.session
def lint(session: nox.Session) -> None:
    """Check ruff's rules and formatting, the direction of imports, and the lock file."""
    sync(session, "--only-group=lint")
    session.run("uv", "lock", "--check", "--quiet")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo", "--no-cache", env={"PYTHONPATH": "src"})


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of all code with mypy, and that the public API is fully typed."""
    sync(session, *groups("types", "test", "clients", "browser", "docs", "dev"))
    session.run("mypy")
    session.run("pyright", "--verifytypes", "upload_progress", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link or reference is an error."""
    sync(session, "--only-group=docs")
    session.run("zensical", "build", "--strict", "--clean")


@nox.session
def quick(session: nox.Session) -> None:
    """Run the unit tests: on asyncio only, without services, other programs and coverage."""
    sync(session, *groups("test", "clients"))
    fast = ("-m", "not services", "-k", "not trio")
    pytest(session, *fast, *ignored(*PROGRAMS, *SLOW, *ABOUT_THE_PROJECT))


@nox.session
def free_threaded(session: nox.Session) -> None:
    """Run the unit tests of ``quick`` that need no driver without packages for Python 3.14t."""
    optional = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    extras = set(optional) - {"all", *NOT_FREE_THREADED}
    sync(session, *(f"--extra={extra}" for extra in sorted(extras)), "--group=test")
    fast = ("-m", "not services", "-k", "not trio")
    left_out = ignored(*PROGRAMS, *SLOW, *ABOUT_THE_PROJECT, *NEED_OTHERS)
    pytest(session, *fast, *left_out)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests but the browser's against the built wheel, and require full coverage."""
    # Not editable: the wheel may lack files that the source tree has.
    wheel = ("--no-editable", "--reinstall-package=upload-progress")
    sync(session, *groups("test", "clients"), *wheel)
    where = "import upload_progress as package; assert 'site-packages' in package.__file__"
    session.run("python", "-c", where)
    session.run("coverage", "erase")
    pytest(session, *ignored("browser"), runner=("coverage", "run"))
    session.run("coverage", "combine", "--quiet")
    all_tests = selects_no_tests(session)
    session.run("coverage", "report", *([] if all_tests else ["--fail-under=0"]))


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the library's tests with the oldest Python and the oldest dependencies allowed.

    The old versions of drivers have no packages for newer Pythons.
    """
    version = str(session.run("python", "-c", "import sys; print(sys.version)", silent=True))
    if not version.startswith(OLDEST_PYTHON):
        session.skip(f"needs Python {OLDEST_PYTHON}")
    pins = Path(session.create_tmp()) / "lowest.txt"
    lowest_versions = ("--all-extras", "--resolution=lowest-direct", "--python", OLDEST_PYTHON)
    # Indirect dependencies get versions that the tools below accept, too.
    compiled = ("pyproject.toml", *lowest_versions, "--no-deps", "--no-header", "--quiet")
    session.run_install("uv", "pip", "compile", *compiled, "--output-file", str(pins))
    tools = [line for name in ("test", "clients") for line in dependency_group(name)]
    session.install("--editable", ".[all]", *tools, "--constraint", str(pins))
    # The oracle and push servers test no dependency. On trio, the session "tests" runs everything.
    left_out = ignored(*PROGRAMS, *PUSH_SERVERS, *ABOUT_THE_PROJECT, "oracle")
    pytest(session, *left_out, *(["-k", "not trio"] if selects_no_tests(session) else []))


@nox.session
def browser(session: nox.Session) -> None:
    """Run the tests of the web page in Chromium.

    Playwright's synchronous API cannot share a process with a running event loop, which the other
    tests have.
    """
    sync(session, *groups("browser"))
    others, last = ["--ignore", UI_FRAMEWORKS], []
    if selects_no_tests(session):
        # It needs Centrifugo, which another session builds meanwhile.
        others, last = [*others, "--ignore", PUSH_SERVER], [PUSH_SERVER]
    session.run("python", "-m", "pytest", "tests/browser", *others, *session.posargs)
    if last:
        # Outside of pytest, which limits the time of a test.
        build_centrifugo(session)
    for path in last:
        session.run("python", "-m", "pytest", path, *session.posargs)


@nox.session(venv_backend="none")
def centrifugo(session: nox.Session) -> None:
    """Build Centrifugo, which tests start, into the user's cache: once, in four minutes."""
    build_centrifugo(session)


def build_centrifugo(session: nox.Session) -> None:
    """Build Centrifugo, or wait until another session has built it."""
    command = (sys.executable, "-m", "tests._support.go_programs")
    # Without Go, its tests are skipped, or fail if they are required.
    session.run(*command, external=True, success_codes=[0, 1])


@nox.session
def ui_frameworks(session: nox.Session) -> None:
    """Test the page in the newest Gradio, NiceGUI and Streamlit, which need 900 MB."""
    sync(session, *groups("browser", "test"))
    session.install("gradio>=6", "nicegui>=3", "streamlit>=1.57")
    session.run("python", "-m", "pytest", UI_FRAMEWORKS, *session.posargs)


@nox.session
def minify(session: nox.Session) -> None:
    """Write the minified scripts that are served, after a change of the Web Component."""
    sync(session, *groups("browser"))
    session.run("python", "-m", "tests.browser.minify")


@nox.session
def nightly(session: nox.Session) -> None:
    """Test 20,000 random sequences of requests against the model; the numbers differ each day.

    And that watchers see the end of each upload, with 10,000 random interleavings of store and
    broker in memory, and 600 with Redis.
    """
    sync(session, *groups("test", "clients"))
    seed = 1_000_000 * datetime.now(UTC).toordinal()
    options = ("--oracle-examples=20000", f"--oracle-seed={seed}", "-k", "not redis")
    runs = ("--interleavings=10000", "--interleavings-with-redis=600", f"--oracle-seed={seed}")
    parallel = ("python", "-m", "pytest", "--numprocesses=2", "--dist=load")
    others = ("--ignore", WATCHERS)
    session.run(*parallel, "tests/oracle", *others, *options, *session.posargs)
    session.run(*parallel, WATCHERS, *runs, REQUIRE_SERVICES, *session.posargs)


@nox.session
def outages(session: nox.Session) -> None:
    """Let servers be away for 5 to 40 s while three workers receive uploads, and replace workers.

    It takes 45 minutes.
    """
    sync(session, *groups("test", "clients"))
    options = ("--outages=5,11,20,40", "--lease-seconds=15", REQUIRE_SERVICES)
    session.run("python", "-m", "pytest", "tests/cluster/test_outages.py", *options)
    deploys = {"DEPLOYS": "10", "DEPLOY_UPLOADS": "200"}
    command = ("python", "-m", "pytest", "tests/cluster/test_deploys.py", REQUIRE_SERVICES)
    session.run(*command, env=deploys)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run all benchmarks, or those that are named; ``--markdown`` prints a table."""
    sync(session, *groups("test", "browser"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in the newest dependencies that users install.

    Strict: a dependency that the database does not know is a failure.
    """
    sync(session, "--only-group=audit")
    pins = Path(session.create_tmp()) / "installed.txt"
    options = ("--all-extras", "--no-header", "--no-annotate", "--quiet")
    session.run("uv", "pip", "compile", "pyproject.toml", "--output-file", str(pins), *options)
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "--requirement", str(pins))
