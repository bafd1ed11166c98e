"""HTTP client for the progress API: send files and watch uploads from Python.

``AsyncProgressClient`` runs on asyncio and trio; ``ProgressClient`` has the same methods for
blocking code. Both need the extra ``client``.
"""

from upload_progress._runtime.optional import require

require("httpx2", extra="client")

from upload_progress.client.async_client import AsyncProgressClient
from upload_progress.client.retry import Retry
from upload_progress.client.sync_client import ProgressClient
from upload_progress.client.upload import Resumption, UploadResult

__all__ = ["AsyncProgressClient", "ProgressClient", "Resumption", "Retry", "UploadResult"]
