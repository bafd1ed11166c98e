"""HTTP client for the progress API: send files and watch uploads from Python.

``AsyncProgressClient`` runs on asyncio and trio; ``ProgressClient`` has the same methods for
blocking code. Both need the extra ``client``.
"""

from upload_progress._runtime.optional import require

require("httpx2", extra="client")

from upload_progress.client.async_client import AsyncProgressClient
from upload_progress.client.sync_client import ProgressClient
from upload_progress.client.upload import UploadResult

__all__ = ["AsyncProgressClient", "ProgressClient", "UploadResult"]
