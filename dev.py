"""One command for each thing a contributor does, from a clone and a bare Python.

    python3 dev.py demo [ARGUMENTS]        start the demo server
    python3 dev.py test [--require-services] [ARGUMENTS OF NOX]
                                           run every check
    python3 dev.py bench [NAMES]           run the benchmarks

Only the standard library is needed. What is installed goes to .venv beside this file, and is used
again until pyproject.toml changes.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "upload-progress needs Python 3.11 or newer; this is {}.{}, from {}.\n"
        "Run this file with a newer one, e.g.: python3.12 dev.py demo".format(
            sys.version_info[0], sys.version_info[1], sys.executable
        )
    )

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
# More than an import: without the wheel of pip that it unpacks, ensurepip is of no use.
CAN_MAKE_ENVIRONMENTS = "import ensurepip, venv; ensurepip.version()"
# What an environment is bound to: its programs name its place, its packages fit one Python.
HERE = f"{ROOT}\n{sys.version}"
# Tests mostly wait: two lanes, side by side, take little longer than the longer one.
LANES = (("tests",), ("lint", "types", "docs", "lowest", "browser"))
REQUIRE_SERVICES = "--require-services"
CHROMIUM = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
# Of a server's programs, Debian puts only those for its administrator on everybody's path.
POSTGRES = (*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), "postgres")
PGBOUNCER = ("pgbouncer", "/usr/sbin/pgbouncer")
RABBITMQ = ("rabbitmq-server", "/usr/sbin/rabbitmq-server")
# pytest's last line, with or without its frame: "== 3 passed, 1 skipped in 0.12s ==".
CLOSING_LINE = re.compile(r"(=+ )?(\d+ \w+.*|no tests ran) in [\d.]+s( \([\d:]+\))?( =+)?$")
COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Program(NamedTuple):
    """A program that tests need."""

    names: tuple[str, ...]
    packages: tuple[str, ...]
    purpose: str
    starts_a_daemon: bool = False


PROGRAMS = (
    Program(CHROMIUM, ("chromium", "fonts-dejavu-core"), "the browser tests"),
    Program(("curl",), ("curl",), "the tests with a real client"),
    Program(("skopeo",), ("skopeo",), "the tests with a real client"),
    Program(("npm",), ("nodejs", "npm"), "the tests with tus-js-client"),
    Program(("valgrind",), ("valgrind",), "the tests that count instructions"),
    Program(("nginx",), ("nginx",), "the tests behind a real proxy", starts_a_daemon=True),
    Program(("redis-server",), ("redis-server",), "the tests with Redis", starts_a_daemon=True),
    Program(POSTGRES, ("postgresql",), "the tests with PostgreSQL", starts_a_daemon=True),
    Program(PGBOUNCER, ("pgbouncer",), "the tests with PgBouncer", starts_a_daemon=True),
    Program(RABBITMQ, ("rabbitmq-server",), "the tests with RabbitMQ", starts_a_daemon=True),
    # Kafka itself comes as jars: tests/_support/server_factories.py fetches them.
    Program(("java",), ("default-jre-headless",), "the tests with Kafka"),
    Program(("mvn",), ("maven",), "the tests with Kafka"),
)


def main() -> NoReturn:
    """Do what the command line says."""
    commands = {"demo": demo, "test": test, "bench": bench}
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in commands:
        asked_for_help = arguments[:1] in (["-h"], ["--help"])
        print(__doc__, file=sys.stdout if asked_for_help else sys.stderr)
        sys.exit(0 if asked_for_help else 2)
    commands[arguments[0]](arguments[1:])
    sys.exit(0)


def demo(arguments: list[str]) -> None:
    """Become the demo server."""
    prepare("demo", ["--editable", f"{ROOT}[demo]"])
    become([str(script("upload-progress")), "demo", *arguments])


def bench(arguments: list[str]) -> None:
    """Become the benchmarks."""
    prepare("dev", development_requirements())
    become([*nox(), "--session", "benchmarks", "--", *arguments])


def test(arguments: list[str]) -> None:
    """Run all sessions, or those that nox is told to run; exit with 1 if one failed."""
    required = REQUIRE_SERVICES in arguments
    rest = [argument for argument in arguments if argument != REQUIRE_SERVICES]
    prepare("dev", development_requirements())
    to_nox, to_pytest = split(rest, at="--")
    if required:
        to_pytest = [*to_pytest, REQUIRE_SERVICES]
    if to_nox:
        become([*nox(), *to_nox, "--", *to_pytest])
    missing = provide_programs()
    if missing and required:
        stop("These programs are required, and missing:", *missing)
    sys.exit(run_sessions(to_pytest))


def split(arguments: list[str], *, at: str) -> tuple[list[str], list[str]]:
    """Split *arguments* at the first *at*, which goes to neither side."""
    place = arguments.index(at) if at in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


# --- the sessions ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What came of a session."""

    session: str
    word: str
    seconds: float
    closing_lines: list[str]


