"""The help of the command line, as it is stored in the package.

``--help`` needs neither the parser of arguments nor its formatter, whose imports take most of the
start-up time. ``python -m docs.generate`` writes the texts.
"""

from collections.abc import Sequence
from typing import Final

__all__ = ["COMMANDS", "WIDTH", "stored_help"]

COMMANDS: Final = ("put", "watch", "list", "cancel", "top", "doctor", "demo", "migrate")
WIDTH: Final = 80
"""Width of the texts in characters."""


def stored_help(arguments: Sequence[str], encoding: str) -> str | None:
    """Return the help that *arguments* ask for; None if they ask for anything else.

    >>> stored_help(["put", "--help"], "utf-8").splitlines()[0]
    'Usage: upload-progress put [OPTIONS] FILE... URL'
    >>> stored_help(["put", "file"], "utf-8")

    Args:
        arguments: The arguments of the command line.
        encoding: That of the output; None is returned if it lacks a character of the help.
    """
    match [*arguments]:
        case [] | ["--help" | "-h"]:
            name = "upload-progress"
        case [command, "--help" | "-h"] if command in COMMANDS:
            name = command
        case _:
            return None
    from importlib.resources import files  # noqa: PLC0415  # not to run a command

    text = (files("upload_progress") / "static" / "help" / f"{name}.txt").read_text("utf-8")
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return None
    return text
