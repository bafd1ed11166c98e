"""What a client needs to follow uploads through a push server."""

from typing import Final

from attrs import field, frozen
from msgspec import UNSET, UnsetType

from upload_progress._model.api_types import EdgeAccess, TicketTargets
from upload_progress.config import TrackerConfig
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import Identity
from upload_progress.interfaces import IssuesTokens
from upload_progress.starlette.auth.authentication import check_upload_id
from upload_progress.starlette.auth.tickets import AccessGrant

__all__ = ["MIN_REVALIDATE_SECONDS", "EdgeTokens"]

MIN_REVALIDATE_SECONDS: Final = 3
"""A token is valid for at least one second, and its connection ends up to two seconds later."""


def _check_seconds(_tokens: object, _attribute: object, seconds: float) -> None:
    if seconds < MIN_REVALIDATE_SECONDS:
        problem = f"must be at least {MIN_REVALIDATE_SECONDS}, because the edge counts in seconds"
        raise InvalidValue("revalidate_seconds", problem)


@frozen(eq=False, repr=False)
class EdgeTokens:
    """Gives the users of one mount access to the push server.

    Attributes:
        edge: The push server.
        config: The settings of the tracker.
        revalidate_seconds: After that time, a connection has ended, and its client is
            authenticated again.

    Raises:
        InvalidValue: The time is too short.
    """

    edge: IssuesTokens
    config: TrackerConfig
    revalidate_seconds: float = field(validator=_check_seconds)

    def of(self, grant: AccessGrant, request: TicketTargets) -> EdgeAccess | UnsetType:
        """Return the access to what *request* names; ``UNSET`` if that is not published there.

        Whether an upload exists is not asked: only uploads of an owner are published on the
        channels of that owner.

        Raises:
            UploadNotFound: An upload id is not one that the user may ask for.
        """
        identity, seconds = grant.identity, self.revalidate_seconds
        channels = self._channels(identity, request)
        if grant.view is not None or not channels:
            return UNSET
        if identity.expires_at is not None:
            seconds = min(seconds, identity.expires_at - self.config.clock.time())
        return self.edge.access(identity.id, channels, seconds=seconds) or UNSET

    def _channels(self, identity: Identity, request: TicketTargets) -> list[str]:
        channels, namespace = list[str](), self.config.namespace
        for target in request.targets:
            if (upload_id := target.upload_id) is not None:
                owner = identity.owner_of(check_upload_id(identity, upload_id))
                channels.append(self.edge.channel(namespace, owner, upload_id=upload_id))
            elif identity.listable:
                channels.append(self.edge.channel(namespace, identity.id, group=target.group))
        if identity.listable and not request.targets:
            channels.append(self.edge.channel(namespace, identity.id))
        return channels
