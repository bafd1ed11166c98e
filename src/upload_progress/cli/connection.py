"""Connection of a command to a server: mount point, credentials, certificates."""

import os
import re
import ssl
from collections.abc import Collection, Mapping
from netrc import NetrcParseError
from pathlib import Path
from typing import Final

from attrs import field, frozen
from httpx2 import Auth, NetRCAuth

from upload_progress.cli.options import ConnectionOptions
from upload_progress.client import AsyncProgressClient
from upload_progress.client.urls import ServerUrl, parse_url
from upload_progress.exceptions import InvalidValue

__all__ = ["Credentials", "find_credentials", "open_client", "parse_headers"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
"""The name of a header (RFC 9110, section 5.6.2)."""


@frozen
class Credentials:
    """Credentials for a server, hidden in their repr.

    Attributes:
        token: Bearer token.
        auth: User name and password, or the netrc file that contains them for a host.
    """

    token: str | None = field(default=None, repr=False)
    auth: tuple[str, str] | Auth | None = field(default=None, repr=False)


def find_credentials(environment: Mapping[str, str] = os.environ) -> Credentials:
    """Return the credentials from the environment, else from the netrc file.

    There is no option for them: all users of a machine can read its command lines.

    Raises:
        InvalidValue: They cannot be used; the message does not contain them.
    """
    token = environment.get("UPLOAD_PROGRESS_TOKEN")
    if token:
        if not (token.isascii() and token.isprintable()):
            problem = "contains characters that are not allowed in a header"
            raise InvalidValue("UPLOAD_PROGRESS_TOKEN", problem)
        return Credentials(token=token)
    basic = environment.get("UPLOAD_PROGRESS_BASIC")
    if basic:
        user, colon, password = basic.partition(":")
        if not colon:
            raise InvalidValue("UPLOAD_PROGRESS_BASIC", "must be user:password")
        return Credentials(auth=(user, password))
    return Credentials(auth=_read_netrc(environment))


def _read_netrc(environment: Mapping[str, str]) -> NetRCAuth | None:
    path = Path(environment.get("NETRC") or Path.home() / ".netrc")
    try:
        return NetRCAuth(str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidValue(str(path), error.strerror or "cannot be read") from None
    except NetrcParseError as error:
        # Its message may contain a password.
        raise InvalidValue(str(path), f"has a syntax error in line {error.lineno}") from None


def open_client(
    url: str, options: ConnectionOptions, *, default_mount: str | None = None
) -> AsyncProgressClient:
    """Return a client for the progress routes of a server.

    Args:
        url: A URL of the server. Its credentials, if any, are used before all others.
        options: The options of the command.
        default_mount: Path of the progress routes, if no option names it; None to derive it
            from the URL.

    Raises:
        InvalidValue: The URL, the credentials or the certificates cannot be used.
    """
    server = parse_url(url, "URL")
    headers = parse_headers(options.header)
    if server.credentials:
        credentials = Credentials(auth=server.credentials)
    elif "authorization" in headers:
        credentials = Credentials()
    else:
        credentials = find_credentials()
    return AsyncProgressClient(
        _mount(server, options.mount or default_mount),
        token=credentials.token,
        auth=credentials.auth,
        verify=_verify(options),
        retries=options.retries,
        headers=headers,
    )


def parse_headers(texts: Collection[str]) -> dict[str, str]:
    """Return the headers that are given as ``Name: value``, with names in lower case.

    >>> parse_headers(["X-Region: eu"])
    {'x-region': 'eu'}

    Raises:
        InvalidValue: A text is not a header.
    """
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not (colon and _TOKEN.fullmatch(name.strip()) and value.isprintable()):
            raise InvalidValue("--header", "must be 'Name: value'")
        headers[name.strip().lower()] = value.strip()
    return headers


def _mount(server: ServerUrl, mount: str | None) -> str:
    if mount is None:
        return str(server)
    if mount.startswith("/"):
        return str(server.url.copy_with(path=mount, query=None))
    return str(parse_url(mount, "--mount"))


def _verify(options: ConnectionOptions) -> ssl.SSLContext | bool:
    if options.insecure:
        return False
    if options.cacert is None:
        return True
    try:
        return ssl.create_default_context(cafile=options.cacert)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"cannot be used as a certificate file: {reason}"
        raise InvalidValue(str(options.cacert), problem) from None
