"""Settings from environment variables and files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import fields
from starlette.applications import Starlette

from tests._support.asgi_client import name_is_password
from upload_progress import (
    ByTotal,
    EveryBytes,
    EveryInterval,
    EveryPercent,
    InvalidValue,
    Limits,
    ProgressTracker,
    Retention,
)
from upload_progress._internals import internals_of
from upload_progress.asgi import UploadProgressMiddleware
from upload_progress.edge import Centrifugo, GripProxy
from upload_progress.protocols import DEFAULT_PROTOCOLS, ContentRange, Tus
from upload_progress.settings import Settings, settings_from_environment
from upload_progress.settings.variables import VARIABLES, Group
from upload_progress.starlette import progress_mount, upload_progress_app

PREFIX = "UPLOAD_PROGRESS_"
NEAREST = "is not a variable; the nearest one is"
PROTOCOLS = "Tus, IetfResumable, Oci, S3Multipart, AzureBlocks, FilePond, ContentRange"


def settings(**variables: str) -> Settings:
    """Return the settings of variables, named without their prefix."""
    return settings_from_environment({PREFIX + name: text for name, text in variables.items()})


def error_of(**variables: str) -> str:
    """Return the error for variables, named without their prefix."""
    with pytest.raises(InvalidValue) as caught:
        settings(**variables).create_tracker()
    return str(caught.value)


def options_of(call: object, *without: str) -> set[str]:
    """Return the names of the options of a function."""
    assert callable(call)
    return set(inspect.signature(call).parameters) - {*without}


def variables_of(group: Group) -> set[str]:
    """Return the options of *group* that have a variable."""
    return {each.option for each in VARIABLES if each.group is group}


def test_every_option_has_a_variable() -> None:
    """All but those that are no text, and those that are made of several."""
    composed, code = {"retention", "limits"}, {"app", "tracker", "authenticate", "clock", "edge"}
    expected = {
        Group.TRACKER: options_of(ProgressTracker.from_url, *composed, *code),
        Group.LIMITS: {each.name for each in fields(Limits)},
        Group.RETENTION: {each.name for each in fields(Retention)},
        # `url` and `key` are of both push servers, by other names.
        Group.EDGE: {"edge.url", "edge.key"}
        | {f"edge.{name}" for name in options_of(GripProxy, "control_url", "key")}
        | {f"edge.{name}" for name in options_of(Centrifugo, "url", "token_key")},
        Group.MIDDLEWARE: options_of(UploadProgressMiddleware, *code),
        Group.ROUTES: options_of(progress_mount, *code),
    }

    assert {group: variables_of(group) for group in Group} == expected


def test_nothing_is_set_by_default() -> None:
    found = settings_from_environment({"PATH": "/bin", "UPLOAD_PROGRESS_LEASE_SECONDS": ""})

    assert (found.tracker, found.middleware, found.routes) == ({}, {}, {})
    assert found.create_tracker().config.limits == Limits()


def test_variables_of_the_process_are_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_PROGRESS_MOUNT_PATH", "/api/uploads")

    assert settings_from_environment().create_tracker().config.mount_path == "/api/uploads"


def test_tracker_has_the_settings() -> None:
    tracker = settings(
        STORE_URL="memory:",
        EVENTS_URL="memory:",
        STALL_AFTER_SECONDS="10",
        LEASE_SECONDS="7.5",
        WATCHED_INTERVAL_SECONDS="0.5",
        STORE_RECORDS_PER_SECOND="500",
        POLICY="EveryPercent(5)",
        NAMESPACE="shop",
        SOURCE="/files",
        SECRET="0123456789abcdef",
        LIMITS_TRACKED_TOTAL="10_000",
        LIMITS_SOCKETS_TOTAL="5",
        RETENTION_ENDED_SECONDS="60",
        RETENTION_ENDED_PER_OWNER="3",
    ).create_tracker()
    config = tracker.config

    assert (config.stall_after_seconds, config.lease_seconds) == (10, 7.5)
    assert (config.watched_interval_seconds, config.policy) == (0.5, EveryPercent(5))
    assert config.store_records_per_second == 500
    assert (config.namespace, config.source) == ("shop", "/files")
    assert config.secret == b"0123456789abcdef"
    assert config.limits == Limits(tracked_total=10_000, sockets_total=5)
    assert internals_of(tracker).is_in_memory


def test_retention_is_an_option_of_the_store() -> None:
    found = settings(RETENTION_WAITING_SECONDS="60", RETENTION_ENDED_PER_OWNER="3")

    assert found.tracker["retention"] == Retention(waiting_seconds=60, ended_per_owner=3)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("EveryBytes(1024)", EveryBytes(1024)),
        ("EveryPercent(percent=5) | EveryInterval(2)", EveryPercent(5) | EveryInterval(2)),
        (
            "ByTotal(known=EveryPercent(5), unknown=EveryInterval(1) & EveryBytes(9))",
            ByTotal(known=EveryPercent(5), unknown=EveryInterval(1) & EveryBytes(9)),
        ),
    ],
)
def test_policy_is_written_as_in_python(text: str, policy: object) -> None:
    assert settings(POLICY=text).tracker["policy"] == policy


@pytest.mark.parametrize(
    "text",
    [
        "hourly",
        "1 +",
        "print(1)",
        "EveryPercent",
        "EveryPercent(10) + EveryBytes(1)",
        "EveryPercent(10, 20)",
        "EveryPercent(open('/etc/passwd'))",
        "().__class__()",
        "EveryBytes(1)" + " | EveryBytes(1)" * 100,
    ],
)
def test_anything_else_is_no_policy(text: str) -> None:
    assert error_of(POLICY=text) == (
        f"{PREFIX}POLICY: must be a policy such as EveryPercent(10) | EveryInterval(1.0)"
    )


def test_error_of_a_policy_says_what_is_wrong() -> None:
    assert error_of(POLICY="EveryPercent(0)").endswith(
        "EveryPercent: must be a number greater than 0, not 0"
    )


def test_application_has_the_settings() -> None:
    found = settings(
        METHODS="PUT",
        MIN_SIZE_BYTES="0",
        PROTOCOLS="Tus, ContentRange",
        ALLOWED_ORIGINS="https://a.example, https://b.example",
        REVALIDATE_SECONDS="30",
        STREAM_LIFE_SECONDS="300",
    )
    protocols = found.middleware["protocols"]
    assert (found.middleware["methods"], found.middleware["min_size_bytes"]) == (("PUT",), 0)
    assert [type(each) for each in protocols] == [Tus, ContentRange]
    assert found.routes == {
        "allowed_origins": ("https://a.example", "https://b.example"),
        "revalidate_seconds": 30,
        "stream_life_seconds": 300,
    }
    app = upload_progress_app(
        Starlette(),
        authenticate=name_is_password,
        tracker=found.create_tracker(),
        **found.middleware,
        **found.routes,
    )
    assert app.tracker.config.mount_path == "/uploads"


def test_protocols_may_be_switched_off() -> None:
    assert settings(PROTOCOLS="none").middleware == {"protocols": ()}


def test_every_shipped_protocol_has_a_name() -> None:
    names = ",".join(type(each).__name__ for each in DEFAULT_PROTOCOLS)

    assert settings(PROTOCOLS=names).middleware == {"protocols": DEFAULT_PROTOCOLS}


def test_value_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef\n", encoding="utf-8")
    tracker = settings(SECRET_FILE=str(tmp_path / "secret")).create_tracker()

    assert tracker.config.secret == b"0123456789abcdef"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    url = "redis://:pass@localhost"
    (tmp_path / "store").write_text(url, encoding="utf-8")
    found = settings(STORE_URL_FILE=str(tmp_path / "store"), SECRET="0123456789abcdef")

    assert found.tracker["url"] == url
    assert "pass" not in repr(found)
    assert "0123456789abcdef" not in repr(found)


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({"LEASE_SECONDS": "soon"}, "LEASE_SECONDS: must be a number greater than 0, not 'soon'"),
        ({"LEASE_SECONDS": "inf"}, "LEASE_SECONDS: must be a number greater than 0, not 'inf'"),
        (
            {"LIMITS_TRACKED_TOTAL": "1.5"},
            "LIMITS_TRACKED_TOTAL: must be a whole number from 0 up, not '1.5'",
        ),
        (
            {"RETENTION_ENDED_PER_OWNER": "0"},
            "RETENTION_ENDED_PER_OWNER: must be at least 1, not 0",
        ),
        ({"SECRET": "short"}, "SECRET: must have at least 16 bytes"),
        (
            {"MOUNT_PATH": "uploads"},
            "MOUNT_PATH: must start with a slash and must not end with one, not 'uploads'",
        ),
        (
            {"PROTOCOLS": "tus"},
            f"PROTOCOLS: must be a list of {PROTOCOLS}, without 'tus'",
        ),
        (
            {"LIMIT_TRACKED_TOTAL": "5"},
            f"LIMIT_TRACKED_TOTAL: {NEAREST} {PREFIX}LIMITS_TRACKED_TOTAL",
        ),
        (
            {"SECRET": "0123456789abcdef", "SECRET_FILE": "/run/secret"},
            f"SECRET: must not be set together with {PREFIX}SECRET_FILE",
        ),
        (
            {"STORE_URL_FILE": "/does/not/exist"},
            "STORE_URL_FILE: is not readable (FileNotFoundError)",
        ),
    ],
)
def test_error_names_the_variable(variables: Mapping[str, str], error: str) -> None:
    assert error_of(**variables) == PREFIX + error


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"STORE_URL": "ftp://server"}, "STORE_URL"),
        ({"EVENTS_URL": "ftp://server"}, "EVENTS_URL"),
        ({"STORE_URL": "redis://localhost:abc"}, "STORE_URL"),
        ({"EVENTS_URL": "redis://localhost:abc"}, f"STORE_URL or {PREFIX}EVENTS_URL"),
        ({"NAMESPACE": "Shop!"}, "NAMESPACE"),
    ],
)
def test_error_of_the_tracker_names_the_variable(variables: Mapping[str, str], name: str) -> None:
    assert error_of(**variables).startswith(f"{PREFIX}{name}: ")


def test_variables_of_others_are_ignored() -> None:
    """Kubernetes makes variables for a service that is named upload-progress."""
    found = settings(SERVICE_HOST="10.0.0.1", PORT="tcp://10.0.0.1:80", TOKEN="x", BASIC="a:b")

    assert found.tracker == {}


KEY = "0123456789abcdef0123456789abcdef"


def test_push_server_is_set(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    key_file = str(tmp_path / "key")
    pushpin = settings(
        EDGE_URL="pushpin+http://127.0.0.1:5561", EDGE_KEY=KEY, EDGE_HOLD_SECONDS="30"
    ).tracker["edge"]
    assert isinstance(pushpin, GripProxy)
    assert (pushpin.control_url, pushpin.hold_seconds) == ("http://127.0.0.1:5561", 30)

    tracker = settings(
        EDGE_URL="centrifugo+https://127.0.0.1:8010",
        EDGE_KEY_FILE=key_file,
        EDGE_API_KEY="api",
        EDGE_PUBLIC_URL="/push",
    ).create_tracker()
    edge = internals_of(tracker).backends.edge
    assert isinstance(edge, Centrifugo)
    assert (edge.url, edge.public_url) == ("https://127.0.0.1:8010", "/push")
    assert (edge.api_key, edge.token_key) == ("api", KEY.encode())


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"EDGE_KEY": KEY}, "EDGE_URL: must begin with pushpin+http or centrifugo+http"),
        ({"EDGE_URL": "http://h"}, "EDGE_URL: must begin with pushpin+http or centrifugo+http"),
        ({"EDGE_URL": "pushpin+ftp://h", "EDGE_KEY": KEY}, "EDGE_URL: must begin with http://"),
        ({"EDGE_URL": "pushpin+http://h"}, "EDGE_KEY: must have at least 32 bytes"),
        ({"EDGE_URL": "centrifugo+http://h", "EDGE_KEY": KEY}, "EDGE_API_KEY: must be printable"),
        (
            {"EDGE_URL": "centrifugo+http://h", "EDGE_API_KEY": "a", "EDGE_KEY": "short"},
            "EDGE_KEY: must have at least 32 bytes",
        ),
        (
            {"EDGE_URL": "pushpin+http://h", "EDGE_KEY": KEY, "EDGE_API_KEY": "a"},
            "EDGE_API_KEY: is not an option of pushpin",
        ),
    ],
)
def test_error_names_the_variable_of_the_push_server(
    variables: dict[str, str], problem: str
) -> None:
    assert error_of(**variables).startswith(PREFIX + problem)
