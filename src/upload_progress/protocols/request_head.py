"""Reader of what a request announces about its upload: id, group, size, file name and type.

The id comes from the header ``Upload-Id``, else the query parameter ``upload_id``, else nginx's
``X-Progress-ID`` as header or query parameter. Only the first of these that is present is used: an
invalid value is not replaced by the next one, so that all parties agree on whose value counts. In
an address with ``uploadType=resumable``, ``upload_id`` is the session of Google's protocol. The
size is the ``Content-Length``: for an encoded body that of the encoded bytes, for a form
including its envelope. No function here raises on any head, or reads a body. The search for a file
name in a form is bounded, and reads the header of a part only (RFC 7578, section 4.2).
"""

import re
from collections.abc import Mapping
from email.message import Message
from typing import Final

from attrs import frozen

from upload_progress._model.models import truncate_text
from upload_progress.connection import Connection
from upload_progress.protocols.base import content_length

__all__ = [
    "FORM_PREFIX_BYTES",
    "MAX_GROUP_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "RequestHead",
    "filename_of",
    "form_filename",
    "media_type_of",
    "read_request_head",
    "search_form",
]

FORM_PREFIX_BYTES: Final = 4096
"""How much of a form is searched for a file name, in bytes."""
MAX_GROUP_CHARACTERS: Final = 128
MAX_NAME_CHARACTERS: Final = 255

# The parser of the standard library needs time that grows with the product of the two.
_MAX_DISPOSITION_CHARACTERS: Final = 4096
_MAX_DISPOSITION_PARAMETERS: Final = 32
_PART_DISPOSITION: Final = re.compile(
    rb"^content-disposition:[ \t]*(form-data[ \t]*;[^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_FILENAME_PARAMETER: Final = re.compile(rb";[ \t]*filename\*?[0-9]*\*?[ \t]*=", re.IGNORECASE)
_NAMES: Final = frozenset({b"upload-id", b"x-progress-id", b"upload-group", b"content-disposition"})
"""Headers that name the upload, its group or its file."""
_PROXY_HEADERS: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})


@frozen(slots=False)
class RequestHead:
    """What the head of a request announces about its upload.

    Attributes:
        requested_id: Id that the client asks for, not validated. None if it asks for none.
        group: Name of a group. None if missing or invalid.
        total_bytes: Size of the body, in bytes. None if not announced.
        filename: File name from ``Content-Disposition``, or the last segment of the path of a
            ``PUT``. None if there is none.
        has_path_name: Whether the file name is only a segment of the path.
        content_type: Media type without parameters. None if missing.
        is_form: Whether the body is a multipart form, which may contain the file name.
        is_proxied: Whether the request has passed a proxy that adds headers.
    """

    requested_id: str | None = None
    group: str | None = None
    total_bytes: int | None = None
    filename: str | None = None
    has_path_name: bool = False
    content_type: str | None = None
    is_form: bool = False
    is_proxied: bool = False


def read_request_head(connection: Connection) -> RequestHead:
    """Read the head of a request.

    >>> headers = [(b"upload-id", b"one"), (b"content-length", b"3")]
    >>> scope = {"type": "http", "method": "PUT", "path": "/files/a.txt", "headers": headers}
    >>> head = read_request_head(Connection(scope))
    >>> (head.requested_id, head.total_bytes, head.filename)
    ('one', 3, 'a.txt')

    Args:
        connection: Head of the request.
    """
    names = connection.header_names
    content_type = media_type_of(connection) if b"content-type" in names else None
    total = content_length(connection) if b"transfer-encoding" not in names else None
    announced_name = requested_id = group = None
    if connection.scope.get("query_string") or not _NAMES.isdisjoint(names):
        query = connection.query
        announced_name = _announced_filename(connection)
        requested_id = _requested_id(connection, query)
        group = _group(_first_of(connection.header("upload-group"), query.get("upload_group")))
    path_name = None if announced_name else _path_filename(connection)
    return RequestHead(
        requested_id=requested_id,
        group=group,
        total_bytes=total,
        filename=announced_name or path_name,
        has_path_name=path_name is not None,
        content_type=content_type,
        is_form=content_type == "multipart/form-data",
        is_proxied=not _PROXY_HEADERS.isdisjoint(names),
    )