def nox() -> list[str]:
    """Return the command that starts nox on this project."""
    return [str(script("nox")), "--noxfile", str(ROOT / "noxfile.py")]


def run_sessions(to_pytest: list[str]) -> int:
    """Run the sessions of each lane, one after the other, and sum them up.

    Returns:
        The exit code: 1 if one failed.
    """
    printer, started = Printer(), time.monotonic()
    with ThreadPoolExecutor(len(LANES)) as lanes:
        running = [
            lanes.submit(run_lane, lane, to_pytest, printer, lives=number == 0)
            for number, lane in enumerate(LANES)
        ]
        outcomes = [outcome for lane in running for outcome in lane.result()]
    return sum_up(outcomes, time.monotonic() - started)


class Printer:
    """Keeps the words of two lanes apart: one is printed as it comes, the other by session."""

    def __init__(self) -> None:
        """Let one lane speak at a time."""
        self.lock = threading.Lock()

    def print(self, *lines: str) -> None:
        """Print *lines* without a word of another lane between them."""
        with self.lock:
            for line in lines:
                print(line, end="", flush=True)


def run_lane(
    sessions: tuple[str, ...], to_pytest: list[str], printer: Printer, *, lives: bool
) -> list[Outcome]:
    """Run *sessions*; print what they say as it comes if the lane *lives*, else at each end."""
    outcomes = []
    for session in sessions:
        if session == "browser" and not find(CHROMIUM):
            printer.print("\n==> browser\nskipped: no Chromium or Chrome was found\n")
            outcomes.append(Outcome(session, "skipped", 0.0, []))
        else:
            printer.print(f"\n==> {session} begins\n")
            outcomes.append(run_session(session, to_pytest, printer, lives=lives))
    return outcomes


