"""One request is one upload: any PUT, POST or PATCH with a body (RFC 9110, section 9.3).

The id comes from ``Upload-Id``, else ``?upload_id=``, else nginx's ``X-Progress-ID`` as header
or query. The first of these that is there speaks, and nobody after it: a bad id is not
replaced by the next best, or two parties could disagree about whose it is. The total is the
``Content-Length`` of the wire: of an encoded body the encoded bytes, of a form its envelope
too. Nothing here can raise on any head, and nothing here reads a body; the one look into a
form's first bytes is bounded, and looks at a part's header only (RFC 7578, section 4.2).
"""

import re
from email.message import Message
from typing import Final

from attrs import frozen

from upload_progress._model.models import bounded_text
from upload_progress.connection import Connection

__all__ = [
    "RequestHead",
    "MAX_GROUP_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "MULTIPART_LOOK_BYTES",
    "multipart_filename",
    "read_request_head",
]

MULTIPART_LOOK_BYTES: Final = 4096
MAX_GROUP_CHARACTERS: Final = 128
MAX_NAME_CHARACTERS: Final = 255

_CONTENT_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_PART_DISPOSITION: Final = re.compile(
    rb"^content-disposition:[ \t]*(form-data;[^\r\n]{0,1024}filename[^\r\n]{0,1024})\r?$",
    re.IGNORECASE | re.MULTILINE,
)
_PROXY_HEADERS: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


@frozen
class RequestHead:
    """What the head of a request says about the upload it carries.

    Attributes:
        claimed_id: The id that the client wants, unchecked; None where it names none.
        group: A group, if it names an acceptable one.
        total_bytes: The announced length of the body; None when it is not announced.
        filename: From ``Content-Disposition``, or the last segment of a PUT's path.
        content_type: As announced, without its parameters.
        is_form: Whether the body is a multipart form, whose first part may name the file.
        is_proxied: Whether a proxy has left its mark in the head.
    """

    claimed_id: str | None
    group: str | None
    total_bytes: int | None
    filename: str | None
    content_type: str | None
    is_form: bool
    is_proxied: bool


def read_request_head(connection: Connection) -> RequestHead:
    """Read what *connection* says of itself."""
    query = connection.query if connection.scope.get("query_string") else {}
    content_type = (connection.header("content-type") or "").partition(";")[0].strip().lower()
    return RequestHead(
        claimed_id=_first_of(
            connection.header("upload-id"),
            query.get("upload_id"),
            connection.header("x-progress-id"),
            query.get("X-Progress-ID"),
        ),
        group=_group(_first_of(connection.header("upload-group"), query.get("upload_group"))),
        total_bytes=_content_length(connection),
        filename=_filename(connection),
        content_type=bounded_text(content_type, MAX_NAME_CHARACTERS) or None,
        is_form=content_type == "multipart/form-data",
        is_proxied=any(connection.header(name) is not None for name in _PROXY_HEADERS),
    )


def multipart_filename(start: bytes) -> str | None:
    """Return the file name in the first file part's header, if it is within *start*.

    Args:
        start: The first bytes of the body; no more than ``MULTIPART_LOOK_BYTES`` are looked at.
    """
    found = _PART_DISPOSITION.search(start[:MULTIPART_LOOK_BYTES])
    return _disposition_filename(found[1].decode("utf-8", "replace")) if found else None


def _first_of(*values: str | None) -> str | None:
    return next((value for value in values if value is not None), None)


def _group(text: str | None) -> str | None:
    acceptable = text and len(text) <= MAX_GROUP_CHARACTERS and text.isprintable()
    return text if acceptable else None


def _content_length(connection: Connection) -> int | None:
    if connection.header("transfer-encoding") is not None:
        return None
    text = connection.header("content-length") or ""
    return int(text) if _CONTENT_LENGTH.fullmatch(text) else None


def _filename(connection: Connection) -> str | None:
    disposition = connection.header("content-disposition")
    if disposition is not None:
        name = _disposition_filename(disposition.encode("latin-1").decode("utf-8", "replace"))
        if name:
            return name
    if connection.method != "PUT":
        return None
    return _basename(connection.path.rstrip("/"))


def _disposition_filename(value: str) -> str | None:
    message = Message()
    message["content-disposition"] = value
    try:
        name = message.get_filename()
    except (LookupError, ValueError, TypeError):
        return None
    return _basename(name) if name else None


def _basename(path: str) -> str | None:
    return bounded_text(re.split(r"[/\\]", path)[-1], MAX_NAME_CHARACTERS) or None
