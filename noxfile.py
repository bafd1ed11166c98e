"""The sessions that prove a change; CONTRIBUTING.md says what each of them shows.

They run under the Python that runs nox. Arguments behind ``--`` go to pytest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
BUILD = ROOT / "build"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# An option of tests/conftest.py: it narrows nothing, so coverage is still judged.
REQUIRE_SERVICES = "--require-services"

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
# An interpreter that is not there is an error to read, not a download to wait for.
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "docs", "tests", "lowest", "browser"]


def group(name: str) -> list[str]:
    """Return the requirements of the dependency group *name*."""
    return list(nox.project.dependency_groups(PROJECT, name))


def install_tree(session: nox.Session, *groups: str) -> None:
    """Install the source tree, editable and with every extra, and the dependency *groups*."""
    requirements = [line for name in groups for line in group(name)]
    session.install("--editable", ".[all]", *requirements)


def install_wheel(session: nox.Session, *groups: str) -> None:
    """Build the wheel, and install that with every extra: it may lack what the tree has."""
    out = BUILD / "wheel" / session.name
    shutil.rmtree(out, ignore_errors=True)
    session.run("uv", "build", "--wheel", "--quiet", "--out-dir", str(out))
    [built] = out.glob("*.whl")
    requirements = [line for name in groups for line in group(name)]
    # A reused environment holds an older build of the same version.
    fresh = ("--reinstall-package", "upload-progress")
    session.install(*fresh, f"upload-progress[all] @ {built.as_uri()}", *requirements)
    where = "import upload_progress as package; assert 'site-packages' in package.__file__"
    session.run("python", "-c", where)


@nox.session
def lint(session: nox.Session) -> None:
    """Check ruff's rules and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of all code, and that the public API leaves none out."""
    install_tree(session, "types", "test", "clients", "browser", "docs", "dev")
    session.run("mypy")
    session.run("pyright", "--verifytypes", "upload_progress", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; each warning is an error."""
    session.install(*group("docs"))
    # Material prints a banner about mkdocs 2 unless told that it has been read.
    session.run("mkdocs", "build", "--strict", "--clean", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests against the built wheel; demand full coverage of it and of them."""
    install_wheel(session, "test", "clients")
    session.run("coverage", "erase")
    session.run(
        *("coverage", "run", "-m", "pytest", "--ignore=tests/browser"),
        *session.posargs,
    )
    session.run("coverage", "combine", "--quiet")
    whole = all(argument == REQUIRE_SERVICES for argument in session.posargs)
    session.run("coverage", "report", *([] if whole else ["--fail-under=0"]))


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the library's tests with the oldest dependencies that it allows.

    Not those that look at the project, its documents and its demo: they say nothing about them.
    """
    pins = Path(session.create_tmp()) / "lowest.txt"
    compiled = ("--extra", "starlette", "--resolution", "lowest-direct", "--no-header", "--quiet")
    python = session.run("python", "-c", "import sys; print(sys.executable)", silent=True)
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--output-file", str(pins)),
        *("--python", str(python).strip(), *compiled),
    )
    groups = (*group("test"), *group("clients"))
    session.install("--editable", ".[all]", *groups, "--constraint", str(pins))
    session.run(
        *("python", "-m", "pytest", "tests/asgi", "tests/backends", "tests/starlette"),
        *("tests/protocols", *map(str, sorted(Path("tests").glob("test_tracker*.py")))),
        *("tests/model/test_codec.py", "tests/fanout/test_hub.py"),
        *session.posargs,
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Drive the web page with a real Chromium.

    Playwright's synchronous API cannot run in a process that has an event loop running, which the
    other tests do: hence a session of its own.
    """
    install_tree(session, "browser")
    session.run("python", "-m", "pytest", "tests/browser", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run each benchmark, or those that are named; ``--markdown`` prints a table."""
    install_tree(session, "test", "browser")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in what users install.

    Strict: a dependency that the database does not answer for is a failure, not a pass.
    """
    session.install(*group("audit"))
    pins = Path(session.create_tmp()) / "installed.txt"
    export = ("--all-extras", "--no-header", "--no-annotate", "--quiet")
    session.run("uv", "pip", "compile", "pyproject.toml", "--output-file", str(pins), *export)
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "--requirement", str(pins))
