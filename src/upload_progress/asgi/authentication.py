"""Determines the owner of an upload with the application's ``authenticate``.

``authenticate`` is called when an upload begins, with its first message, and before the response,
until it returns an identity: middleware inside this one may identify the user in between. Only
one call is pending at a time. An awaitable result is awaited in the background, so that the
upload does not wait for it.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from attrs import define, field

from upload_progress._internals import TrackerInternals
from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.continuation.belonging import has_begun_before
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.connection import Connection
from upload_progress.identity import Identity, identity_from
from upload_progress.interfaces import Authenticate

__all__ = ["AUTHENTICATE_TIMEOUT_SECONDS", "RESPONSE_WAIT_SECONDS", "UploadAuthentication"]

AUTHENTICATE_TIMEOUT_SECONDS: Final = 5.0
"""How long an awaitable result of ``authenticate`` may take."""

RESPONSE_WAIT_SECONDS: Final = 0.004
"""How long the response waits for a pending result, so that it can name the upload."""


@define(eq=False, repr=False)
class UploadAuthentication:
    """Finds the owner of one upload and admits the upload. Raises nothing.

    Attributes:
        internals: The parts of the tracker, which admit the upload.
        live: The upload.
        authenticate: The application's function.
        log_limiter: Logs failures of ``authenticate``.
        on_admitted: Called when the upload was admitted by a result that had to be awaited.
        has_identity: Whether ``authenticate`` has returned an identity.
        pending: Set when the result that is awaited has been used; None while none is awaited.
    """

    internals: TrackerInternals
    live: LiveUpload
    authenticate: Authenticate
    log_limiter: LogLimiter
    on_admitted: Callable[[], None]
    has_identity: bool = field(default=False, init=False)
    pending: anyio.Event | None = field(default=None, init=False)

    def attempt(self, connection: Connection) -> None:
        """Call ``authenticate``, unless the owner is known or a call is pending."""
        order = self.internals.admission.order
        if self.pending is not None:
            order.enter(self.live)
        if self.has_identity or self.live.owner is not None or self.pending is not None:
            return
        try:
            result = self.authenticate(connection)
            if not isinstance(result, Identity) and inspect.isawaitable(result):
                self._await_in_background(result)
            elif result is not None and self._has_to_wait(result):
                self._await_in_background(_known(result))
            else:
                self._admit(result)
        except Exception as error:  # noqa: BLE001  # the hook's failure must not affect the upload
            self.log_limiter.log_warning("authenticate failed", error, names_place=True)

    async def wait_briefly(self) -> None:
        """Wait up to ``RESPONSE_WAIT_SECONDS`` for the pending result."""
        # Most results are there after one turn of the event loop, which needs no timer.
        await checkpoint()
        if self.pending is not None:
            with anyio.move_on_after(RESPONSE_WAIT_SECONDS):
                await self.pending.wait()

    async def wait(self) -> None:
        """Wait for the pending result, if there is one."""
        if self.pending is not None:
            await self.pending.wait()

    def _await_in_background(self, result: Awaitable[object]) -> None:
        self.internals.admission.order.enter(self.live)
        done = anyio.Event()
        self.internals.tasks.start(lambda: self._await_identity(result, done))
        self.pending = done

    async def _await_identity(self, result: Awaitable[object], done: anyio.Event) -> None:
        order = self.internals.admission.order
        try:
            with anyio.fail_after(AUTHENTICATE_TIMEOUT_SECONDS):
                identity = identity_from(await result)
            if identity is not None:
                await order.wait(self.live)
                await self._prepare(identity)
            self._admit(identity)
            await self._prepare_next()
            self.on_admitted()
        except anyio.get_cancelled_exc_class() as error:
            # Either this task was cancelled, or one that the hook awaited: the checkpoint raises
            # again in the first case only.
            await checkpoint_if_cancelled()
            self.log_limiter.log_warning("authenticate was cancelled", error)
        except Exception as error:  # noqa: BLE001  # the hook's failure must not affect the upload
            self.log_limiter.log_warning(
                "authenticate failed or took too long", error, names_place=True
            )
        finally:
            order.leave(self.live)
            self.pending = None
            done.set()

    async def _prepare(self, identity: Identity) -> None:
        """Learn what the store has of the current upload, before the request is judged by it."""
        current = self._unclear(identity)
        if current is not None:
            await self.internals.flusher.load_prior_state([current])

    async def _prepare_next(self) -> None:
        """Learn what the store has of the upload, before the next request is judged by it."""
        live = self.live.merged_into or self.live
        has_next = self.internals.admission.order.has_next(self.live)
        if has_next and not live.is_completed_by_request:
            await self.internals.flusher.load_prior_state([live])

    def _unclear(self, identity: Identity) -> LiveUpload | None:
        """Return the upload of this id that is received here, if its records are not known."""
        upload_id = self.live.upload_id
        current = self.internals.registry.find(identity.owner_of(upload_id), upload_id)
        if current is None or current.has_prior_state or current.is_completed_by_request:
            return None
        return current

    def _has_to_wait(self, answer: object) -> bool:
        """Return whether earlier requests are admitted first, or records have to be loaded."""
        if self.internals.admission.order.is_preceded(self.live):
            return True
        if self.live.series is None or not has_begun_before(self.live):
            return False
        identity = identity_from(answer)
        return identity is not None and self._unclear(identity) is not None

    def _admit(self, answer: object) -> None:
        identity = identity_from(answer)
        if identity is not None:
            self.has_identity = True
            self.internals.admission.admit(self.live, identity)


async def _known(answer: object) -> object:
    """Return *answer*, which is used in the order of the requests."""
    return answer
