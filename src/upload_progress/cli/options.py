"""Options that several commands share; imports nothing large, so that ``--help`` is fast."""

from enum import StrEnum, unique
from pathlib import Path

from attrs import frozen

__all__ = ["Mode", "Reach", "Shown"]


@unique
class Mode(StrEnum):
    """How progress is shown; ``auto`` looks at where it goes."""

    AUTO = "auto"
    TTY = "tty"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


@frozen
class Reach:
    """How a server is reached.

    Attributes:
        mount: Where the progress routes are, a path or a URL; /uploads where nothing says it.
        cacert: Trust these certificate authorities, instead of the system's.
        insecure: Do not check the server's certificate.
        retries: How many failures of the network in a row are borne.
    """

    mount: str | None = None
    cacert: Path | None = None
    insecure: bool = False
    retries: int = 5


@frozen
class Shown:
    """How progress is shown.

    Attributes:
        progress: Bars for a terminal, plain lines for a log, JSON for a program, or none.
        json: The same as --progress=json: one snapshot a line.
    """

    progress: Mode = Mode.AUTO
    json: bool = False

    @property
    def mode(self) -> Mode:
        """What both options come to."""
        return Mode.JSON if self.json else self.progress
