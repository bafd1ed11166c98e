"""The environment variables: one for each option."""

from collections.abc import Callable
from enum import StrEnum, unique
from typing import Final

from attrs import Attribute, fields, frozen

from upload_progress.config import Limits, Retention
from upload_progress.settings.values import (
    read_count,
    read_names,
    read_policy,
    read_positive,
    read_protocols,
    read_text,
)

__all__ = ["PREFIX", "VARIABLES", "Group", "Variable"]

PREFIX: Final = "UPLOAD_PROGRESS_"

_Read = Callable[[str, str], object]


@unique
class Group(StrEnum):
    """What an option belongs to."""

    TRACKER = "ProgressTracker.from_url"
    LIMITS = "Limits"
    RETENTION = "Retention"
    EDGE = "the push server"
    MIDDLEWARE = "UploadProgressMiddleware"
    ROUTES = "progress_mount"


@frozen
class Variable:
    """An environment variable.

    Attributes:
        name: Its name.
        group: What it is an option of.
        option: The name of the option.
        read: Returns its value, from name and text.
        form: How its text is written.
    """

    name: str
    group: Group
    option: str
    read: _Read
    form: str


_Row = tuple[str, str, _Read, str]

_TRACKER: Final[tuple[_Row, ...]] = (
    ("STORE_URL", "url", read_text, "URL"),
    ("EVENTS_URL", "events", read_text, "URL"),
    ("POLICY", "policy", read_policy, "policies, as in Python"),
    ("WATCHED_INTERVAL_SECONDS", "watched_interval_seconds", read_positive, "seconds"),
    ("STORE_RECORDS_PER_SECOND", "store_records_per_second", read_positive, "records"),
    ("MOUNT_PATH", "mount_path", read_text, "path"),
    ("STALL_AFTER_SECONDS", "stall_after_seconds", read_positive, "seconds"),
    ("LEASE_SECONDS", "lease_seconds", read_positive, "seconds"),
    ("SOURCE", "source", read_text, "URI reference"),
    ("NAMESPACE", "namespace", read_text, "name"),
    ("SECRET", "secret", read_text, "text of 16 bytes or more"),
)
_EDGE: Final[tuple[_Row, ...]] = (
    ("EDGE_URL", "edge.url", read_text, "`pushpin+` or `centrifugo+`, and its URL"),
    ("EDGE_KEY", "edge.key", read_text, "text of 32 bytes or more"),
    ("EDGE_HOLD_SECONDS", "edge.hold_seconds", read_count, "seconds, of Pushpin"),
    ("EDGE_API_KEY", "edge.api_key", read_text, "text, of Centrifugo"),
    ("EDGE_PUBLIC_URL", "edge.public_url", read_text, "URL or path, of Centrifugo"),
)
_MIDDLEWARE: Final[tuple[_Row, ...]] = (
    ("MIN_SIZE_BYTES", "min_size_bytes", read_count, "bytes"),
    ("METHODS", "methods", read_names, "names, separated by commas"),
    ("PROTOCOLS", "protocols", read_protocols, "names of classes, separated by commas, or `none`"),
)
_ROUTES: Final[tuple[_Row, ...]] = (
    ("ALLOWED_ORIGINS", "allowed_origins", read_names, "origins, separated by commas"),
    ("REVALIDATE_SECONDS", "revalidate_seconds", read_positive, "seconds"),
    ("STREAM_LIFE_SECONDS", "stream_life_seconds", read_positive, "seconds"),
)


def _named(group: Group, rows: tuple[_Row, ...]) -> tuple[Variable, ...]:
    return tuple(
        Variable(PREFIX + name, group, option, read, form) for name, option, read, form in rows
    )


def _of_field(group: Group, attribute: "Attribute[object]") -> Variable:
    name = f"{PREFIX}{group.upper()}_{attribute.name.upper()}"
    if attribute.type is float:
        return Variable(name, group, attribute.name, read_positive, "seconds")
    form = "bytes" if attribute.name.endswith("_bytes") else "whole number"
    return Variable(name, group, attribute.name, read_count, form)


VARIABLES: Final = (
    *_named(Group.TRACKER, _TRACKER),
    *(_of_field(Group.LIMITS, each) for each in fields(Limits)),
    *(_of_field(Group.RETENTION, each) for each in fields(Retention)),
    *_named(Group.EDGE, _EDGE),
    *_named(Group.MIDDLEWARE, _MIDDLEWARE),
    *_named(Group.ROUTES, _ROUTES),
)
"""All variables."""
