"""Everything this library raises on purpose.

::

    UploadProgressError
    ├── InvalidValue            (also ValueError)   mend the value named in ``where``
    ├── UploadNotFound          (also LookupError)  not there, or not yours: the same
    ├── UploadEnded                                 it has ended; start another attempt
    ├── UploadCancelled                             out of ``track()``: its owner cancels
    ├── QuotaExceeded                               wait ``retry_after_seconds``, or end something
    ├── StoreUnavailable                            the session store did not answer in time
    ├── TrackerInUse                                a tracker is entered once at a time
    ├── MiddlewareMissing                           add ``UploadProgressMiddleware``
    └── MissingExtra            (also ImportError)  run the ``pip install`` line in the message

Nothing here is ever raised into the code that handles an upload, except by the
functions which that code calls itself (``current_upload``, ``track``).
"""

__all__ = [
    "InvalidValue",
    "MiddlewareMissing",
    "MissingExtra",
    "QuotaExceeded",
    "StoreUnavailable",
    "TrackerInUse",
    "UploadCancelled",
    "UploadEnded",
    "UploadNotFound",
    "UploadProgressError",
]


class UploadProgressError(Exception):
    """The root of all errors raised by this library."""


class InvalidValue(UploadProgressError, ValueError):
    """A value from outside is malformed.

    Attributes:
        where: Which value it was, as a path such as ``body.total_bytes``.
        problem: What is wrong with it, in one sentence.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class UploadNotFound(UploadProgressError, LookupError):
    """There is no such upload, or it is somebody else's; nothing tells which."""

    def __init__(self) -> None:
        super().__init__("There is no such upload.")


class UploadEnded(UploadProgressError):
    """The upload has already ended, so it cannot be cancelled any more."""

    def __init__(self, state: str) -> None:
        super().__init__(f"The upload has already ended: it is {state}.")
        self.state = state


class UploadCancelled(UploadProgressError):
    """The owner cancelled the upload while ``ProgressTracker.track()`` ran its body."""

    def __init__(self) -> None:
        super().__init__("The upload was cancelled by its owner.")


class QuotaExceeded(UploadProgressError):
    """A limit is reached (see ``Limits``).

    Attributes:
        limit: The name of the limit, a field of ``Limits``.
        retry_after_seconds: When it may be worth trying again.
    """

    def __init__(self, limit: str, allowed: int, retry_after_seconds: int = 5) -> None:
        super().__init__(f"The limit {limit} is reached: {allowed} are allowed.")
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(UploadProgressError):
    """The session store failed, or did not answer within its time limit."""

    def __init__(self) -> None:
        super().__init__("The session store is not available; try again in a moment.")


class TrackerInUse(UploadProgressError):
    """The tracker is already running; ``lifespan`` is entered once at a time."""

    def __init__(self) -> None:
        super().__init__("This ProgressTracker is already entered; enter it once, at start-up.")


class MiddlewareMissing(UploadProgressError):
    """``current_upload`` was called for a request that did not pass the middleware."""

    def __init__(self) -> None:
        super().__init__(
            "This request did not pass UploadProgressMiddleware: add it to the application "
            "with Middleware(UploadProgressMiddleware, tracker=…, authenticate=…)."
        )


class MissingExtra(UploadProgressError, ImportError):
    """An optional dependency is not installed; the message holds the line that mends it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'upload-progress[{extra}]'")
        self.package = package
        self.extra = extra
