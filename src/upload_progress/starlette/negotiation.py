"""What a request asks for beside its path: representation, conditions, patience, filters.

Sources: RFC 9110 sections 12.5.1 (Accept) and 13.1.2 (If-None-Match), RFC 7240 (Prefer). An
entity tag names the version of a snapshot: attempt, sequence, state and bytes. It is weak,
because rate and time left change without a new version.
"""

import re
from typing import Final
from urllib.parse import parse_qsl

from attrs import frozen

from upload_progress.connection import Connection
from upload_progress.errors import InvalidValue
from upload_progress.model import UploadProgress, UploadState

__all__ = [
    "DEFAULT_PER_PAGE",
    "LONGEST_WAIT_SECONDS",
    "MAX_GROUP_CHARACTERS",
    "MOST_PER_PAGE",
    "Condition",
    "ListQuery",
    "entity_tag",
    "list_query",
    "version_of",
    "wait_seconds",
    "wants_stream",
]

LONGEST_WAIT_SECONDS: Final = 60
MOST_PER_PAGE: Final = 1000
DEFAULT_PER_PAGE: Final = 100
MAX_GROUP_CHARACTERS: Final = 128

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.ASCII | re.IGNORECASE)


def wants_stream(connection: Connection) -> bool:
    """Tell whether events are preferred to JSON; what accepts both alike gets JSON."""
    qualities: dict[str, float] = {}
    for offer in ",".join(connection.headers("accept")).split(","):
        media_type, *parameters = (part.strip() for part in offer.split(";"))
        matches = (_QUALITY.fullmatch(parameter) for parameter in parameters)
        quality = next((float(match[1]) for match in matches if match), 1.0)
        qualities[media_type.lower()] = quality
    stream = qualities.get("text/event-stream", 0.0)
    return stream > qualities.get("application/json", 0.0)


def version_of(progress: UploadProgress) -> str:
    """Return what changes with every stored change of an upload, and with nothing else."""
    return f"{progress.attempt}.{progress.sequence}.{progress.state}"


def entity_tag(progress: UploadProgress) -> str:
    """Return the entity tag of a snapshot."""
    return f'W/"{version_of(progress)}.{progress.bytes_transferred}"'


@frozen
class Condition:
    """What a client knows already, by ``If-None-Match``.

    Attributes:
        tags: The entity tags, without weakness and quotes.
        is_any: Whether it is ``*``.
    """

    tags: frozenset[str]
    is_any: bool

    @classmethod
    def of(cls, connection: Connection) -> "Condition":
        """Read it; what is malformed is no condition."""
        text = ",".join(connection.headers("if-none-match"))
        return cls(frozenset(_TAG.findall(text)), text.strip() == "*")

    def knows(self, progress: UploadProgress) -> bool:
        """Tell whether the client has just that snapshot."""
        return self.is_any or entity_tag(progress)[3:-1] in self.tags

    def at(self, progress: UploadProgress) -> "Condition":
        """Return the condition with ``*`` replaced by the snapshot that it stands for."""
        return Condition(frozenset({entity_tag(progress)[3:-1]}), False) if self.is_any else self

    def knows_version(self, progress: UploadProgress) -> bool:
        """Tell whether the client has that version, be it with fewer bytes."""
        versions = {tag.rpartition(".")[0] for tag in self.tags}
        return self.is_any or version_of(progress) in versions


def wait_seconds(connection: Connection) -> int:
    """Return how long to wait for news: ``?wait=`` or ``Prefer: wait=``, at most a minute.

    Raises:
        InvalidValue: It is no number of seconds.
    """
    text, where = connection.query.get("wait"), "query.wait"
    if text is None:
        text, where = _preference(connection, "wait"), "header.prefer"
    if text is None:
        return 0
    if not _DIGITS.fullmatch(text):
        raise InvalidValue(where, "is no number of seconds")
    return min(int(text), LONGEST_WAIT_SECONDS)


def _preference(connection: Connection, name: str) -> str | None:
    for preference in ",".join(connection.headers("prefer")).split(","):
        key, _, value = preference.partition(";")[0].partition("=")
        if key.strip().lower() == name:
            return value.strip().strip('"')
    return None


@frozen
class ListQuery:
    """Which uploads are asked for; ``states`` None stands for the open and recent ones."""

    states: frozenset[UploadState] | None
    group: str | None
    cursor: str | None
    limit: int


def list_query(connection: Connection) -> ListQuery:
    """Read ``?state=``, ``?group=``, ``?cursor=`` and ``?limit=``.

    Raises:
        InvalidValue: One of them is malformed.
    """
    query = connection.query
    return ListQuery(
        states=_states(connection),
        group=query.get("group"),
        cursor=query.get("cursor"),
        limit=_limit(query.get("limit")),
    )


def _states(connection: Connection) -> frozenset[UploadState] | None:
    raw = bytes(connection.scope.get("query_string", b"")).decode("latin-1")
    texts = [value for name, value in parse_qsl(raw) if name == "state"]
    words = [word.strip() for text in texts for word in text.split(",")]
    try:
        states = frozenset(UploadState(word) for word in words if word)
    except ValueError:
        known = ", ".join(UploadState)
        raise InvalidValue("query.state", f"knows the states {known}") from None
    return states or None


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_PER_PAGE
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MOST_PER_PAGE:
        raise InvalidValue("query.limit", f"must be a number from 1 to {MOST_PER_PAGE}")
    return int(text)
