"""``doctor``: the problem it finds exists, and the configuration it prints fixes it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests._support.asgi_servers import run_app
from tests._support.demo_process import DEADLINE_SECONDS
from tests.asgi.test_behind_nginx import LOCATIONS, nginx, run_behind_nginx
from tests.servers.faulty_apps import create_faulty_apps, removes_upgrade
from upload_progress.cli import main
from upload_progress.cli.doctor import checks, diagnose, diagnose_app
from upload_progress.cli.doctor.application import captured_warnings
from upload_progress.cli.doctor.causes import Cause, fix
from upload_progress.cli.doctor.report import Report
from upload_progress.cli.options import ConnectionOptions
from upload_progress.exceptions import InvalidValue, NotAllowed, UnexpectedResponse

__all__ = ["nginx"]

BUFFERING = LOCATIONS.replace("proxy_request_buffering off", "proxy_request_buffering on")


def test_buffering_nginx_is_found_and_fixed_by_the_printed_line(
    nginx: str,  # the fixture, by its name
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with run_behind_nginx(nginx, tmp_path, BUFFERING) as url:
        code = diagnose_in_thread(f"{url}/files/", timeout_seconds=FAULT_SECONDS)
    found = capsys.readouterr().out
    hint = re.search(r"^  nginx +(.*)$", found, re.MULTILINE)
    assert hint
    with run_behind_nginx(nginx, tmp_path, _fixed(hint[1])) as url:
        fixed_code = diagnose_in_thread(f"{url}/files/")
    fixed = capsys.readouterr().out

    assert (code, fixed_code) == (1, 0)
    assert re.search(r"^proxy +nginx$", found, re.MULTILINE)
    assert re.search(r"^upload +BUFFERED: 524\.3 kB were sent", found, re.MULTILINE)
    assert re.search(r"^event stream +passes", found, re.MULTILINE)
    assert re.search(r"^WebSocket +passes", found, re.MULTILINE)
    assert "Caddy" not in found
    assert re.search(r"^upload +passes", fixed, re.MULTILINE)
    assert re.search(r"^Incremental +not needed", fixed, re.MULTILINE)


def _fixed(lines: str) -> str:
    """Return the configuration with the printed lines in place of the ones they replace."""
    name = lines.partition(" ")[0]
    kept = [line for line in BUFFERING.splitlines() if name not in line]
    first = kept.index(next(line for line in kept if "proxy_http_version" in line))
    kept[first] = lines
    return "\n".join(kept)


FAULT_SECONDS = 1.5
"""Deadline of a probe that meets a fault; a check that passes ends as soon as it does."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_app(create_faulty_apps()) as url:
        yield url


@pytest.fixture(scope="module")
def without_websockets() -> Iterator[str]:
    """Return the URL of a server without a library for WebSockets."""
    with run_app(create_faulty_apps(), ws="none") as url:
        yield url


def diagnose_in_thread(
    url: str, form: str | None = None, timeout_seconds: float = checks.TIMEOUT_SECONDS
) -> int:
    """Run in a thread of its own: a task that is cancelled in this one would lose its tracer."""
    run = partial(diagnose, form=form, timeout_seconds=timeout_seconds)
    *prefix, _files, _name = url.split("/")[3:]
    connection = ConnectionOptions(mount="/".join(["", *prefix, "uploads"]), retries=0)
    with start_blocking_portal() as portal:
        return portal.start_task_soon(run, url, connection).result(timeout=2 * DEADLINE_SECONDS)


