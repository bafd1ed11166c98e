"""How many worker processes the server of this process starts, as far as its command line says it.

Workers inherit the command line and the environment of their server. A server that is configured
in another way, by a file or by its own Python call, is not recognised: the answer is one, so that
no warning appears without a reason.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Final

__all__ = ["configured_workers"]

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "uvicorn": "WEB_CONCURRENCY",
    "fastapi": "WEB_CONCURRENCY",
    "gunicorn": "WEB_CONCURRENCY",
    "granian": "GRANIAN_WORKERS",
    "hypercorn": "",
}
"""The servers, and the environment variable with the number of workers of each."""
_OPTIONS: Final = ("--workers", "-w")
_RELOAD: Final = "--reload"


def configured_workers(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return the number of workers of a server with that command line and environment.

    >>> configured_workers(["/usr/bin/uvicorn", "app:app", "--workers", "4"], {})
    4
    >>> configured_workers(["app.py", "--workers", "4"], {})
    1

    Sources: the command lines of uvicorn, Gunicorn, Hypercorn, Granian and FastAPI.
    """
    server = _server_of(arguments)
    if server is None or _RELOAD in arguments:
        return 1
    texts = [*_option_values(arguments[1:])]
    if server == "gunicorn":
        texts += _option_values(_split(environment.get("GUNICORN_CMD_ARGS", "")))
    texts.append(environment.get(_ENVIRONMENT[server], ""))
    return next((int(text) for text in texts if text.isascii() and text.isdecimal()), 1)


def _server_of(arguments: Sequence[str]) -> str | None:
    """Return the server that runs; None if it is not known."""
    path = PurePath(arguments[0]) if arguments else PurePath()
    # As "python -m uvicorn".
    name = path.parent.name if path.name == "__main__.py" else path.stem
    return name if name in _ENVIRONMENT else None


def _option_values(arguments: Iterable[str]) -> list[str]:
    """Return the values of the option that sets the number of workers."""
    values: list[str] = []
    previous = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if previous in _OPTIONS:
            values.append(argument)
        elif equals and name in _OPTIONS:
            values.append(value)
        elif argument.startswith("-w") and argument[2:].isdecimal():
            values.append(argument[2:])
        previous = argument
    return values


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []
