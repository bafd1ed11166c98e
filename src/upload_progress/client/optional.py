"""httpx2, or the line that installs it."""

from importlib import import_module

import httpx2

from upload_progress.exceptions import MissingExtra

__all__ = [
    "httpx2",
]


def _require() -> None:
    try:
        import_module("httpx2")
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        raise MissingExtra("httpx2", "client") from error


_require()
