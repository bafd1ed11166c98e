"""Connect a command to a server: address, credentials, certificates."""

import netrc
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from upload_progress.cli.options import Reach
from upload_progress.client import AsyncProgressClient
from upload_progress.client.urls import Address, read_url
from upload_progress.exceptions import InvalidValue

__all__ = [
    "Credentials",
    "find_credentials",
    "open_client",
]


# FROM cli.credentials: Who we are: from the environment, else from netrc.
#
# Never from an option: what stands on a command line, everybody on the machine can read.
#


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


# FROM cli.reaching: From options to a client: address, credentials, certificates.


def open_client(url: str, reach: Reach, *, default_mount: str | None = None) -> AsyncProgressClient:
    """Return a client for the progress routes of the server at *url*.

    Args:
        url: Any address of that server.
        reach: The options.
        default_mount: Where the routes are; without, the URL leads there.

    Raises:
        InvalidValue: The URL, the credentials, or the certificates cannot be used.
    """
    address = read_url(url, "URL")
    who = _credentials(address)
    return AsyncProgressClient(
        _mount(address, reach.mount or default_mount),
        token=who.token,
        basic=who.basic,
        verify=_verify(reach),
        retries=reach.retries,
    )


def _credentials(address: Address) -> Credentials:
    if address.basic is not None:
        return Credentials(basic=address.basic)
    return find_credentials(address.url.host)


def _mount(address: Address, mount: str | None) -> str:
    if mount is None:
        return address.text
    if mount.startswith("/"):
        return str(address.url.copy_with(path=mount, query=None))
    return read_url(mount, "--mount").text


def _verify(reach: Reach) -> ssl.SSLContext | bool:
    if reach.insecure:
        return False
    if reach.cacert is None:
        return True
    try:
        return ssl.create_default_context(cafile=reach.cacert)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidValue(str(reach.cacert), f"holds no certificates: {reason}") from None
