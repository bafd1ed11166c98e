"""Whose an upload is, and that nobody is nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress._model.models import new_upload_id
from upload_progress.exceptions import InvalidValue
from upload_progress.identity import CAPABILITY_BITS, CapabilityIdentity, Identity, alphabet_bits


@pytest.mark.parametrize("value", ["", "x" * 513, None, 5, b"ann", "capability:abc"])
def test_who_is_no_identity(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"identity\.id"):
        Identity(value)  # type: ignore[arg-type]  # what is to be refused
    with pytest.raises(InvalidValue, match=r"identity\.id"):
        CapabilityIdentity(id=value)  # type: ignore[arg-type]  # what is to be refused


def test_an_identity_owns_under_its_name() -> None:
    ann = Identity("ann")

    assert ann.owner_of("a") == ann.owner_of("b") == "ann"
    assert ann.accepts("a")
    assert ann.listable


@given(st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=50))
def test_a_capability_is_a_namespace_that_nobody_else_can_have(name: str, upload_id: str) -> None:
    owner = CapabilityIdentity().owner_of(upload_id)

    assert owner != CapabilityIdentity().owner_of(upload_id + "x")
    assert Identity(f"not {name}").owner_of(upload_id) != owner
    assert not CapabilityIdentity().listable


def test_only_what_cannot_be_guessed_is_a_capability() -> None:
    accepts = CapabilityIdentity().accepts

    assert all(accepts(new_upload_id()) for _ in range(500))
    assert accepts("0123456789abcdef0123456789abcdef")
    assert accepts("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    for guess in ("1", "backup.tar.gz", "2026-11-23", "a" * 128, "ab" * 64, "0" * 128, "-" * 128):
        assert not accepts(guess), guess


@given(st.text(max_size=128))
def test_bits_are_an_upper_bound(text: str) -> None:
    assert 0 <= alphabet_bits(text) <= 5.95 * len(text)
    assert CAPABILITY_BITS == 120
