"""URLs of a server: the mount point of the progress routes, an upload, the target of a file.

Credentials are removed from a URL as soon as it is parsed, so that no error message, repr or log
line can contain them.
"""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

import httpx2
from attrs import field, frozen

from upload_progress._model.models import is_upload_id
from upload_progress.exceptions import InvalidValue

__all__ = ["DEFAULT_MOUNT", "ServerUrl", "mount_url", "parse_url", "target_url", "upload_id_in"]

DEFAULT_MOUNT: Final = "/uploads"


@frozen
class ServerUrl:
    """A URL without its credentials, and the credentials.

    Attributes:
        url: The URL without credentials and fragment.
        credentials: User name and password from the URL; None if it has none.
    """

    url: httpx2.URL
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the URL as text, without credentials."""
        return str(self.url)


def parse_url(text: str, name: str = "url") -> ServerUrl:
    """Parse a URL.

    Args:
        text: The URL.
        name: The name of the value in the error message.

    Raises:
        InvalidValue: The URL is malformed, has no host, or is neither ``http`` nor ``https``.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise InvalidValue(name, f"is not a valid URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidValue(name, "must begin with http:// or https:// and contain a host")
    credentials = (url.username, url.password) if url.username or url.password else None
    bare = url.copy_with(username=None, password=None, fragment=None)
    return ServerUrl(bare, credentials)


def mount_url(url: httpx2.URL) -> httpx2.URL:
    """Return the URL of the mount point: ``/uploads`` if the URL has no path.

    The links in a snapshot (``…/uploads/ID/progress``) are accepted as well.
    """
    path = url.path.rstrip("/")
    upload_id = upload_id_in(url)
    if upload_id is not None:
        path = path.removesuffix(f"/{upload_id}/progress")
    else:
        path = path.removesuffix("/progress")
    return url.copy_with(path=path or DEFAULT_MOUNT, query=None)


def upload_id_in(url: httpx2.URL) -> str | None:
    """Return the upload id in the link of an upload; None if it is not such a link."""
    match url.path.rstrip("/").split("/"):
        case [_, *_, _, upload_id, "progress"] if is_upload_id(upload_id):
            return upload_id
        case _:
            return None


def target_url(url: httpx2.URL, name: PurePosixPath) -> httpx2.URL:
    """Return the URL for a file: with its name appended if the URL ends with ``/``."""
    if not url.path.endswith("/"):
        return url
    path = url.raw_path.decode("ascii").partition("?")[0] + quote(str(name))
    query = f"?{url.query.decode('ascii')}" if url.query else ""
    return url.copy_with(raw_path=f"{path}{query}".encode("ascii"))
