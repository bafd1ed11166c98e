"""A file as a field of a form (RFC 7578), which is sent without a copy of it in memory."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from attrs import field, frozen

__all__ = ["FormFile"]


@frozen
class FormFile:
    """The form around one file.

    >>> form = FormFile("file", "a b.bin", "image/png", "x1")
    >>> form.headers(10)
    {'content-type': 'multipart/form-data; boundary=x1', 'content-length': '118'}

    Attributes:
        name: Name of the field.
        filename: Name of the file.
        content_type: Media type of the file.
        boundary: Separates the parts of the form; it must not be in the file.
    """

    name: str
    filename: str
    content_type: str
    boundary: str = field(factory=lambda: secrets.token_hex(16))

    @property
    def _begin(self) -> bytes:
        # As browsers do: only quotes and line breaks are escaped (RFC 7578, section 4.2).
        name, filename = (_escaped(text) for text in (self.name, self.filename))
        return (
            f"--{self.boundary}\r\n"
            f'content-disposition: form-data; name="{name}"; filename="{filename}"\r\n'
            f"content-type: {self.content_type}\r\n\r\n"
        ).encode()

    @property
    def _end(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()

    def headers(self, size_bytes: int | None) -> dict[str, str]:
        """Return the headers of the request with a file of that size; None if it is not known."""
        headers = {"content-type": f"multipart/form-data; boundary={self.boundary}"}
        if size_bytes is not None:
            size = len(self._begin) + size_bytes + len(self._end)
            headers["content-length"] = str(size)
        return headers

    async def wrap(self, content: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """Yield the form with the file's *content* in it."""
        yield self._begin
        async with aclosing(content) as chunks:
            async for chunk in chunks:
                yield chunk
        yield self._end


def _escaped(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