def _requested_id(connection: Connection, query: Mapping[str, str]) -> str | None:
    return _first_of(
        connection.header("upload-id"),
        None if query.get("uploadType") == "resumable" else query.get("upload_id"),
        connection.header("x-progress-id"),
        query.get("X-Progress-ID"),
    )


def media_type_of(connection: Connection) -> str | None:
    """Return the media type of a body, without parameters; None if it is not announced.

    >>> headers = [(b"content-type", b"text/plain; charset=utf-8")]
    >>> media_type_of(Connection({"type": "http", "headers": headers}))
    'text/plain'
    """
    text = (connection.header("content-type") or "").partition(";")[0].strip().lower()
    return truncate_text(text, MAX_NAME_CHARACTERS) or None


def form_filename(start: bytes) -> str | None:
    """Return the file name from the header of a form's first file; None if it is not in *start*.

    Other fields of the form, whatever their names, name no file.

    >>> form_filename(b'Content-Disposition: form-data; name="file"; filename="a.txt"')
    'a.txt'

    Args:
        start: First bytes of the body; at most ``FORM_PREFIX_BYTES`` are searched.
    """
    return search_form(start[:FORM_PREFIX_BYTES], 0, is_whole=True)[0]


def search_form(start: bytes, position: int, *, is_whole: bool) -> tuple[str | None, int]:
    """Search the headers of a form's parts for a file name; each header is read once.

    Args:
        start: First bytes of the body, as far as they are known.
        position: Where to begin: the position that the call before returned.
        is_whole: Whether no more bytes will be searched.

    Returns:
        The file name, or None; and the position behind the last complete header.
    """
    while position < len(start):
        end = start.find(b"\r\n\r\n", position)
        if end < 0 and not is_whole:
            break
        header = start[position : end if end >= 0 else len(start)]
        position = end + 4 if end >= 0 else len(start)
        name = _part_filename(header)
        if name is not None:
            return name, position
    return None, position


def _part_filename(header: bytes) -> str | None:
    """Return the file name in the header of a part, which may follow the body of another one."""
    header = header[header.rfind(b"\n--") + 1 :]
    found = _PART_DISPOSITION.search(header)
    if found is None or _FILENAME_PARAMETER.search(found[1]) is None:
        return None
    return _disposition_filename(found[1].decode("utf-8", "replace"))


def _first_of(*values: str | None) -> str | None:
    for value in values:
        if value is not None:
            return value
    return None


def _group(text: str | None) -> str | None:
    acceptable = text and len(text) <= MAX_GROUP_CHARACTERS and text.isprintable()
    return text if acceptable else None


def filename_of(connection: Connection) -> str | None:
    """Return the name in ``Content-Disposition``, else the last segment of the path of a ``PUT``.

    >>> filename_of(Connection({"type": "http", "method": "PUT", "path": "/files/a.txt"}))
    'a.txt'
    """
    return _announced_filename(connection) or _path_filename(connection)


def _announced_filename(connection: Connection) -> str | None:
    disposition = connection.header("content-disposition")
    if disposition is None:
        return None
    return _disposition_filename(disposition.encode("latin-1").decode("utf-8", "replace"))


def _path_filename(connection: Connection) -> str | None:
    return _basename(connection.path.rstrip("/")) if connection.method == "PUT" else None


def _disposition_filename(value: str) -> str | None:
    if len(value) > _MAX_DISPOSITION_CHARACTERS or value.count(";") > _MAX_DISPOSITION_PARAMETERS:
        return None
    message = Message()
    message["content-disposition"] = value
    try:
        name = message.get_filename()
    except (LookupError, ValueError, TypeError):
        return None
    return _basename(name) if name else None


def _basename(path: str) -> str | None:
    return truncate_text(path.replace("\\", "/").rpartition("/")[2], MAX_NAME_CHARACTERS) or None
