"""Settings of a tracker: invalid values are rejected."""

from __future__ import annotations

import pytest

from upload_progress import InvalidValue, ProgressTracker, Retention


@pytest.mark.parametrize("path", ["uploads", "/uploads/", "/", ""])
def test_invalid_mount_path_is_rejected(path: str) -> None:
    with pytest.raises(InvalidValue, match="mount_path"):
        ProgressTracker(mount_path=path)


@pytest.mark.parametrize("seconds", [0, -1])
def test_stall_time_must_be_positive(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="stall_after_seconds"):
        ProgressTracker(stall_after_seconds=seconds)


@pytest.mark.parametrize("name", ["ended_per_owner", "waiting_per_owner"])
def test_at_least_one_upload_of_an_owner_is_kept(name: str) -> None:
    with pytest.raises(InvalidValue, match=name):
        Retention(**{name: 0})


@pytest.mark.parametrize("secret", ["a", "x" * 15, b"x" * 15, "ü" * 7])
def test_short_secret_is_rejected_and_not_shown(secret: str | bytes) -> None:
    with pytest.raises(InvalidValue, match=r"secret: must have at least 16 bytes$"):
        ProgressTracker(secret=secret)


@pytest.mark.parametrize("secret", ["a-secret-of-the-system", b"a-secret-of-the-system"])
def test_secret_is_not_shown(secret: str | bytes) -> None:
    config = ProgressTracker(secret=secret).config

    assert config.secret == b"a-secret-of-the-system"
    assert "a-secret" not in repr(config)
