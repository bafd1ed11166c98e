"""httpx2, or the line that installs it."""

from upload_progress.errors import MissingExtra

try:
    import httpx2
except ModuleNotFoundError as error:
    if error.name != "httpx2":
        raise
    raise MissingExtra("httpx2", "client") from error

__all__ = ["httpx2"]