def run_session(session: str, to_pytest: list[str], printer: Printer, *, lives: bool) -> Outcome:
    """Run one session; pass its output on, and keep pytest's closing lines."""
    started = time.monotonic()
    colour = ["--force-color"] if sys.stdout.isatty() else []
    closing_lines, held = [], [f"\n==> {session}\n"]
    with subprocess.Popen(
        [*nox(), *colour, "--session", session, "--", *to_pytest],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout or ():
            if lives:
                printer.print(line)
            else:
                held.append(line)
            plain = COLOUR.sub("", line).strip()
            if CLOSING_LINE.match(plain):
                closing_lines.append(plain)
    if not lives:
        printer.print(*held)
    word = "FAILED" if process.returncode else "ok"
    return Outcome(session, word, time.monotonic() - started, closing_lines)


def sum_up(outcomes: list[Outcome], seconds: float) -> int:
    """Print a line for each session, then the closing lines of pytest as they were."""
    say("summary")
    for outcome in outcomes:
        print(f"{outcome.session:<10}{outcome.word:<9}{outcome.seconds:6.0f} s")
    print(f"{'in all':<19}{seconds:6.0f} s")
    for outcome in outcomes:
        for line in outcome.closing_lines:
            print(f"{outcome.session}:\n{line}")
    sys.stdout.flush()
    return int(any(outcome.word == "FAILED" for outcome in outcomes))


# --- the environment ------------------------------------------------------------------------


def development_requirements() -> list[str]:
    """Return the dependency group "dev"; the pip that comes with Python cannot read groups."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return [str(line) for line in tomllib.load(file)["dependency-groups"]["dev"]]


def prepare(purpose: str, requirements: list[str]) -> None:
    """Make .venv hold *requirements*, unless a stamp says that it does."""
    place, stamp = VENV / "stamp-place", VENV / f"stamp-{purpose}"
    if read(place) != HERE or not runs(script("python"), "import pip"):
        make_environment()
        place.write_text(HERE, encoding="utf-8")
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if read(stamp) == wanted:
        return
    say(f"installing {' '.join(requirements)}")
    started = time.monotonic()
    pip = [str(script("python")), "-m", "pip", "install", "--upgrade"]
    if subprocess.call([*pip, "--quiet", "--disable-pip-version-check", *requirements]):
        stop("pip could not install that; its own words stand above.")
    stamp.write_text(wanted, encoding="utf-8")
    print(f"ready after {time.monotonic() - started:.0f} s", flush=True)


def read(path: Path) -> str:
    """Return the text of a file, or nothing where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def make_environment() -> None:
    """Create .venv with the interpreter that runs this."""
    if not runs(sys.executable, CAN_MAKE_ENVIRONMENTS):
        provide_venv()
    say(f"making {VENV}")
    if subprocess.call([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        stop(f"{sys.executable} could not make an environment; its own words stand above.")


def provide_venv() -> None:
    """Install the part of Python that makes environments, which Debian packages separately."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if may_use_apt():
        apt_install(package)
    if not runs(sys.executable, CAN_MAKE_ENVIRONMENTS):
        stop(
            f"{sys.executable} cannot make virtual environments: its modules ensurepip and venv",
            "are not installed. On Debian and Ubuntu they come with:",
            f"    {apt_line(package)}",
            "Elsewhere, use a Python from python.org, or your system's full Python package.",
        )


def script(name: str) -> Path:
    """Return where the environment has the program *name*."""
    return SCRIPTS / (f"{name}.exe" if os.name == "nt" else name)


def runs(python: str | Path, code: str) -> bool:
    """Return whether *python* exists and runs *code* without an error."""
    try:
        finished = subprocess.run([python, "-c", code], capture_output=True, check=False)
    except OSError:
        return False
    return finished.returncode == 0


# --- programs of the system -----------------------------------------------------------------


def provide_programs() -> list[str]:
    """Install the programs that tests need and that are not there, where that is possible.

    Returns:
        A line about each that is still missing.
    """
    wanted = [program for program in PROGRAMS if not find(program.names)]
    packages = [name for program in wanted if installable(program) for name in program.packages]
    if packages:
        apt_install(*packages)
    lines = [describe(program) for program in wanted if not find(program.names)]
    for line in lines:
        print(line, flush=True)
    return lines


def find(names: tuple[str, ...]) -> str | None:
    """Return the path of the first of these programs that is there."""
    return next(filter(None, map(shutil.which, names)), None)


def installable(program: Program) -> bool:
    """Return whether *program* can be installed without asking anybody.

    Not what would start serving at once, on a machine with an init system to start it.
    """
    return may_use_apt() and not (program.starts_a_daemon and Path("/run/systemd/system").exists())


def describe(program: Program) -> str:
    """Say what is missing, for what, and how to mend it."""
    return f"missing: {program.names[0]}, for {program.purpose}; {apt_line(*program.packages)}"


def may_use_apt() -> bool:
    """Return whether this is Debian or one of its children, and we are its administrator."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return is_root and Path("/etc/debian_version").exists() and bool(shutil.which("apt-get"))


def apt_install(*packages: str) -> None:
    """Install Debian *packages*; whether that worked is for the caller to see."""
    say(f"installing {' '.join(packages)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "--quiet"], install):
        # Its progress is of no interest; its errors come on the other stream.
        subprocess.call(command, env=environment, stdout=subprocess.DEVNULL)


def apt_line(*packages: str) -> str:
    """Return the line that installs *packages*, for a person to type."""
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}"


# --- words ----------------------------------------------------------------------------------


def say(title: str) -> None:
    """Print a heading."""
    print(f"\n==> {title}", flush=True)


def stop(*lines: str) -> NoReturn:
    """End with a message for a person."""
    sys.exit("\n".join(lines))


def become(command: list[str]) -> NoReturn:
    """Replace this process by *command*, so that signals and exit codes are its own."""
    sys.stdout.flush()
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
