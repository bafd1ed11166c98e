"""What a response to a part of a file confirms: how many bytes of the file the server has."""

import re
from http import HTTPStatus
from typing import Final

import httpx2

__all__ = ["confirmed_offset"]

_RANGE: Final = re.compile(
    r"\s*(?:bytes\s*[=: ]\s*)?0*0\s*-\s*([0-9]{1,18})\s*", re.ASCII | re.IGNORECASE
)
_OFFSET: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def confirmed_offset(response: httpx2.Response) -> int | None:
    """Return the offset of the first byte that the server does not have; None if it names none.

    A server names it with ``Upload-Offset``, or by answering 308 with ``Range: bytes=0-N``.

    >>> confirmed_offset(httpx2.Response(308, headers={"range": "bytes=0-41"}))
    42
    >>> confirmed_offset(httpx2.Response(204, headers={"upload-offset": "42"}))
    42
    >>> confirmed_offset(httpx2.Response(201))
    """
    is_answered = response.is_success or response.status_code == HTTPStatus.PERMANENT_REDIRECT
    offset = response.headers.get("upload-offset", "")
    if is_answered and _OFFSET.fullmatch(offset):
        return int(offset)
    received = _RANGE.fullmatch(response.headers.get("range", ""))
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT and received:
        return int(received[1]) + 1
    return None
