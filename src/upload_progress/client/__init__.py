"""HTTP client for the progress API: send files and watch uploads from Python.

``AsyncProgressClient`` runs on asyncio and trio; ``ProgressClient`` has the same methods for
blocking code. Both need the extra ``client``.
"""

from typing import TYPE_CHECKING

from upload_progress._runtime.optional import require

require("httpx2", extra="client")

from upload_progress.client.async_client import AsyncProgressClient
from upload_progress.client.retry import Retry
from upload_progress.client.upload import Resumption, UploadResult

if TYPE_CHECKING:
    from upload_progress.client.sync_client import ProgressClient
else:

    def __getattr__(name: str) -> object:
        """Import the blocking client when it is first used: the command line does not need it."""
        if name != "ProgressClient":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from upload_progress.client.sync_client import ProgressClient  # noqa: PLC0415  # see above

        globals()[name] = ProgressClient
        return ProgressClient


__all__ = ["AsyncProgressClient", "ProgressClient", "Resumption", "Retry", "UploadResult"]
