"""From options to a client: address, credentials, certificates."""

import ssl

from upload_progress.cli.credentials import Credentials, find_credentials
from upload_progress.cli.options import Reach
from upload_progress.client import AsyncProgressClient
from upload_progress.client.addresses import Address, read_url
from upload_progress.errors import InvalidValue

__all__ = ["open_client"]


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
