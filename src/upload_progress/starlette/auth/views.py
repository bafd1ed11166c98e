"""What operators may do more than other users: look at the uploads of other owners.

``?owner=NAME`` and ``?owner=*`` have a meaning only for an identity with ``is_operator``. Snapshots
then tell whose upload it is. Each use is written to the log ``upload_progress.audit``.
"""

import logging
from typing import Final

from attrs import evolve

from upload_progress._fanout.update import Update
from upload_progress._model.models import UploadProgress
from upload_progress.connection import Connection
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import Identity, OwnerView, listed_owner
from upload_progress.interfaces import ALL_OWNERS

__all__ = ["as_seen_by", "group_owner", "update_of", "view_of"]

_audit: Final = logging.getLogger("upload_progress.audit")


def view_of(identity: Identity, connection: Connection) -> OwnerView | None:
    """Return the view that an operator asks for, and log it; None for all other requests.

    Raises:
        InvalidValue: The name of the owner is not valid.
    """
    owner = connection.query.get("owner") if identity.is_operator else None
    if owner is None:
        return None
    view = OwnerView(id=owner, expires_at=identity.expires_at, operator=identity.id)
    _audit.info(
        "operator %r: %s %r for the uploads of %s",
        view.operator,
        "WEBSOCKET" if connection.scope["type"] == "websocket" else connection.method,
        connection.path,
        "all owners" if view.is_of_all else repr(owner),
    )
    return view


def as_seen_by(identity: Identity, progress: UploadProgress) -> UploadProgress:
    """Return *progress* as it is shown to *identity*: operators see the owner.

    Snapshots in a list of all owners have it already.
    """
    if not isinstance(identity, OwnerView) or progress.owner:
        return progress
    return evolve(progress, owner=identity.id)


def update_of(identity: Identity, progress: UploadProgress) -> Update:
    """Return the update for a snapshot in a list that *identity* sees."""
    return Update(progress.owner or identity.id, progress)


def group_owner(identity: Identity) -> str:
    """Return the owner whose groups *identity* may follow.

    Raises:
        InvalidValue: It is a view of all owners.
    """
    owner = listed_owner(identity)
    if owner is ALL_OWNERS:
        raise InvalidValue("group", "belongs to one owner: name the owner instead of *")
    return owner
