"""Send uploads, and follow them, from Python: the client of what ``progress_routes`` answers.

``AsyncProgressClient`` runs on asyncio and trio; ``ProgressClient`` is the same for code that
blocks. The extra ``client`` holds what they need.
"""

from upload_progress._runtime.optional import require

require("httpx2", extra="client")

from upload_progress.client.async_client import AsyncProgressClient
from upload_progress.client.sync_client import ProgressClient
from upload_progress.client.upload import Sent

__all__ = ["AsyncProgressClient", "ProgressClient", "Sent"]
