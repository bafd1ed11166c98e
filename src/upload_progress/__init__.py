"""Upload progress for ASGI applications, measured at the server.

``ProgressTracker`` tracks uploads; ``upload_progress.asgi`` contains the middleware that counts
bytes, and ``upload_progress.starlette`` the routes that report them::

    tracker = ProgressTracker()
    async with tracker.track(owner="alice", total_bytes=3, filename="abc") as upload:
        upload.advance(3)
    snapshot = await tracker.get(upload.upload_id, owner="alice")
"""

from importlib.metadata import version

from upload_progress._model.cloudevents import CloudEvent
from upload_progress._model.codec import encode_json
from upload_progress._model.models import (
    Arrival,
    ErrorCode,
    Links,
    Parts,
    Stage,
    TransferRecord,
    UploadError,
    UploadKey,
    UploadPage,
    UploadProgress,
    UploadState,
    UploadTotal,
)
from upload_progress._tracking.stage import StageHandle
from upload_progress.backends.memory import MemoryStore
from upload_progress.config import Limits, Retention, TrackerConfig
from upload_progress.connection import Connection
from upload_progress.exceptions import (
    CertificateInvalid,
    InvalidValue,
    MiddlewareMissing,
    MissingExtra,
    NotAllowed,
    NotEntered,
    QuotaExceeded,
    SchemaMissing,
    ServerBusy,
    ServerUnreachable,
    StoreBusy,
    StoreUnavailable,
    TrackerInUse,
    UnexpectedResponse,
    UploadCancelled,
    UploadEnded,
    UploadNotFound,
    UploadProgressError,
    UploadRejected,
)
from upload_progress.identity import Identity
from upload_progress.throttling import (
    ByTotal,
    EveryBytes,
    EveryInterval,
    EveryPercent,
    Gate,
    ThrottlePolicy,
)
from upload_progress.tracker import ProgressTracker, Statistics
from upload_progress.upload import Upload

__version__ = version("upload-progress")

__all__ = [
    "Arrival",
    "ByTotal",
    "CertificateInvalid",
    "CloudEvent",
    "Connection",
    "ErrorCode",
    "EveryBytes",
    "EveryInterval",
    "EveryPercent",
    "Gate",
    "Identity",
    "InvalidValue",
    "Limits",
    "Links",
    "MemoryStore",
    "MiddlewareMissing",
    "MissingExtra",
    "NotAllowed",
    "NotEntered",
    "Parts",
    "ProgressTracker",
    "QuotaExceeded",
    "Retention",
    "SchemaMissing",
    "ServerBusy",
    "ServerUnreachable",
    "Stage",
    "StageHandle",
    "Statistics",
    "StoreBusy",
    "StoreUnavailable",
    "ThrottlePolicy",
    "TrackerConfig",
    "TrackerInUse",
    "TransferRecord",
    "UnexpectedResponse",
    "Upload",
    "UploadCancelled",
    "UploadEnded",
    "UploadError",
    "UploadKey",
    "UploadNotFound",
    "UploadPage",
    "UploadProgress",
    "UploadProgressError",
    "UploadRejected",
    "UploadState",
    "UploadTotal",
    "__version__",
    "encode_json",
]
