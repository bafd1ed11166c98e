"""What ``doctor`` has found: each line as soon as it is known, causes and fixes at the end."""

import sys
from collections.abc import Mapping
from time import monotonic

from attrs import define, field

from upload_progress.cli.doctor.causes import Cause, fix, proxies_in
from upload_progress.cli.exit_codes import FAILED, SUCCESS

__all__ = ["Report", "elapsed"]


@define(eq=False, repr=False)
class Report:
    """The findings about one server.

    Attributes:
        causes: What is wrong, in the order in which it was found.
        proxies: The proxies that named themselves in a response.
        has_warnings: Whether the server has logged a warning.
    """

    causes: list[Cause] = field(factory=list, init=False)
    proxies: set[str] = field(factory=set, init=False)
    has_warnings: bool = field(default=False, init=False)

    def note_proxies(self, headers: Mapping[str, str]) -> None:
        """Remember the proxies that name themselves in the headers of a response."""
        self.proxies |= proxies_in(headers)

    def finding(self, subject: str, text: str) -> None:
        """Print what was found about *subject*."""
        self.print(f"{subject:<13}{text}")

    def problem(self, cause: Cause, subject: str, text: str) -> None:
        """Print what was found about *subject*, and remember its cause."""
        self.causes.append(cause)
        self.finding(subject, text)

    def warning(self, text: str) -> None:
        """Print a warning that the server has logged: it is a problem, too."""
        self.has_warnings = True
        self.finding("log", text)

    def conclude(self) -> int:
        """Print each cause with its fix, and return the exit code."""
        for cause in self.causes:
            self.print("", cause.value, "Fix:", *fix(cause, self.proxies))
        return FAILED if self.causes or self.has_warnings else SUCCESS

    @staticmethod
    def print(*lines: str) -> None:
        """Print lines at once."""
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()


def elapsed(began: float) -> str:
    """Return the time since *began*, a value of the monotonic clock, in milliseconds."""
    return f"{1000 * (monotonic() - began):.0f} ms"
