"""Set up the development environment and run one of its commands.

python3 dev.py demo [ARGUMENTS]        start the demo server
python3 dev.py test [--require-services] [--quick] [ARGUMENTS OF NOX]
                                       run every check; --quick: the unit tests only
python3 dev.py bench [NAMES]           run the benchmarks
python3 dev.py release VERSION         set the version, and give the change log a section for it
python3 dev.py notes VERSION           print that section
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is required; this is {}.{}.".format(*sys.version_info))

import hashlib
import os
import re
import shutil
import subprocess
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "pyproject.toml"
CHANGELOG = ROOT / "CHANGELOG.md"
NPM_PACKAGE = ROOT / "src/upload_progress/static/package.json"
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
NOX = (str(SCRIPTS / "nox"), "--noxfile", str(ROOT / "noxfile.py"), "--session")
REQUIRE_SERVICES = "--require-services"
# Made for two cores: the sessions of a stage run in two lanes; a session that is alone in its
# stage runs its tests in several processes.
STAGES = (("browser", "centrifugo", "lint", "docs", "types"), ("lowest",), ("tests",))
# pytest's last line, with or without its frame: "== 3 passed, 1 skipped in 0.12s ==".
CLOSING_LINE = re.compile(r"(=+ )?(\d+ \w+.*|no tests ran) in [\d.]+s( \([\d:]+\))?( =+)?$")
# What pytest prints in its short summary for a test that failed.
FAILED_TEST = re.compile(r"(FAILED|ERROR) \S+::")
# Debian packages that the tests need, each with programs one of which shows that it is there.
SAME_NAME = (
    "curl nginx npm pgbouncer prometheus pushpin rabbitmq-server redis-server skopeo valgrind"
)
PROGRAMS = {name: name for name in SAME_NAME.split()} | {
    "chromium fonts-dejavu-core": "chromium chromium-browser google-chrome chrome",
    "default-jre-headless": "java",
    "golang-go": "go",
    "maven": "mvn",
    "postgresql": "postgres",
}
# While policy-rc.d exits with 101, no package starts its server.
APT_INSTALL = """
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy && chmod +x $policy
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" > /dev/null
"""


def main(command: str = "", *arguments: str) -> int:
    """Run a command; return the exit code."""
    if command == "demo":
        install("demo", "--editable", f"{ROOT}[demo]")
        return run(str(SCRIPTS / "upload-progress"), "demo", *arguments)
    if command in ("test", "bench"):
        groups = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["dependency-groups"]
        install("dev", *groups["dev"])
        bench = (*NOX, "benchmarks", "--", *arguments)
        return test(list(arguments)) if command == "test" else run(*bench)
    if command in ("release", "notes") and len(arguments) == 1:
        return release(*arguments) if command == "release" else notes(*arguments)
    asked_for_help = command in ("-h", "--help")
    print(__doc__, file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


def release(version: str) -> int:
    """Set the version, and move what is unreleased in the change log to a section for it."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        sys.exit(f"{version} is no version: use 1.2.3, or 1.2.3rc1 for a release candidate.")
    log = CHANGELOG.read_text(encoding="utf-8")
    if f"## [{version}]" in log:
        sys.exit(f"{version} has a section in {CHANGELOG.name} already: choose a newer version.")
    if not section_of(log, "Unreleased"):
        sys.exit(f"{CHANGELOG.name} has nothing under [Unreleased]: there is nothing to release.")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    head = f"## [Unreleased]\n\n## [{version}] - {today}"
    changed = {CHANGELOG: log.replace("## [Unreleased]", head, 1)}
    # npm writes release candidates in another way: 1.2.3-rc.1.
    npm = re.sub(r"(a|b|rc)(\d+)$", r"-\1.\2", version)
    for path, pattern, number in (
        (PROJECT, r'^(version = ")[^"]+', version),
        (NPM_PACKAGE, r'^(  "version": ")[^"]+', npm),
    ):
        text = path.read_text(encoding="utf-8")
        changed[path] = re.sub(pattern, rf"\g<1>{number}", text, count=1, flags=re.MULTILINE)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    print(
        f"{version}: now run `.venv/bin/uv lock`, commit, and push the tag v{version}.",
        "The release workflow does the rest.",
        sep="\n",
    )
    return 0


def notes(version: str) -> int:
    """Print the section of a version in the change log, without its heading."""
    section = section_of(CHANGELOG.read_text(encoding="utf-8"), version)
    if not section:
        sys.exit(f"{CHANGELOG.name} has no section for {version}: run dev.py release {version}.")
    print(section)
    return 0


def section_of(log: str, version: str) -> str:
    """Return the section of *version* in the change log, without its heading; "" if none."""
    pattern = rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, log, flags=re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def run(*command: str) -> int:
    """Replace this process by a program, so that signals reach it and the exit code is its own."""
    sys.stdout.flush()
    os.execv(command[0], command)


