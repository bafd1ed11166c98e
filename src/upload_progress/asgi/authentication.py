"""Whose is this upload? Asked of the application's ``authenticate``, who may know, raise or hang.

It is asked when an upload begins, and again with the first message and before the answer, as
middleware further in may know by then who it is; until there is an identity, and never twice
at a time. An answer that takes its time is waited for beside the upload.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from upload_progress._runtime.log_limiter import LogLimiter
from upload_progress._tracking.live_upload import LiveUpload
from upload_progress.connection import Connection
from upload_progress.identity import Identity
from upload_progress.interfaces import Authenticate
from upload_progress.tracker import TrackerInternals

__all__ = [
    "AUTHENTICATE_SECONDS",
    "INLINE_SECONDS",
    "Spawn",
    "UploadAuthentication",
]

Spawn = Callable[[Callable[[], Coroutine[object, object, None]]], bool]

AUTHENTICATE_SECONDS: Final = 5.0
INLINE_SECONDS: Final = 0.004


@define(eq=False, repr=False)
class UploadAuthentication:
    """Finds the owner of one upload, and has it tracked; nothing raised comes out of it.

    Attributes:
        spawn: Runs something beside the request; False where nothing could.
    """

    internals: TrackerInternals
    live: LiveUpload
    authenticate: Authenticate
    log_limiter: LogLimiter
    spawn: Spawn
    _is_known: bool = field(default=False, init=False)
    _answering: anyio.Event | None = field(default=None, init=False)

    def ask(self, connection: Connection) -> None:
        """Ask, unless it is known, or being asked."""
        if self._is_known or self.live.owner is not None or self._answering is not None:
            return
        try:
            answer = self.authenticate(connection)
            if inspect.isawaitable(answer):
                self._wait_beside(answer)
            else:
                self._admit(answer)
        except Exception as error:  # noqa: BLE001  # a hook's failure is never the upload's
            self.log_limiter.warn("authenticate raised an error", error)

    async def load_prior_state(self) -> None:
        """Give an answer that is on its way a moment to come."""
        if self._answering is not None:
            with anyio.move_on_after(INLINE_SECONDS):
                await self._answering.wait()

    def _wait_beside(self, answer: Awaitable[Identity | None]) -> None:
        answering = anyio.Event()
        if self.spawn(lambda: self._wait_for(answer, answering)):
            self._answering = answering
        elif inspect.iscoroutine(answer):
            answer.close()

    async def _wait_for(self, answer: Awaitable[Identity | None], answering: anyio.Event) -> None:
        try:
            with anyio.fail_after(AUTHENTICATE_SECONDS):
                identity = await answer
            self._admit(identity)
        except anyio.get_cancelled_exc_class() as error:
            # Ours, or that of a task which the hook waited for: the latter ends here.
            await checkpoint_if_cancelled()
            self.log_limiter.warn("authenticate was cancelled", error)
        except Exception as error:  # noqa: BLE001  # a hook's failure is never the upload's
            self.log_limiter.warn("authenticate failed or took too long", error)
        finally:
            self._answering = None
            answering.set()

    def _admit(self, identity: object) -> None:
        if isinstance(identity, Identity):
            self._is_known = True
            if not self.live.is_tracked and self.live.merged_into is None:
                self.internals.admission.admit(self.live, identity)
        elif identity is not None:
            self.log_limiter.warn("authenticate returned something that is no Identity")
