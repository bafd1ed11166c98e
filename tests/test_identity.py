"""Identities: which owner an upload gets, and which ids a capability accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.models import new_upload_id
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import CAPABILITY_BITS, CapabilityIdentity, Identity, alphabet_bits


@pytest.mark.parametrize(
    "value", ["", "x" * 513, None, 5, b"ann", "capability:abc", "\udc00", "a\0b"]
)
def test_invalid_identity_is_rejected(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"identity\.id"):
        Identity(value)  # type: ignore[arg-type]  # invalid
    with pytest.raises(InvalidValue, match=r"identity\.id"):
        CapabilityIdentity(id=value)  # type: ignore[arg-type]  # invalid


def test_identity_owns_all_uploads_under_its_id() -> None:
    ann = Identity("ann")

    assert ann.owner_of("a") == ann.owner_of("b") == "ann"
    assert ann.accepts("a")
    assert ann.listable


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=50)


@given(NAMES, NAMES)
def test_capability_owns_each_upload_separately(name: str, upload_id: str) -> None:
    owner = CapabilityIdentity().owner_of(upload_id)

    assert owner != CapabilityIdentity().owner_of(upload_id + "x")
    assert Identity(f"not {name}").owner_of(upload_id) != owner
    assert not CapabilityIdentity().listable


def test_capability_accepts_only_ids_that_are_hard_to_guess() -> None:
    accepts = CapabilityIdentity().accepts

    assert all(accepts(new_upload_id()) for _ in range(500))
    assert accepts("0123456789abcdef0123456789abcdef")
    assert accepts("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    for guess in ("1", "backup.tar.gz", "2026-11-23", "a" * 128, "ab" * 64, "0" * 128, "-" * 128):
        assert not accepts(guess), guess


@given(st.text(max_size=128))
def test_alphabet_bits_are_bounded(text: str) -> None:
    assert 0 <= alphabet_bits(text) <= 5.95 * len(text)
    assert CAPABILITY_BITS == 120


def test_limits_count_an_anonymous_user_by_client() -> None:
    """No user can have that name, and the length of a key is bounded."""
    one, other = CapabilityIdentity(client="10.0.0.1"), CapabilityIdentity(client="10.0.0.2")

    assert one == other
    assert one.limit_key != other.limit_key
    with pytest.raises(InvalidValue):
        Identity(str(one.limit_key))
    assert CapabilityIdentity().limit_key is None
    assert Identity("ann").limit_key == "ann"
    assert len(CapabilityIdentity(client="x" * 9999).limit_key or "") < 200


@pytest.mark.parametrize(
    "upload_id", ["tus-0123456789abcdef", "customprotocolname-0123456789abcdef"]
)
def test_id_derived_from_a_guessable_address_is_no_capability(upload_id: str) -> None:
    assert not CapabilityIdentity().accepts(upload_id)
    assert Identity("ann").accepts(upload_id)
