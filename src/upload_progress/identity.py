"""Who is asking, and in whose namespace an upload lives.

An owner is a string. ``Identity`` owns under its own id. A capability owns each upload under
that upload's id: to know the id is to hold the upload. The two cannot meet, because no
identity may start with the prefix that marks a capability. Nobody owns nothing: there is no
value for "no owner" that could equal itself.
"""

import re
from typing import Final

from attrs import field, frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CAPABILITY_BITS",
    "MAX_IDENTITY_CHARACTERS",
    "CapabilityIdentity",
    "Identity",
    "alphabet_bits",
    "as_identity",
]

CAPABILITY_BITS: Final = 120
MAX_IDENTITY_CHARACTERS: Final = 512

_ALPHABETS: Final = (
    (re.compile(r"[0-9.~_-]*"), 3.32),
    (re.compile(r"[0-9a-fA-F.~_-]*"), 4.0),
    (re.compile(r"[0-9a-z.~_-]*"), 5.17),
)


def alphabet_bits(upload_id: str) -> float:
    """Return how many random bits *upload_id* can hold at most, judged by its alphabet.

    An upper bound: it turns away short or numeric ids, and cannot know how the others
    were made. An id in which few characters recur is taken for what it is: not random.
    """
    bits = next((bits for alphabet, bits in _ALPHABETS if alphabet.fullmatch(upload_id)), None)
    if bits is None:
        bits, symbols = 5.95, len(upload_id)  # base64url: hyphens and underscores count, too
    else:
        symbols = sum(character.isalnum() for character in upload_id)
    return bits * min(symbols, len(set(upload_id)) * 4)


_CAPABILITY: Final = "capability:"


def _check_identity(_instance: object, _attribute: object, text: str) -> None:
    value: object = text  # callers without a type checker pass anything
    if not isinstance(value, str):
        raise InvalidValue("identity.id", f"must be a str, not {type(value).__name__}")
    if not 0 < len(value) <= MAX_IDENTITY_CHARACTERS:
        raise InvalidValue("identity.id", f"must have 1 to {MAX_IDENTITY_CHARACTERS} characters")
    if value.startswith(_CAPABILITY):
        raise InvalidValue("identity.id", f"must not start with {_CAPABILITY!r}")


@frozen
class Identity:
    """Who is asking, as the application's ``authenticate`` says.

    Attributes:
        id: The name under which uploads are owned. Case and type matter.
        expires_at: When this stops being true, in seconds since the epoch; None for never.
    """

    id: str = field(validator=_check_identity)
    expires_at: float | None = None

    def owner_of(self, upload_id: str) -> str:
        """Return the namespace in which this identity's *upload_id* lives."""
        return self.id

    def accepts(self, upload_id: str) -> bool:
        """Tell whether a client with this identity may choose *upload_id*."""
        return True

    @property
    def listable(self) -> bool:
        """Whether this identity has a list of uploads, or just the ids it holds."""
        return True


@frozen
class CapabilityIdentity(Identity):
    """Nobody in particular: each unguessable id is a namespace of its own."""

    id: str = field(default="anonymous", validator=_check_identity)

    def owner_of(self, upload_id: str) -> str:
        """Return the namespace that this id alone opens."""
        return _CAPABILITY + upload_id

    def accepts(self, upload_id: str) -> bool:
        """Accept only what can hold 120 random bits."""
        return alphabet_bits(upload_id) >= CAPABILITY_BITS

    @property
    def listable(self) -> bool:
        """Never: a list would hand out the ids."""
        return False


def as_identity(owner: str | Identity) -> Identity:
    """Return *owner* as an identity: a string names one."""
    return owner if isinstance(owner, Identity) else Identity(owner)
