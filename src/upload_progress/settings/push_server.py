"""The push server that the variables name."""

from collections.abc import Mapping
from typing import Any, Final

from upload_progress.exceptions import InvalidValue
from upload_progress.interfaces import EventPublisher

__all__ = ["push_server_from"]

_ARGUMENTS: Final = {
    "pushpin": {"edge.key": "key", "edge.hold_seconds": "hold_seconds"},
    "centrifugo": {
        "edge.key": "token_key",
        "edge.api_key": "api_key",
        "edge.public_url": "public_url",
    },
}
"""The arguments of each push server, by options."""
_OPTIONS: Final = {"edge.control_url": "edge.url", "edge.token_key": "edge.key"}


def push_server_from(values: Mapping[str, object]) -> EventPublisher:
    """Return the push server for these options.

    >>> options = {"edge.url": "pushpin+http://127.0.0.1:5561", "edge.key": "k" * 32}
    >>> type(push_server_from(options)).__name__
    'GripProxy'

    Args:
        values: The values of the options that are set, such as ``edge.url``.

    Raises:
        InvalidValue: An option is not valid, or not one of this push server; the error names it.
        MissingExtra: The extra ``edge`` is not installed.
    """
    kind, _, url = str(values.get("edge.url", "")).partition("+")
    if kind not in _ARGUMENTS:
        raise InvalidValue("edge.url", "must begin with pushpin+http or centrifugo+http")
    names = _ARGUMENTS[kind]
    given: dict[str, Any] = {"key": ""} if kind == "pushpin" else {"api_key": "", "token_key": ""}
    for option, value in values.items():
        if option in names:
            given[names[option]] = value
        elif option != "edge.url":
            raise InvalidValue(option, f"is not an option of {kind}")
    try:
        return _create(kind, url, given)
    except InvalidValue as error:
        raise InvalidValue(_OPTIONS.get(error.where, error.where), error.problem) from None


def _create(kind: str, url: str, given: Mapping[str, Any]) -> EventPublisher:
    from upload_progress.edge import Centrifugo, GripProxy  # noqa: PLC0415  # needs an extra

    return GripProxy(url, **given) if kind == "pushpin" else Centrifugo(url, **given)
