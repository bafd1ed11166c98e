"""Everything this library raises on purpose.

::

    UploadProgressError
    ├── InvalidValue            (also ValueError)   mend the value named in ``where``
    ├── UploadNotFound          (also LookupError)  not there, or not yours: the same
    ├── UploadEnded                                 it has ended; start another attempt
    ├── UploadCancelled                             its owner has cancelled it: stop
    ├── QuotaExceeded                               wait ``retry_after_seconds``, or end something
    ├── StoreUnavailable                            the session store did not answer in time
    ├── SchemaMissing                               run ``upload-progress migrate``
    ├── TrackerInUse                                a tracker is entered once at a time
    ├── NotEntered                                  enter it first: ``async with``
    ├── MiddlewareMissing                           add ``UploadProgressMiddleware``
    ├── ServerUnreachable                           client: check address and network; come later
    ├── ServerBusy                                  client: wait ``retry_after_seconds``
    ├── NotAllowed                                  client: show who you are, or that you may
    ├── UploadRejected                              client: the server takes no such upload
    ├── UnexpectedAnswer                            client: that address answers something else
    └── MissingExtra            (also ImportError)  run the ``pip install`` line in the message

Nothing here is ever raised into the code that handles an upload, except by the
functions which that code calls itself (``current_upload``, ``track``). What is marked "client"
comes out of ``upload_progress.client`` only, which also raises those that its server tells of.
"""

__all__ = [
    "InvalidValue",
    "MiddlewareMissing",
    "MissingExtra",
    "NotAllowed",
    "NotEntered",
    "QuotaExceeded",
    "SchemaMissing",
    "ServerBusy",
    "ServerUnreachable",
    "StoreUnavailable",
    "TrackerInUse",
    "UnexpectedAnswer",
    "UploadCancelled",
    "UploadEnded",
    "UploadNotFound",
    "UploadProgressError",
    "UploadRejected",
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
    """The owner cancelled the upload while ``track()`` ran its body, or a client sent it."""

    def __init__(self) -> None:
        super().__init__("The upload was cancelled by its owner.")


class QuotaExceeded(UploadProgressError):
    """A limit is reached (see ``Limits``).

    Attributes:
        limit: The name of the limit, a field of ``Limits``.
        allowed: How many it allows.
        retry_after_seconds: When it may be worth trying again.
    """

    def __init__(self, limit: str, allowed: int, retry_after_seconds: int = 5) -> None:
        super().__init__(f"The limit {limit} is reached: {allowed} are allowed.")
        self.limit = limit
        self.allowed = allowed
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(UploadProgressError):
    """The session store failed, or did not answer within its time limit."""

    def __init__(self) -> None:
        super().__init__("The session store is not available; try again in a moment.")


class SchemaMissing(UploadProgressError):
    """The database has no tables for sessions, or older ones than this release needs."""

    def __init__(self, schema: str) -> None:
        super().__init__(
            f"The schema {schema!r} is missing or too old: run `upload-progress migrate URL`."
        )


class TrackerInUse(UploadProgressError):
    """The tracker is already running; ``lifespan`` is entered once at a time."""

    def __init__(self) -> None:
        super().__init__("This ProgressTracker is already entered; enter it once, at start-up.")


class NotEntered(UploadProgressError):
    """A broker adapter was asked to subscribe outside of its ``async with`` block."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not entered: use it inside `async with`, or by a tracker.")


class MiddlewareMissing(UploadProgressError):
    """``current_upload`` was called for a request that did not pass the middleware."""

    def __init__(self) -> None:
        super().__init__(
            "This request did not pass UploadProgressMiddleware: add it to the application "
            "with Middleware(UploadProgressMiddleware, tracker=…, authenticate=…)."
        )


class ServerUnreachable(UploadProgressError):
    """No answer came from the server: not there, gone in the middle, or behind a broken proxy.

    Attributes:
        address: Where it was sought, without credentials.
        problem: What the network said.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address} cannot be reached: {problem}")
        self.address = address
        self.problem = problem


class ServerBusy(UploadProgressError):
    """The server asks to come back later (429 or 503), and went on asking.

    Attributes:
        retry_after_seconds: When it may be worth trying again.
    """

    def __init__(self, problem: str, retry_after_seconds: float) -> None:
        super().__init__(f"The server is busy: {problem}")
        self.retry_after_seconds = retry_after_seconds


class NotAllowed(UploadProgressError):
    """The server does not know who asks (401), or does not let them (403).

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(f"The server refuses ({status}): {problem}")
        self.status = status


class UploadRejected(UploadProgressError):
    """The server, or its application, did not take the upload; sending it again changes nothing.

    Attributes:
        status: The HTTP status; None where it is not known.
        problem: Its reason, in its own words.
    """

    def __init__(self, status: int | None, problem: str) -> None:
        code = "" if status is None else f" ({status})"
        super().__init__(f"The upload was rejected{code}: {problem}")
        self.status = status
        self.problem = problem


class UnexpectedAnswer(UploadProgressError):
    """What answers at an address is something else than was sought there.

    Attributes:
        address: Which address, without credentials.
        problem: What it answered.
    """

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address} {problem}")
        self.address = address
        self.problem = problem


class MissingExtra(UploadProgressError, ImportError):
    """An optional dependency is not installed; the message holds the line that mends it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'upload-progress[{extra}]'")
        self.package = package
        self.extra = extra
