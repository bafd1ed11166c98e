"""httpx2, or the line that installs it."""

from importlib import import_module

from upload_progress.errors import MissingExtra


def _require() -> None:
    try:
        import_module("httpx2")
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        raise MissingExtra("httpx2", "client") from error


_require()

import httpx2  # noqa: E402  # it is there

__all__ = ["httpx2"]
