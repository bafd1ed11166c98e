"""Reads settings from environment variables, and secrets from files."""

import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, TypedDict, cast

from attrs import field, frozen

from upload_progress.config import Limits, Retention
from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventPublisher
from upload_progress.protocols import TransferProtocol
from upload_progress.settings.push_server import push_server_from
from upload_progress.settings.variables import PREFIX, VARIABLES, Group
from upload_progress.throttling import ThrottlePolicy
from upload_progress.tracker import ProgressTracker

__all__ = [
    "MiddlewareOptions",
    "RouteOptions",
    "Settings",
    "TrackerOptions",
    "settings_from_environment",
]

_FILE: Final = "_FILE"
_SIMILAR: Final = 0.9
_MAX_FILE_BYTES: Final = 64 * 1024
_NAMES_OF_OPTIONS: Final = {each.option: each.name for each in VARIABLES}
_STORE_URL, _EVENTS_URL = _NAMES_OF_OPTIONS["url"], _NAMES_OF_OPTIONS["events"]


class TrackerOptions(TypedDict, total=False):
    """The options of ``ProgressTracker.from_url`` that are set."""

    url: str
    events: str
    edge: EventPublisher
    retention: Retention
    policy: ThrottlePolicy
    watched_interval_seconds: float
    store_records_per_second: float
    limits: Limits
    mount_path: str
    stall_after_seconds: float
    lease_seconds: float
    source: str
    namespace: str
    secret: str


class MiddlewareOptions(TypedDict, total=False):
    """The options of ``UploadProgressMiddleware`` that are set."""

    min_size_bytes: int
    methods: Collection[str]
    protocols: Collection[TransferProtocol]


class RouteOptions(TypedDict, total=False):
    """The options of ``progress_mount`` that are set."""

    allowed_origins: Collection[str]
    revalidate_seconds: float
    stream_life_seconds: float


@frozen(kw_only=True)
class Settings:
    """What the environment sets; options that it does not set keep their defaults.

    Attributes:
        tracker: The options of the tracker. They may contain passwords, and are not shown.
        middleware: The options of ``UploadProgressMiddleware`` and ``upload_progress_app``.
        routes: The options of ``progress_mount`` and ``upload_progress_app``.
    """

    tracker: TrackerOptions = field(repr=False)
    middleware: MiddlewareOptions
    routes: RouteOptions

    def create_tracker(self) -> ProgressTracker:
        """Return a tracker with these settings; nothing connects yet.

        >>> settings_from_environment({}).create_tracker()
        <ProgressTracker /uploads 0 live uploads>

        Raises:
            InvalidValue: A setting is not valid; the error names its variable.
            MissingExtra: A driver is not installed.
        """
        options: TrackerOptions = {"url": "memory:", **self.tracker}
        try:
            return ProgressTracker.from_url(**options)
        except InvalidValue as error:
            raise InvalidValue(self._variable(error.where), error.problem) from None

    def _variable(self, where: str) -> str:
        """Return the name of the variable that an error is about."""
        if where == "store URL" or (where == "url" and "events" not in self.tracker):
            return _STORE_URL
        if where == "events URL":
            return _EVENTS_URL
        return f"{_STORE_URL} or {_EVENTS_URL}" if where == "url" else _name_of(where)


def settings_from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that environment variables define.

    Each option has a variable: see the page "Settings" of the documentation. The value may be in a
    file instead: its path is in the variable whose name ends with ``_FILE``, as for secrets in
    containers. A variable that is empty counts as not set.

    >>> settings = settings_from_environment({"UPLOAD_PROGRESS_LIMITS_SOCKETS_PER_OWNER": "50"})
    >>> settings.create_tracker().config.limits.sockets_per_owner
    50

    Args:
        environment: The variables; by default those of this process.

    Raises:
        InvalidValue: A value is not valid, a file is not readable, or a variable is unknown and
            has nearly the name of another one. The error names the variable.
    """
    variables = os.environ if environment is None else environment
    _check_names(variables)
    values: dict[Group, dict[str, object]] = {group: {} for group in Group}
    for variable in VARIABLES:
        text = _text_of(variable.name, variables)
        if text:
            values[variable.group][variable.option] = variable.read(variable.name, text)
    tracker = values[Group.TRACKER]
    if values[Group.LIMITS]:
        tracker["limits"] = Limits(**cast("dict[str, int]", values[Group.LIMITS]))
    if values[Group.RETENTION]:
        tracker["retention"] = _retention(cast("dict[str, int]", values[Group.RETENTION]))
    if values[Group.EDGE]:
        tracker["edge"] = _edge(values[Group.EDGE])
    return Settings(
        tracker=cast("TrackerOptions", tracker),
        middleware=cast("MiddlewareOptions", values[Group.MIDDLEWARE]),
        routes=cast("RouteOptions", values[Group.ROUTES]),
    )


def _retention(values: dict[str, int]) -> Retention:
    try:
        return Retention(**values)
    except InvalidValue as error:
        raise InvalidValue(_name_of(error.where), error.problem) from None


def _edge(values: Mapping[str, object]) -> EventPublisher:
    try:
        return push_server_from(values)
    except InvalidValue as error:
        raise InvalidValue(_name_of(error.where), error.problem) from None


def _name_of(option: str) -> str:
    return _NAMES_OF_OPTIONS.get(option, option)


def _check_names(variables: Mapping[str, str]) -> None:
    """Refuse a misspelt name. Others with the prefix are not ours: Kubernetes makes some."""
    known = {each.name + suffix for each in VARIABLES for suffix in ("", _FILE)}
    for name in variables:
        if name.startswith(PREFIX) and name not in known:
            similar = get_close_matches(name, known, 1, _SIMILAR)
            if similar:
                raise InvalidValue(name, f"is not a variable; the nearest one is {similar[0]}")


def _text_of(name: str, variables: Mapping[str, str]) -> str:
    """Return the value of a variable, or the text of the file that it names; "" if not set."""
    text, path = variables.get(name, ""), variables.get(name + _FILE, "")
    if not path:
        return text
    if text:
        raise InvalidValue(name, f"must not be set together with {name}{_FILE}")
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_MAX_FILE_BYTES).rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise InvalidValue(name + _FILE, f"is not readable ({type(error).__name__})") from None
