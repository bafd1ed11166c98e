"""Serving the web component: JavaScript modules, the same for every user, cached by browsers.

Under its own version (``?v=``) browsers keep it for a year and never ask again. Under any other
name they ask each time whether their copy is current, so that a page never runs an old script.

The main module loads the others when a page needs them, under the version that belongs to it.

The files in ``static/`` work without a build. Served are those in ``static/served/``, which esbuild
has made from them, each also compressed by Brotli (``nox -s minify``); a test compares them.
"""

import base64
import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from attrs import frozen
from starlette.responses import Response

from upload_progress.starlette.context import RequestContext
from upload_progress.starlette.http import NOT_FOUND, RequestRefused, static_response

__all__ = [
    "MODULES",
    "ComponentScript",
    "component_script",
    "compressed_scripts",
    "script_integrity",
    "script_version",
]

MODULES: Final = (
    "upload-progress/forms.js",
    "upload-progress/languages.js",
    "upload-progress/panel.js",
    "upload-progress/parts.js",
    "upload-progress/streams.js",
)
"""The modules that the main one loads when a page needs them."""

_MAIN: Final = "upload-progress.js"
_YEAR_SECONDS: Final = 365 * 86_400


@cache
def component_script(name: str = _MAIN) -> bytes | None:
    """Return a module as it is served; None if the package does not contain it."""
    file = files("upload_progress").joinpath("static", "served", name)
    return file.read_bytes() if file.is_file() else None


@cache
def compressed_scripts(name: str = _MAIN) -> Mapping[str, bytes]:
    """Return a module by content coding, the smallest first; empty if there is no such module."""
    script, brotli = component_script(name), component_script(f"{name}.br")
    if script is None or brotli is None:
        return {}
    return {"br": brotli, "gzip": gzip.compress(script, mtime=0)}


def script_version(script: bytes) -> str:
    """Return the value of ``?v=`` under which browsers keep that script for a year."""
    return hashlib.sha256(script).hexdigest()[:12]


def script_integrity(script: bytes) -> str:
    """Return the value of ``integrity="…"`` with which a page loads only that script (W3C SRI)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(script).digest()).decode()}"


@frozen(eq=False, repr=False)
class ComponentScript:
    """Serves a module.

    Attributes:
        name: Name of the module.
    """

    name: str = _MAIN

    async def get(self, request: RequestContext) -> Response:
        """``GET /uploads/upload-progress.js``: kept for a year under its own version only."""
        content = component_script(self.name)
        if content is None:
            raise RequestRefused(NOT_FOUND)
        is_own_version = request.connection.query.get("v") == script_version(content)
        caching = f"max-age={_YEAR_SECONDS}, immutable" if is_own_version else "no-cache"
        return static_response(
            request.connection,
            content,
            media_type="text/javascript",
            cache_control=f"public, {caching}",
            compressed=compressed_scripts(self.name),
        )
