"""Where things are: the mount of the progress routes, an upload's page, the target of a file.

Credentials in a URL are taken out at once, so that no error, repr or log can show them.
"""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

import httpx2
from attrs import field, frozen

from upload_progress._model.models import is_upload_id
from upload_progress.exceptions import InvalidValue

__all__ = [
    "DEFAULT_MOUNT",
    "Address",
    "mount_of",
    "read_url",
    "target_of",
    "upload_in",
]

DEFAULT_MOUNT: Final = "/uploads"


@frozen
class Address:
    """A URL without its credentials, and these apart.

    Attributes:
        url: What may be shown.
        basic: User and password that stood in it.
    """

    url: httpx2.URL
    basic: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The URL, for people."""
        return str(self.url)


def read_url(text: str, where: str = "url") -> Address:
    """Read a URL.

    Raises:
        InvalidValue: It is none with ``http`` or ``https`` and a host.
    """
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise InvalidValue(where, f"is no URL: {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidValue(where, "must begin with http:// or https:// and name a host")
    basic = (url.username, url.password) if url.username or url.password else None
    bare = url.copy_with(username=None, password=None, fragment=None)
    return Address(bare, basic)


def mount_of(url: httpx2.URL) -> httpx2.URL:
    """Return where the progress routes are mounted: that URL, or of a bare server ``/uploads``.

    What an upload's own links say (``…/uploads/ID/progress``) leads there as well.
    """
    path = url.path.rstrip("/")
    upload_id = upload_in(url)
    if upload_id is not None:
        path = path.removesuffix(f"/{upload_id}/progress")
    else:
        path = path.removesuffix("/progress")
    return url.copy_with(path=path or DEFAULT_MOUNT, query=None)


def upload_in(url: httpx2.URL) -> str | None:
    """Return the upload id in the link of an upload; None where it is none."""
    match url.path.rstrip("/").split("/"):
        case [_, *_, _, upload_id, "progress"] if is_upload_id(upload_id):
            return upload_id
        case _:
            return None


def target_of(url: httpx2.URL, name: PurePosixPath) -> httpx2.URL:
    """Return where a file of that *name* goes: below a URL with ``/`` at its end, else to it."""
    if not url.path.endswith("/"):
        return url
    path = url.raw_path.decode("ascii").partition("?")[0] + quote(str(name))
    query = f"?{url.query.decode('ascii')}" if url.query else ""
    return url.copy_with(raw_path=f"{path}{query}".encode("ascii"))
