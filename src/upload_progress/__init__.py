"""Upload progress for ASGI applications, measured at the server.

``ProgressTracker`` tracks uploads; ``upload_progress.asgi`` contains the middleware that counts
bytes, and ``upload_progress.starlette`` the routes that report them::

    tracker = ProgressTracker()
    async with tracker.track(owner="alice", total_bytes=3, filename="abc") as upload:
        upload.advance(3)
    snapshot = await tracker.get(upload.upload_id, owner="alice")

A name is imported when it is first used, so that a part of the package, such as the command line or
the client, does not load the whole.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from upload_progress._model.cloudevents import CloudEvent
    from upload_progress._model.codec import encode_json
    from upload_progress._model.models import (
        Arrival,
        ErrorCode,
        HandOver,
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
    from upload_progress._reporting.statistics import Readiness, Statistics
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
        NotHandedOver,
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
        WorkerStopping,
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
    from upload_progress.tracker import ProgressTracker
    from upload_progress.upload import Upload

    __version__: str

else:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name == "__version__":
            # It takes half of the start-up time of the command line.
            from importlib.metadata import version  # noqa: PLC0415  # seldom needed

            value = version("upload-progress")
        elif name in _MODULES:
            value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Return the public names also before they are used, for completion."""
        return sorted({*globals(), *__all__})


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
    "HandOver",
    "Identity",
    "InvalidValue",
    "Limits",
    "Links",
    "MemoryStore",
    "MiddlewareMissing",
    "MissingExtra",
    "NotAllowed",
    "NotEntered",
    "NotHandedOver",
    "Parts",
    "ProgressTracker",
    "QuotaExceeded",
    "Readiness",
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
    "WorkerStopping",
    "__version__",
    "encode_json",
]

# The module that defines each public name.
_MODULES: Final = {
    "Arrival": "_model.models",
    "ByTotal": "throttling",
    "CertificateInvalid": "exceptions",
    "CloudEvent": "_model.cloudevents",
    "Connection": "connection",
    "ErrorCode": "_model.models",
    "EveryBytes": "throttling",
    "EveryInterval": "throttling",
    "EveryPercent": "throttling",
    "Gate": "throttling",
    "HandOver": "_model.models",
    "Identity": "identity",
    "InvalidValue": "exceptions",
    "Limits": "config",
    "Links": "_model.models",
    "MemoryStore": "backends.memory",
    "MiddlewareMissing": "exceptions",
    "MissingExtra": "exceptions",
    "NotAllowed": "exceptions",
    "NotEntered": "exceptions",
    "NotHandedOver": "exceptions",
    "Parts": "_model.models",
    "ProgressTracker": "tracker",
    "QuotaExceeded": "exceptions",
    "Readiness": "_reporting.statistics",
    "Retention": "config",
    "SchemaMissing": "exceptions",
    "ServerBusy": "exceptions",
    "ServerUnreachable": "exceptions",
    "Stage": "_model.models",
    "StageHandle": "_tracking.stage",
    "Statistics": "_reporting.statistics",
    "StoreBusy": "exceptions",
    "StoreUnavailable": "exceptions",
    "ThrottlePolicy": "throttling",
    "TrackerConfig": "config",
    "TrackerInUse": "exceptions",
    "TransferRecord": "_model.models",
    "UnexpectedResponse": "exceptions",
    "Upload": "upload",
    "UploadCancelled": "exceptions",
    "UploadEnded": "exceptions",
    "UploadError": "_model.models",
    "UploadKey": "_model.models",
    "UploadNotFound": "exceptions",
    "UploadPage": "_model.models",
    "UploadProgress": "_model.models",
    "UploadProgressError": "exceptions",
    "UploadRejected": "exceptions",
    "WorkerStopping": "exceptions",
    "UploadState": "_model.models",
    "UploadTotal": "_model.models",
    "encode_json": "_model.codec",
}