def test(arguments: list[str]) -> int:
    """Run all sessions, or what the arguments of nox select; return 1 if one failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, for_pytest = arguments[:end], arguments[end + 1 :]
    if REQUIRE_SERVICES in options:
        for_pytest.append(REQUIRE_SERVICES)
    for_nox = [each for each in options if each not in (REQUIRE_SERVICES, "--quick")]
    if for_nox:
        return run(*NOX[:-1], *for_nox, "--", *for_pytest)
    if "--quick" in options:
        return run_stages((("quick",),), for_pytest)
    if install_programs() and REQUIRE_SERVICES in options:
        return 1
    return run_stages(STAGES, for_pytest)


def run_stages(stages: tuple[tuple[str, ...], ...], for_pytest: list[str]) -> int:
    """Run the sessions of each stage; print their results, and the last lines of pytest."""
    results = list[tuple[bool, str]]()
    with ThreadPoolExecutor(2) as lanes:
        for stage in stages:
            results += lanes.map(partial(run_session, for_pytest=for_pytest), stage)
    print("\n==> results", *(text for _, text in results), sep="\n", flush=True)
    return int(not all(ok for ok, _ in results))


def run_session(session: str, *, for_pytest: list[str]) -> tuple[bool, str]:
    """Run a session and print its output; return whether it passed, and its result in words.

    The result names the tests that failed: their output may be far above, or cut off.
    """
    started = time.monotonic()
    with subprocess.Popen(
        [*NOX, session, "--", *for_pytest],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        result = [""]
        for line in map(str.rstrip, process.stdout or ()):
            print(f"{session:>7} | {line}", flush=True)
            if CLOSING_LINE.match(line) or FAILED_TEST.match(line):
                result.append(line)
    word = "FAILED" if process.returncode else "ok"
    result[0] = f"{session:<10}{word:<8}{time.monotonic() - started:5.0f} s"
    return process.returncode == 0, "\n".join(result)


def install(name: str, *requirements: str) -> None:
    """Install *requirements* into .venv, unless that was done since pyproject.toml changed."""
    # An environment contains its own path, and packages for one version of Python.
    place, stamp = f"{ROOT} {sys.version}", VENV / f"{name}.stamp"
    wanted = f"{place} {hashlib.sha256(PROJECT.read_bytes()).hexdigest()}"
    stamps = {path: path.read_text(encoding="utf-8") for path in VENV.glob("*.stamp")}
    if stamps.get(stamp) == wanted:
        return
    if not any(text.startswith(place) for text in stamps.values()):
        make_environment()
    print(f"==> installing {' '.join(requirements)}", flush=True)
    pip = (str(SCRIPTS / "python"), "-m", "pip", "install", "--upgrade", "--quiet")
    if subprocess.call([*pip, "--disable-pip-version-check", *requirements]):
        sys.exit("pip failed; its error is above.")
    stamp.write_text(wanted, encoding="utf-8")


def make_environment() -> None:
    """Create .venv. Debian has what that needs in a package of its own."""
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    package = f"python3.{sys.version_info.minor}-venv"
    if subprocess.call(command) and not (apt_install(package) and subprocess.call(command) == 0):
        sys.exit(f"{VENV} could not be created. On Debian and Ubuntu: apt-get install {package}")


def install_programs() -> list[str]:
    """Install the missing programs that tests need, if possible; return what is still missing."""
    missing = missing_programs()
    if missing and apt_install(*" ".join(missing).split()):
        missing = missing_programs()
    if missing:
        print(f"missing: apt-get install --no-install-recommends {' '.join(missing)}", flush=True)
    return missing


def missing_programs() -> list[str]:
    """Return the keys of `PROGRAMS` of which no program is found."""
    # Debian keeps the programs of some servers out of the PATH of users.
    folders = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    found = partial(shutil.which, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", *folders]))
    return [key for key, names in PROGRAMS.items() if not any(map(found, names.split()))]


def apt_install(*packages: str) -> bool:
    """Install Debian packages where that is safe; return whether it worked.

    It is safe for root where no init system starts servers at the next boot, and in continuous
    integration, there also through sudo.
    """
    in_ci, is_root = bool(os.environ.get("CI")), hasattr(os, "geteuid") and os.geteuid() == 0
    allowed = in_ci or (is_root and not Path("/run/systemd/system").exists())
    if not allowed or not shutil.which("apt-get"):
        return False
    print(f"==> installing {' '.join(packages)} with apt-get", flush=True)
    sudo = [] if is_root else ["sudo", "--non-interactive"]
    return subprocess.call([*sudo, "sh", "-c", APT_INSTALL, "sh", *packages]) == 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
