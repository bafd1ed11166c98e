"""Reads the text of a variable; the error says what it must be, and never contains a secret."""

import ast
from collections.abc import Callable
from math import inf
from typing import Final

from upload_progress.exceptions import InvalidValue
from upload_progress.protocols import DEFAULT_PROTOCOLS, TransferProtocol
from upload_progress.throttling import (
    ByTotal,
    EveryBytes,
    EveryInterval,
    EveryPercent,
    ThrottlePolicy,
)

__all__ = [
    "read_count",
    "read_names",
    "read_policy",
    "read_positive",
    "read_protocols",
    "read_text",
]

_NO_NAMES: Final = "none"
_MAX_POLICY_CHARACTERS: Final = 1000


def read_text(_name: str, text: str) -> str:
    """Return *text*."""
    return text


def read_count(name: str, text: str) -> int:
    """Return a whole number from 0 up.

    >>> read_count("UPLOAD_PROGRESS_MIN_SIZE_BYTES", "65_536")
    65536

    Raises:
        InvalidValue: It is none.
    """
    try:
        count = int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise InvalidValue(name, f"must be a whole number from 0 up, not {text!r}")
    return count


def read_positive(name: str, text: str) -> float:
    """Return a number greater than 0.

    Raises:
        InvalidValue: It is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < inf:
        raise InvalidValue(name, f"must be a number greater than 0, not {text!r}")
    return seconds


def read_names(_name: str, text: str) -> tuple[str, ...]:
    """Return the names in a list that is separated by commas; ``none`` is an empty list.

    >>> read_names("UPLOAD_PROGRESS_METHODS", "POST, PUT")
    ('POST', 'PUT')
    """
    names = tuple(filter(None, (each.strip() for each in text.split(","))))
    return () if names == (_NO_NAMES,) else names


def read_protocols(name: str, text: str) -> tuple[TransferProtocol, ...]:
    """Return the shipped protocols of these names, such as ``Tus, ContentRange``.

    Raises:
        InvalidValue: A protocol is unknown.
    """
    shipped = {type(each).__name__: each for each in DEFAULT_PROTOCOLS}
    names = read_names(name, text)
    unknown = [each for each in names if each not in shipped]
    if unknown:
        raise InvalidValue(name, f"must be a list of {', '.join(shipped)}, without {unknown[0]!r}")
    return tuple(shipped[each] for each in names)


_POLICIES: Final[dict[str, Callable[..., ThrottlePolicy]]] = {
    each.__name__: each for each in (ByTotal, EveryBytes, EveryInterval, EveryPercent)
}


def read_policy(name: str, text: str) -> ThrottlePolicy:
    """Return a throttle policy, written as in Python.

    >>> read_policy("UPLOAD_PROGRESS_POLICY", "EveryPercent(5) | EveryInterval(2)")
    _Either(left=EveryPercent(percent=5), right=EveryInterval(seconds=2))

    Raises:
        InvalidValue: It is none.
    """
    try:
        if len(text) > _MAX_POLICY_CHARACTERS:
            raise ValueError
        return _policy(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        detail = f": {error}" if isinstance(error, InvalidValue) else ""
        example = "EveryPercent(10) | EveryInterval(1.0)"
        raise InvalidValue(name, f"must be a policy such as {example}{detail}") from None


def _policy(node: ast.expr) -> ThrottlePolicy:
    if isinstance(node, ast.BinOp):
        left, right = _policy(node.left), _policy(node.right)
        if isinstance(node.op, ast.BitOr):
            return left | right
        if isinstance(node.op, ast.BitAnd):
            return left & right
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        policy = _POLICIES.get(node.func.id)
        if policy is not None:
            arguments = [_argument(each) for each in node.args]
            return policy(*arguments, **{str(k.arg): _argument(k.value) for k in node.keywords})
    raise ValueError


def _argument(node: ast.expr) -> object:
    """Return an argument of a policy: a number, or another policy."""
    return node.value if isinstance(node, ast.Constant) else _policy(node)