def test_server_without_faults(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose_in_thread(f"{url}/good/files/") == 0

    subjects = [line[:13].strip() for line in capsys.readouterr().out.splitlines()]
    assert subjects == [
        *("clock", "proxy", "workers", "latency", "event stream", "WebSocket", "upload"),
    ]


@pytest.mark.parametrize(
    ("name", "cause", "found"),
    [
        ("ahead", Cause.CLOCK, r"clock +DIFFERENT: the server is (59|60)\.\d s ahead"),
        ("workers", Cause.WORKERS, r"workers +SEPARATE: 8 of 16 requests"),
        ("compressing", Cause.COMPRESSION, r"event stream COMPRESSED"),
        ("late", Cause.READS_LATE, r"upload +READ LATE: 524\.3 kB were sent"),
        ("refusing", Cause.REFUSED, r"upload +REFUSED: 415 only wheels$"),
        ("forms", Cause.REFUSED, r"upload +REFUSED: 404 .*use --form FIELD"),
        ("small", Cause.REFUSED, r"upload +REFUSED by nginx: 413 .*; set client_max_body_size"),
        ("untracked", Cause.MIDDLEWARE_MISSING, r"upload +NOT TRACKED: .*answered 200"),
        ("anonymous", Cause.NO_IDENTITY, r"upload +NOT TRACKED"),
        ("full", Cause.LIMIT, r"upload +NOT TRACKED"),
        ("split", Cause.OTHER_TRACKER, r"upload +LOST"),
        ("holding", Cause.REQUEST_BUFFERING, r"upload +BUFFERED: .*; no proxy obeys Incremental"),
    ],
)
def test_cause_is_named(
    url: str, name: str, cause: Cause, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cause alone, and no proxy that is not there."""
    assert diagnose_in_thread(f"{url}/{name}/files/", timeout_seconds=FAULT_SECONDS) == 1

    output = capsys.readouterr().out
    assert re.search(f"^{found}", output, re.MULTILINE)
    assert [each for each in Cause if each.value in output] == [cause]
    proxies = {"nginx"} if name == "small" else ()
    assert output.endswith("\n".join(["Fix:", *fix(cause, proxies), ""]))


def test_refusal_without_middleware_has_both_causes(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{url}/refusing-untracked/files/"
    assert diagnose_in_thread(url, timeout_seconds=FAULT_SECONDS) == 1

    output = capsys.readouterr().out
    assert Cause.MIDDLEWARE_MISSING.value in output
    assert Cause.REFUSED.value in output


def test_blocked_streams_and_websockets_are_found(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose_in_thread(f"{url}/hiding/files/", timeout_seconds=FAULT_SECONDS) == 1

    output = capsys.readouterr().out
    assert re.search(r"^event stream BUFFERED", output, re.MULTILINE)
    assert re.search(r"^WebSocket +BLOCKED: ", output, re.MULTILINE)
    assert "flush_interval -1" in output
    assert "$http_upgrade" in output


def test_form_is_accepted(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose_in_thread(f"{url}/forms/files/", form="file") == 0
    assert re.search(r"^upload +passes", capsys.readouterr().out, re.MULTILINE)


def test_proxy_that_obeys_incremental_is_named(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose_in_thread(f"{url}/incremental/files/", timeout_seconds=FAULT_SECONDS) == 0

    output = capsys.readouterr().out
    assert re.search(r"^proxy +Caddy$", output, re.MULTILINE)
    assert re.search(r"^Incremental +obeyed: without it Caddy buffers", output, re.MULTILINE)


def test_missing_websocket_library_is_named(
    without_websockets: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert diagnose_in_thread(f"{without_websockets}/good/files/") == 1

    output = capsys.readouterr().out
    assert [each for each in Cause if each.value in output] == [Cause.NO_WEBSOCKET_LIBRARY]
    assert "pip install websockets" in output
    assert "the server supports no WebSockets: install a library" in caplog.text


def test_removed_upgrade_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with run_app(removes_upgrade(create_faulty_apps()), ws="none") as url:
        assert diagnose_in_thread(f"{url}/good/files/") == 1

    output = capsys.readouterr().out
    found = "BLOCKED: the handshake was answered with 200: the header Upgrade was removed"
    assert re.search(rf"^WebSocket +{found}", output, re.MULTILINE)
    assert [each for each in Cause if each.value in output] == [Cause.WEBSOCKET_BLOCKED]


def test_endpoint_that_denies_access_is_an_error(url: str) -> None:
    with pytest.raises(NotAllowed):
        diagnose_in_thread(f"{url}/key/files/")


def test_server_without_progress_routes_is_an_error(url: str) -> None:
    with pytest.raises(UnexpectedResponse, match="no progress routes"):
        diagnose_in_thread(f"{url}/nowhere/files/")


def test_error_without_a_message_is_shown_by_its_type() -> None:
    assert checks.error_reason(TimeoutError()) == "TimeoutError"


def test_every_cause_has_a_fix() -> None:
    assert [cause for cause in Cause if not fix(cause)] == []


APPLICATION = """
from tests.servers.faulty_apps import create_app
from upload_progress import ProgressTracker
from upload_progress.starlette import upload_progress_app

def create(**options):
    return create_app("", tracker=ProgressTracker(), **options).app

class site:
    good, untracked = create(), create(middleware=False)

closed = upload_progress_app(create_app("").app, authenticate=lambda _connection: None)
text = "no application"

async def failing(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module in the current folder that contains applications."""
    name = f"checked_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def diagnose_module(
    target: str, path: str | None = None, timeout_seconds: float = checks.TIMEOUT_SECONDS
) -> int:
    run = partial(diagnose_app, timeout_seconds=timeout_seconds)
    with start_blocking_portal() as portal:
        result = portal.start_task_soon(run, target, path, ConnectionOptions())
        return result.result(timeout=2 * DEADLINE_SECONDS)


def test_application_is_checked_in_process(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose_module(f"{module}:site.good", "/files/") == 0
    assert re.search(r"^upload +passes", capsys.readouterr().out, re.MULTILINE)


def test_application_is_checked_without_an_endpoint(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose_module(f"{module}:site.good", None, FAULT_SECONDS) == 0
    assert re.search(r"^upload +not checked", capsys.readouterr().out, re.MULTILINE)
    assert diagnose_module(f"{module}:site.untracked", None, FAULT_SECONDS) == 1

    output = capsys.readouterr().out
    assert [each for each in Cause if each.value in output] == [Cause.MIDDLEWARE_MISSING]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothing", "cannot be imported: AttributeError"),
        ("text", "is a str, not an ASGI application"),
        ("failing", "failed to start"),
    ],
)
def test_application_that_cannot_run_is_a_usage_error(module: str, name: str, problem: str) -> None:
    with pytest.raises(InvalidValue, match=problem):
        diagnose_module(f"{module}:{name}")


def test_application_that_denies_access_is_stopped(module: str) -> None:
    with pytest.raises(NotAllowed):
        diagnose_module(f"{module}:closed", "/files/")


def test_warnings_of_the_package_are_findings(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with captured_warnings(report):
        logging.getLogger("upload_progress").warning("authenticate failed; nobody is tracked")
    logging.getLogger("upload_progress").warning("not captured any more")

    assert report.conclude() == 1
    assert capsys.readouterr().out == "log          authenticate failed; nobody is tracked\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["tests.servers.faulty_apps:nothing", "/files/"], 2, "cannot be imported"),
        (["http://127.0.0.1:1/", "/files/"], 2, "path: is part of the URL"),
    ],
)
def test_command_takes_an_application_or_a_url(
    arguments: list[str],
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["upload-progress", "doctor", *arguments])

    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code == code
    assert text in capsys.readouterr().err
