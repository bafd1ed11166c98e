"""The messages of Centrifugo on a unidirectional HTTP stream, each a line of JSON.

Source: centrifugal.dev/docs/transports/uni_client_protocol, Centrifugo 6.9.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from upload_progress._model.models import UploadProgress
from upload_progress.exceptions import InvalidValue

__all__ = ["NOT_CONNECTED", "Push", "decode_push"]


class _Publication(Struct, frozen=True):
    data: UploadProgress


class _Subscription(Struct, frozen=True):
    publications: tuple[_Publication, ...] = ()


class _Connected(Struct, frozen=True):
    subs: dict[str, _Subscription] = {}


class Push(Struct, frozen=True):
    """A message; one without these fields is a heartbeat, or means nothing to a watcher.

    Attributes:
        connect: The first message, with the newest publication of each channel that has one.
        pub: A publication.
    """

    connect: _Connected | None = None
    pub: _Publication | None = None

    @property
    def snapshots(self) -> Iterator[UploadProgress]:
        """The snapshots in the message."""
        for subscription in self.connect.subs.values() if self.connect else ():
            for publication in subscription.publications:
                yield publication.data
        if self.pub is not None:
            yield self.pub.data

    @property
    def is_complete(self) -> bool:
        """Whether the first message has a publication of each channel: nothing must be read."""
        channels = self.connect.subs.values() if self.connect else ()
        return all(each.publications for each in channels)


NOT_CONNECTED: Final = Push(connect=_Connected({"": _Subscription()}))
"""Stands for the messages of a push server that does not answer, or refuses the connection."""

_decoder = msgspec.json.Decoder(Push)


def decode_push(line: str) -> Push:
    """Decode a message; unknown fields are ignored.

    >>> decode_push("{}")
    Push(connect=None, pub=None)

    Raises:
        InvalidValue: It is not a message.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidValue("push", str(error)) from None
