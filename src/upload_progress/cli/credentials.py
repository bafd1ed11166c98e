"""Who we are: from the environment, else from netrc.

Never from an option: what stands on a command line, everybody on the machine can read.
"""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from upload_progress.errors import InvalidValue

__all__ = ["Credentials", "find_credentials"]


@frozen
class Credentials:
    """What shows who we are; neither is ever printed."""

    token: str | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


def find_credentials(host: str, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Return the credentials for *host*.

    Raises:
        InvalidValue: They are there, and cannot be read; what they are is not said.
    """
    token = environment.get("UPLOAD_PROGRESS_TOKEN")
    if token:
        if not (token.isascii() and token.isprintable()):
            raise InvalidValue("UPLOAD_PROGRESS_TOKEN", "has characters that no header can carry")
        return Credentials(token=token)
    basic = environment.get("UPLOAD_PROGRESS_BASIC")
    if basic:
        user, colon, password = basic.partition(":")
        if not colon:
            raise InvalidValue("UPLOAD_PROGRESS_BASIC", "must be user:password")
        return Credentials(basic=(user, password))
    return Credentials(basic=_of_netrc(host, environment))


def _of_netrc(host: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    path = Path(environment.get("NETRC") or Path.home() / ".netrc")
    try:
        found = netrc.netrc(str(path)).authenticators(host)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidValue(str(path), error.strerror or "cannot be read") from None
    except netrc.NetrcParseError as error:
        # What it says may hold a password.
        raise InvalidValue(str(path), f"line {error.lineno} cannot be understood") from None
    return (found[0], found[2]) if found and found[2] else None
