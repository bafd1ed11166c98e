"""Identities: who is authenticated, and which owner an upload has.

An owner is a string. An ``Identity`` owns its uploads under its id. A capability owns each upload
under the id of that upload: knowledge of the id gives access. The two cannot be confused, because
no identity may start with the prefix of capabilities. There is no owner that stands for "no owner".
"""

import re
from typing import Final

from attrs import field, frozen

from upload_progress.exceptions import InvalidValue

__all__ = [
    "CAPABILITY_BITS",
    "GUESSABLE_DIGEST_BYTES",
    "MAX_CLIENT_CHARACTERS",
    "MAX_IDENTITY_CHARACTERS",
    "MAX_OWNER_CHARACTERS",
    "CapabilityIdentity",
    "Identity",
    "OwnerView",
    "WrongAnswer",
    "alphabet_bits",
    "as_identity",
    "identity_from",
    "listed_owner",
]

CAPABILITY_BITS: Final = 120
MAX_IDENTITY_CHARACTERS: Final = 512
MAX_CLIENT_CHARACTERS: Final = 128
GUESSABLE_DIGEST_BYTES: Final = 8
"""Size of the digest in the id of an upload whose address can be guessed."""

_ALPHABETS: Final = (
    (re.compile(r"[0-9.~_-]*"), 3.32),
    (re.compile(r"[0-9a-fA-F.~_-]*"), 4.0),
    (re.compile(r"[0-9a-z.~_-]*"), 5.17),
)


def alphabet_bits(upload_id: str) -> float:
    """Return an upper bound of the random bits in *upload_id*, by its alphabet.

    Short or numeric ids have few bits; how the other ids were created cannot be known. An id in
    which few different characters recur counts as not random.
    """
    bits = next((bits for alphabet, bits in _ALPHABETS if alphabet.fullmatch(upload_id)), None)
    if bits is None:
        bits, symbols = 5.95, len(upload_id)  # base64url: hyphens and underscores count as well
    else:
        symbols = sum(character.isalnum() for character in upload_id)
    return bits * min(symbols, len(set(upload_id)) * 4)


_CAPABILITY: Final = "capability:"
# Such an id is derived from an address; what a client makes in this form has 64 bits at most.
_GUESSABLE: Final = re.compile(rf"[A-Za-z0-9]+-[0-9a-f]{{{2 * GUESSABLE_DIGEST_BYTES}}}", re.ASCII)


def _check_identity(_instance: object, _attribute: object, text: str) -> None:
    value: object = text  # callers without a type checker pass anything
    if not isinstance(value, str):
        raise InvalidValue("identity.id", f"must be a str, not {type(value).__name__}")
    if not 0 < len(value) <= MAX_IDENTITY_CHARACTERS:
        raise InvalidValue("identity.id", f"must have 1 to {MAX_IDENTITY_CHARACTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        problem = "must not contain half of a surrogate pair, which UTF-8 cannot encode"
        raise InvalidValue("identity.id", problem) from None
    if "\0" in value:
        raise InvalidValue("identity.id", "must not contain a zero character")
    if value.startswith(_CAPABILITY):
        raise InvalidValue("identity.id", f"must not start with {_CAPABILITY!r}")


@frozen
class Identity:
    """An authenticated user, as returned by the application's ``authenticate``.

    >>> Identity("alice").owner_of("some-upload")
    'alice'

    Attributes:
        id: The owner of the user's uploads: 1 to 512 characters, compared exactly; no zero
            character, and nothing that UTF-8 cannot encode.
        expires_at: When the authentication expires, in seconds since the epoch; None (the
            default) for never.
        is_operator: Whether the user may see and cancel the uploads of all owners, by adding
            ``?owner=NAME`` or ``?owner=*``; False by default.

    Raises:
        InvalidValue: The id is not valid.
    """

    id: str = field(validator=_check_identity)
    expires_at: float | None = None
    is_operator: bool = False

    def owner_of(self, upload_id: str) -> str:
        """Return the owner of this identity's upload *upload_id*."""
        return self.id

    def accepts(self, upload_id: str) -> bool:
        """Return whether a client with this identity may choose *upload_id*."""
        return True

    @property
    def listable(self) -> bool:
        """Whether the uploads of this identity can be listed."""
        return True

    @property
    def limit_key(self) -> str | None:
        """What limits count by; None if only the limits of the whole process apply."""
        return self.id


def _shortened(client: str) -> str:
    return client[:MAX_CLIENT_CHARACTERS]


@frozen
class CapabilityIdentity(Identity):
    """An anonymous user, who has access to an upload by knowing its unguessable id.

    Attributes:
        client: By what the limits count this user: its address; at most 128 characters are used.
            With an empty text, which is the default, only the limits of the process apply.
    """

    id: str = field(default="anonymous", validator=_check_identity)
    client: str = field(default="", eq=False, converter=_shortened)

    def owner_of(self, upload_id: str) -> str:
        """Return an owner that consists of the upload id."""
        return _CAPABILITY + upload_id

    def accepts(self, upload_id: str) -> bool:
        """Return whether *upload_id* may contain 120 random bits."""
        is_guessable = _GUESSABLE.fullmatch(upload_id) is not None
        return not is_guessable and alphabet_bits(upload_id) >= CAPABILITY_BITS

    @property
    def listable(self) -> bool:
        """False: a list would disclose the ids."""
        return False

    @property
    def limit_key(self) -> str | None:
        """The client, in a form that is no owner: each upload has an owner of its own."""
        return f"{_CAPABILITY}@{self.client}" if self.client else None


MAX_OWNER_CHARACTERS: Final = 1024
"""More than any owner has."""


def _check_owner(_instance: object, _attribute: object, owner: str) -> None:
    if not 0 < len(owner) <= MAX_OWNER_CHARACTERS or "\0" in owner:
        raise InvalidValue("query.owner", f"must have 1 to {MAX_OWNER_CHARACTERS} characters")


@frozen
class OwnerView(Identity):
    """An operator who looks at the uploads of one owner, or of all.

    Attributes:
        id: The owner; ``*`` for all.
        operator: The id of the operator, by whom limits count.

    Raises:
        InvalidValue: The owner is not valid.
    """

    id: str = field(default="*", validator=_check_owner)
    operator: str = ""

    @property
    def is_of_all(self) -> bool:
        """Whether it is of all owners."""
        return self.id == "*"

    def accepts(self, upload_id: str) -> bool:
        """Return whether an upload can be named: an id is unique within one owner."""
        return not self.is_of_all

    @property
    def limit_key(self) -> str | None:
        """The operator."""
        return self.operator


def listed_owner(identity: Identity) -> str | None:
    """Return the owner whose uploads *identity* may list; None for all owners."""
    return None if isinstance(identity, OwnerView) and identity.is_of_all else identity.id


def as_identity(owner: str | Identity) -> Identity:
    """Return *owner* as an identity; a string is the id of one."""
    return owner if isinstance(owner, Identity) else Identity(owner)


def identity_from(answer: object) -> Identity | None:
    """Return what ``authenticate`` has returned as an identity.

    Raises:
        InvalidValue: It is a name that is not valid.
        WrongAnswer: It has another type. The message contains the type, and not the value.
    """
    if answer is None or isinstance(answer, Identity):
        return answer
    if isinstance(answer, str):
        return Identity(answer)
    raise WrongAnswer(
        "authenticate",
        "must return an Identity, the name of the user, or None; it returned an object of type "
        f"{type(answer).__qualname__}",
    )


class WrongAnswer(InvalidValue):
    """``authenticate`` has returned an object of another type."""
