"""Serving the web component: JavaScript modules, the same for every user, cached by browsers.

Under its own version (``?v=``) browsers keep it for a year and never ask again. Under any other
name they ask each time whether their copy is current, so that a page never runs an old script.

The main module loads the others when a page needs them, under the version that belongs to it.

The files work without a build. They are served minified, a third smaller: without comments,
indentation and spaces around operators, with short names for the private members, which only
a class itself can use, and for variables whose name has no other meaning in the file. A test
checks with an independent minifier that both are equivalent.
"""

import base64
import gzip
import hashlib
import re
import string
from functools import cache
from importlib.resources import files
from typing import Final

from attrs import field, frozen
from starlette.responses import Response

from upload_progress.starlette.context import RequestContext
from upload_progress.starlette.http import NOT_FOUND, RequestRefused, static_response

__all__ = [
    "MODULES",
    "ComponentScript",
    "component_script",
    "minify",
    "script_integrity",
    "script_version",
]

MODULES: Final = (
    "upload-progress/forms.js",
    "upload-progress/languages.js",
    "upload-progress/panel.js",
)
"""The modules that the main one loads when a page needs them."""

_MAIN: Final = "upload-progress.js"
_YEAR_SECONDS: Final = 365 * 86_400
# Rules of that file: a comment is a JSDoc block or a whole line; a regular expression contains
# no space.
_COMMENT: Final = re.compile(r"/\*\*.*?\*/|^[ ]*//[^\n]*$", re.DOTALL | re.MULTILINE)
_STRING_OR_OPERATOR: Final = re.compile(
    r"""(?P<string>"[^"\n]*"|`[^`]*`)|[ ]?(?P<operator>[=!]==|[?:,;{}()=<>|&]+)[ ]?"""
    r"""|[ ](?P<arithmetic>[-+*/%])[ ]"""
)
_STYLE_SHEET: Final = re.compile(r"(?<=replaceSync\(`)[^`]*")
_STYLE_SPACE: Final = re.compile(r"\s*([{};,])\s*|(?<=:)[ ]")
# After these no semicolon is inserted.
_LINE_END: Final = re.compile(r"([;{,>])\n")
_PRIVATE_MEMBER: Final = re.compile(r"^(?:async |get )*#(\w+)", re.MULTILINE)
_LOCAL_NAME: Final = re.compile(r"\b(?:const|let|function) (\w{3,})[=;(]")
_EXPORTED: Final = re.compile(r"export (?:const|function|class) (\w+)")
_TEXT: Final = re.compile(r"""\"[^"\n]*"|`[^`]*`""")
_WORD: Final = re.compile(r"\w+")
_LETTERS: Final = string.ascii_letters


def minify(source: str) -> str:
    """Return the script *source* without comments, superfluous spaces and long private names."""
    lines = (line.strip() for line in _COMMENT.sub("", source).splitlines())
    text = "\n".join(line for line in lines if line) + "\n"
    script = _shorten_private_names(_STRING_OR_OPERATOR.sub(_without_spaces, text))
    script = _shorten_local_names(script)
    script = _STYLE_SHEET.sub(lambda style: _STYLE_SPACE.sub(r"\1", style[0]), script)
    return _LINE_END.sub(r"\1", script)


def _without_spaces(match: re.Match[str]) -> str:
    """Return a string unchanged, and an operator without the spaces around it."""
    return match["string"] or match["operator"] or match["arithmetic"]


def _shorten_local_names(script: str) -> str:
    texts = " ".join(_TEXT.findall(script))
    words, exported = set(_WORD.findall(texts)), set(_EXPORTED.findall(script))
    number = 0
    for name in dict.fromkeys(_LOCAL_NAME.findall(script)):
        is_property = re.search(rf"[.#]{name}\b|\b{name}:|[{{,]\n?{name}[,}}]", script)
        if name in words or name in exported or is_property:
            continue
        high, low = divmod(number, len(_LETTERS))
        script = re.sub(rf"\b{name}\b", f"${_LETTERS[low]}{high or ''}", script)
        number += 1
    return script


def _shorten_private_names(script: str) -> str:
    names = dict.fromkeys(_PRIVATE_MEMBER.findall(script))
    for number, name in enumerate(names):
        high, low = divmod(number, len(_LETTERS))
        script = re.sub(rf"#{name}\b", f"#{_LETTERS[low]}{high or ''}", script)
    return script


@cache
def component_script(name: str = _MAIN) -> bytes | None:
    """Return a module as it is served; None if the package does not contain it."""
    source = files("upload_progress").joinpath("static", name)
    if not source.is_file():
        return None
    script = minify(source.read_text(encoding="utf-8"))
    for module in MODULES if name == _MAIN else ():
        version = script_version(component_script(module) or b"")
        script = script.replace(f'import("./{module}")', f'import("./{module}?v={version}")')
    return script.encode()


def script_version(script: bytes) -> str:
    """Return the value of ``?v=`` under which browsers keep that script for a year."""
    return hashlib.sha256(script).hexdigest()[:12]


@cache
def _compressed(script: bytes) -> bytes:
    return gzip.compress(script, mtime=0)


def script_integrity(script: bytes) -> str:
    """Return the value of ``integrity="…"`` with which a page loads only that script (W3C SRI)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(script).digest()).decode()}"


@frozen(eq=False, repr=False)
class ComponentScript:
    """Serves a module.

    Attributes:
        content: The minified module; None if the package does not contain it.
    """

    content: bytes | None = field(factory=component_script)

    async def get(self, request: RequestContext) -> Response:
        """``GET /uploads/upload-progress.js``: kept for a year under its own version only."""
        if self.content is None:
            raise RequestRefused(NOT_FOUND)
        is_own_version = request.connection.query.get("v") == script_version(self.content)
        caching = f"max-age={_YEAR_SECONDS}, immutable" if is_own_version else "no-cache"
        return static_response(
            request.connection,
            self.content,
            media_type="text/javascript",
            cache_control=f"public, {caching}",
            compressed=_compressed(self.content),
        )
