from __future__ import annotations

from pathlib import Path

import pytest

from upload_progress.cli.connection import Credentials, find_credentials
from upload_progress.exceptions import InvalidValue

NETRC = "machine h login ann password s3cret\nmachine empty login ann\n"


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    path = tmp_path / "netrc"
    path.write_text(NETRC)
    path.chmod(0o600)
    return path


def test_the_environment_goes_before_the_file(netrc: Path) -> None:
    there = {"NETRC": str(netrc)}
    basic = {"UPLOAD_PROGRESS_BASIC": "bob:a:b", **there}

    assert find_credentials("h", there) == Credentials(basic=("ann", "s3cret"))
    assert find_credentials("h", basic) == Credentials(basic=("bob", "a:b"))
    assert find_credentials("h", {"UPLOAD_PROGRESS_TOKEN": "t", **basic}) == Credentials(token="t")
    assert find_credentials("other", there) == Credentials()
    assert find_credentials("empty", there) == Credentials()
    assert find_credentials("h", {"NETRC": str(netrc) + "x"}) == Credentials()


def test_they_are_not_shown() -> None:
    assert "s3cret" not in repr(Credentials("s3cret", ("ann", "s3cret")))


@pytest.mark.parametrize(
    ("name", "value"),
    [("UPLOAD_PROGRESS_TOKEN", "s3cret\n"), ("UPLOAD_PROGRESS_BASIC", "s3cret")],
)
def test_what_cannot_be_used_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        find_credentials("h", {name: value})

    assert name in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named_and_not_shown(netrc: Path, tmp_path: Path) -> None:
    netrc.write_text("machine h login ann s3cret x\n")
    with pytest.raises(InvalidValue, match="line 1 cannot be understood") as raised:
        find_credentials("h", {"NETRC": str(netrc)})
    assert "s3cret" not in str(raised.value)

    with pytest.raises(InvalidValue, match="directory"):
        find_credentials("h", {"NETRC": str(tmp_path)})
