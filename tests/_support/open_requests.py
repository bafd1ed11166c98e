"""Requests of uploads that tests open without HTTP."""

from __future__ import annotations

from attrs import define

from upload_progress._tracking.live_upload import LiveUpload
from upload_progress._tracking.requests.transfer import Transfer

__all__ = ["OpenRequest"]


@define(eq=False)
class OpenRequest:
    """A request of an upload, as the middleware has opened it."""

    opened: LiveUpload

    @property
    def transfer(self) -> Transfer:
        """The transfer of the request."""
        return self.opened.opened_by

    @property
    def upload(self) -> LiveUpload:
        """The upload to which the request belongs."""
        return self.opened.merged_into or self.opened
