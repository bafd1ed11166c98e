"""Options that several commands share. Imports nothing large, so that ``--help`` is fast."""

from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

__all__ = ["ConnectionOptions", "OutputMode", "OutputOptions", "SortKey"]

_Flag = Annotated[bool, Parameter(show_default=False)]


@unique
class OutputMode(StrEnum):
    """How progress is shown; ``auto`` is ``tty`` on a terminal, else ``plain``."""

    AUTO = "auto"
    TTY = "tty"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


@unique
class SortKey(StrEnum):
    """By what the rows are sorted; numbers begin with the largest."""

    SPEED = "speed"
    PERCENT = "percent"
    RECEIVED = "received"
    AGE = "age"
    OWNER = "owner"
    NAME = "name"
    STATE = "state"


@frozen
class ConnectionOptions:
    """How a command connects to the server.

    Attributes:
        mount: Where the progress routes are mounted: a path or a URL. Default: /uploads.
        cacert: Trust the certificate authorities in this file instead of those of the system.
        insecure: Do not check the certificate of the server.
        retries: Number of consecutive network failures after which to give up.
        header: A header of every request, such as 'X-Region: eu'; can be given several times.
    """

    mount: str | None = None
    cacert: Path | None = None
    insecure: _Flag = False
    retries: int = 5
    header: Annotated[
        tuple[str, ...], Parameter(name=("--header", "-H"), negative="", show_default=False)
    ] = ()


@frozen
class OutputOptions:
    """How a command shows progress.

    Attributes:
        progress: Bars for a terminal, plain lines for a log, JSON for a program, or none.
        json: Same as --progress=json: print one snapshot per line.
        quiet: Same as --progress=none: print results and errors only.
        verbose: Say as well where each file is sent, and how the server answers.
    """

    progress: OutputMode = OutputMode.AUTO
    json: _Flag = False
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), show_default=False)] = False
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), show_default=False)] = False

    @property
    def mode(self) -> OutputMode:
        """The mode that both options together select."""
        if self.json:
            return OutputMode.JSON
        return OutputMode.NONE if self.quiet else self.progress
