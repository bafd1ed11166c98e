"""Push servers that hold the connections of watchers, in place of this process.

``GripProxy`` is for Pushpin, or another proxy of the GRIP protocol; ``Centrifugo`` is for the
server of that name. They need the extra ``edge``.
"""

from upload_progress._runtime.optional import require

for _package in ("httpx2", "jwt"):
    require(_package, extra="edge")

from upload_progress.edge.centrifugo import Centrifugo
from upload_progress.edge.grip import GripProxy

__all__ = ["Centrifugo", "GripProxy"]
