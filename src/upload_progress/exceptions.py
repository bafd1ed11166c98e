"""The errors that this library raises.

::

    UploadProgressError
    ├── InvalidValue            (also ValueError)   correct the value named in ``where``
    ├── UploadNotFound          (also LookupError)  no such upload, or of another owner
    ├── UploadEnded                                 it has ended; start another attempt
    ├── NotHandedOver                               answer the request; then resume the upload
    ├── UploadCancelled                             its owner has cancelled it: stop
    ├── QuotaExceeded                               wait ``retry_after_seconds``, or end an upload
    ├── StoreUnavailable                            the session store did not answer in time
    │   └── StoreBusy                               too many requests wait for it; try again later
    ├── SchemaMissing                               run ``upload-progress migrate``
    ├── TrackerInUse                                enter a tracker's lifespan once at a time
    ├── NotEntered                                  enter the backend first: ``async with``
    ├── MiddlewareMissing                           add ``UploadProgressMiddleware``
    ├── ServerUnreachable                           client: check address and network; retry later
    │   └── CertificateInvalid                      client: trust its authority, or fix the server
    ├── ServerBusy                                  client: wait ``retry_after_seconds``
    ├── NotAllowed                                  client: check credentials and permissions
    ├── UploadRejected                              client: the server rejects this upload
    ├── UnexpectedResponse                            client: the address serves something else
    └── MissingExtra            (also ImportError)  run the ``pip install`` command in the message

No error is raised into the code that handles an upload, except by the functions which that code
calls itself (``current_upload``, ``track``). Errors marked "client" are raised by
``upload_progress.client`` only, which also raises those that its server reports.
"""

from typing import ClassVar

__all__ = [
    "CertificateInvalid",
    "InvalidValue",
    "MiddlewareMissing",
    "MissingExtra",
    "NotAllowed",
    "NotEntered",
    "NotHandedOver",
    "QuotaExceeded",
    "SchemaMissing",
    "ServerBusy",
    "ServerUnreachable",
    "StoreBusy",
    "StoreUnavailable",
    "TrackerInUse",
    "UnexpectedResponse",
    "UploadCancelled",
    "UploadEnded",
    "UploadNotFound",
    "UploadProgressError",
    "UploadRejected",
    "WorkerStopping",
]


class UploadProgressError(Exception):
    """The base class of all errors of this library."""


class InvalidValue(UploadProgressError, ValueError):
    """A value from a caller or a client is not valid.

    Attributes:
        where: The path of the value, such as ``body.total_bytes``.
        problem: What is wrong with the value, in one sentence.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class UploadNotFound(UploadProgressError, LookupError):
    """There is no such upload, or it belongs to another owner; the error does not tell which."""

    def __init__(self) -> None:
        super().__init__("There is no such upload.")


class UploadEnded(UploadProgressError):
    """The upload cannot be cancelled: it has ended, or its response is being sent."""

    def __init__(self, state: str) -> None:
        is_answered = state == "processing"
        reason = "its response is being sent" if is_answered else f"it is {state}"
        super().__init__(f"The upload has already ended: {reason}.")
        self.state = state


class NotHandedOver(UploadProgressError):
    """The upload of a token was not handed over: nothing can be resumed."""

    def __init__(self) -> None:
        super().__init__(
            "The upload was not handed over: the endpoint that has called hand_over() has not "
            "answered its request, or a newer upload has its id."
        )


class UploadCancelled(UploadProgressError):
    """The owner cancelled the upload during a ``track()`` block, or while a client sent it."""

    def __init__(self) -> None:
        super().__init__("The upload was cancelled by its owner.")


class QuotaExceeded(UploadProgressError):
    """A limit is reached; see ``Limits``.

    Attributes:
        limit: The name of the limit, a field of ``Limits``.
        allowed: The value of the limit.
        retry_after_seconds: After how many seconds to try again.
    """

    def __init__(self, limit: str, allowed: int, retry_after_seconds: int = 5) -> None:
        super().__init__(f"The limit {limit} is reached: {allowed} are allowed.")
        self.limit = limit
        self.allowed = allowed
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(UploadProgressError):
    """The session store failed, or did not answer within 1 s."""

    message: ClassVar[str] = "The session store is not available; try again in a moment."

    def __init__(self) -> None:
        super().__init__(self.message)


class StoreBusy(StoreUnavailable):
    """Too many requests wait for the session store, which is no failure of it."""

    message = "Too many requests wait for the session store; try again in a few seconds."


class WorkerStopping(StoreUnavailable):
    """The process is about to stop, see ``ProgressTracker.drain``: another one answers."""

    message = "This worker is about to stop; try again in a few seconds."


class SchemaMissing(UploadProgressError):
    """The database has no tables for sessions, or tables of an older release."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"The schema {schema!r} is missing or too old: "
            f"run `upload-progress migrate URL --schema {schema}`."
        )


class TrackerInUse(UploadProgressError):
    """The tracker is running already; ``lifespan`` can be entered once at a time."""

    def __init__(self) -> None:
        super().__init__(
            "This ProgressTracker is running already: enter its lifespan once, at start-up."
        )


class NotEntered(UploadProgressError):
    """A backend was used outside of its ``async with`` block, or of a tracker's lifespan."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is not entered in this process: it needs the lifespan of the tracker "
            "(lifespan=tracker.lifespan), or `async with` around its use"
        )


class MiddlewareMissing(UploadProgressError):
    """``current_upload`` was called for a request that did not pass the middleware."""

    def __init__(self) -> None:
        super().__init__(
            "This request did not pass UploadProgressMiddleware: add it to the application "
            "with Middleware(UploadProgressMiddleware, tracker=…, authenticate=…)."
        )


class ServerUnreachable(UploadProgressError):
    """The server did not respond, or the connection was lost.

    Attributes:
        address: The address, without credentials.
        problem: The error of the network.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address} cannot be reached: {problem}")
        self.address = address
        self.problem = problem


class CertificateInvalid(ServerUnreachable):
    """The server's certificate is not valid or not trusted; trying again does not help."""


class ServerBusy(UploadProgressError):
    """The server responded with 429 or 503, also after retries.

    Attributes:
        retry_after_seconds: After how many seconds to try again.
    """

    def __init__(self, problem: str, retry_after_seconds: float) -> None:
        super().__init__(f"The server is busy: {problem}")
        self.retry_after_seconds = retry_after_seconds


class NotAllowed(UploadProgressError):
    """The server responded with 401 (not authenticated) or 403 (not permitted).

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"The server refused the request ({status}): {problem}")
        self.status = status


class UploadRejected(UploadProgressError):
    """The server or its application rejected the upload; sending it again does not help.

    Attributes:
        status: The HTTP status; None if it is unknown.
        problem: The reason given by the server.
    """

    def __init__(self, status: int | None, problem: str) -> None:
        code = "" if status is None else f" ({status})"
        super().__init__(f"The upload was rejected{code}: {problem}")
        self.status = status
        self.problem = problem


class UnexpectedResponse(UploadProgressError):
    """The response is not that of a progress API or upload server.

    Attributes:
        address: The address, without credentials.
        problem: What is wrong with the response.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address} {problem}")
        self.address = address
        self.problem = problem


class MissingExtra(UploadProgressError, ImportError):
    """An optional dependency is not installed; the message contains the install command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'upload-progress[{extra}]'")
        self.package = package
        self.extra = extra
