"""Serving the Web Component: one file, the same for everybody, kept by browsers.

The file works as it is. What is served is without what is for those who read it, and a third of
what would be sent: comments, indentation, spaces around signs, and the long names of private
members, which only a class itself can use. A test lets a real minifier find both to be the same.
"""

import base64
import hashlib
import re
import string
from functools import cache
from importlib.resources import files
from typing import Final

from attrs import field, frozen
from starlette.responses import Response

from upload_progress.starlette.context import RequestContext
from upload_progress.starlette.http import NOT_FOUND, Condition, Refused

__all__ = [
    "Script",
    "component",
    "integrity",
    "lean",
]

_DAY_SECONDS: Final = 86_400
_YEAR_SECONDS: Final = 365 * _DAY_SECONDS
# House rules of that file: a comment is a JSDoc block, or has its line for itself; a regular
# expression holds no space.
_COMMENT: Final = re.compile(r"/\*\*.*?\*/|^[ ]*//[^\n]*$", re.DOTALL | re.MULTILINE)
_TEXT_OR_SIGN: Final = re.compile(
    r"""(?P<text>"[^"\n]*"|`[^`]*`)|[ ]?(?P<sign>[=!]==|[?:,;{}()=<>|&]+)[ ]?"""
    r"""|[ ](?P<sum>[-+*/%])[ ]"""
)
_PRIVATE: Final = re.compile(r"^(?:async |get )*#(\w+)", re.MULTILINE)
_LETTERS: Final = string.ascii_letters


def lean(source: str) -> str:
    """Return the script *source* without all that it does not need to work."""
    lines = (line.strip() for line in _COMMENT.sub("", source).splitlines())
    text = "\n".join(line for line in lines if line) + "\n"
    return _with_short_names(_TEXT_OR_SIGN.sub(_tight, text))


def _tight(found: re.Match[str]) -> str:
    """Return a text as it is, and a sign without the spaces around it."""
    return found["text"] or found["sign"] or found["sum"]


def _with_short_names(script: str) -> str:
    """Return *script* with a letter or two for each private member's name."""
    names = dict.fromkeys(_PRIVATE.findall(script))
    for number, name in enumerate(names):
        high, low = divmod(number, len(_LETTERS))
        script = re.sub(rf"#{name}\b", f"#{_LETTERS[low]}{high or ''}", script)
    return script


@cache
def component() -> bytes | None:
    """Return the script as it is served; None from a package that has none."""
    source = files("upload_progress") / "static" / "upload-progress.js"
    return lean(source.read_text(encoding="utf-8")).encode() if source.is_file() else None


def integrity(script: bytes) -> str:
    """Return what a page says in ``integrity="…"`` to run that script only (W3C SRI)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(script).digest()).decode()}"


@frozen(eq=False, repr=False)
class Script:
    """The file, read once."""

    content: bytes | None = field(factory=component, repr=False)

    async def get(self, exchange: RequestContext) -> Response:
        """``GET /uploads/upload-progress.js``: for a day, with ``?v=`` for good."""
        if self.content is None:
            raise Refused(NOT_FOUND)
        tag = hashlib.sha256(self.content).hexdigest()[:32]
        age = f"max-age={_DAY_SECONDS}"
        if "v" in exchange.connection.query:
            age = f"max-age={_YEAR_SECONDS}, immutable"
        headers = {
            "cache-control": f"public, {age}",
            "etag": f'"{tag}"',
            "x-content-type-options": "nosniff",
        }
        if tag in Condition.of(exchange.connection).tags:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type="text/javascript")
