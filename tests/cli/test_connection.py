from __future__ import annotations

import base64
from pathlib import Path

import httpx2
import pytest

from upload_progress.cli.connection import Credentials, find_credentials, open_client, parse_headers
from upload_progress.cli.options import ConnectionOptions
from upload_progress.exceptions import InvalidValue

NETRC = "machine h login ann password s3cret\nmachine empty login ann\n"


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    path = tmp_path / "netrc"
    path.write_text(NETRC)
    path.chmod(0o600)
    return path


def authorization(credentials: Credentials, host: str) -> str | None:
    """Return the Authorization header that the netrc file adds to a request."""
    assert isinstance(credentials.auth, httpx2.NetRCAuth)
    request = next(credentials.auth.auth_flow(httpx2.Request("GET", f"http://{host}/")))
    return request.headers.get("authorization")


def test_environment_takes_precedence_over_netrc(netrc: Path) -> None:
    basic = {"UPLOAD_PROGRESS_BASIC": "bob:a:b", "NETRC": str(netrc)}

    assert find_credentials(basic) == Credentials(auth=("bob", "a:b"))
    assert find_credentials({"UPLOAD_PROGRESS_TOKEN": "t", **basic}) == Credentials(token="t")


def test_netrc_is_used_for_hosts_with_a_password(netrc: Path) -> None:
    credentials = find_credentials({"NETRC": str(netrc)})

    encoded = base64.b64encode(b"ann:s3cret").decode()
    assert authorization(credentials, "h") == f"Basic {encoded}"
    assert authorization(credentials, "other") is None
    assert authorization(credentials, "empty") is None


def test_missing_netrc_means_no_credentials(netrc: Path) -> None:
    assert find_credentials({"NETRC": f"{netrc}x"}) == Credentials()


def test_netrc_in_the_home_directory_is_the_default(
    netrc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc.rename(netrc.with_name(".netrc"))
    monkeypatch.setenv("HOME", str(netrc.parent))

    assert authorization(find_credentials({}), "h") is not None


def test_repr_hides_credentials() -> None:
    assert "s3cret" not in repr(Credentials("s3cret", ("ann", "s3cret")))


@pytest.mark.parametrize(
    ("name", "value"),
    [("UPLOAD_PROGRESS_TOKEN", "s3cret\n"), ("UPLOAD_PROGRESS_BASIC", "s3cret")],
)
def test_error_names_the_invalid_variable_without_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        find_credentials({name: value})

    assert name in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_error_names_the_invalid_netrc_without_its_content(netrc: Path, tmp_path: Path) -> None:
    netrc.write_text("machine h login ann s3cret x\n")
    with pytest.raises(InvalidValue, match="syntax error in line 1") as raised:
        find_credentials({"NETRC": str(netrc)})
    assert "s3cret" not in str(raised.value)

    with pytest.raises(InvalidValue, match="directory"):
        find_credentials({"NETRC": str(tmp_path)})


def test_authorization_header_takes_the_place_of_other_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPLOAD_PROGRESS_TOKEN", "t0ken")
    header = ("Authorization: Key 7", "X-Region:  eu ")
    client = open_client("http://h/", ConnectionOptions(header=header))

    assert (client.token, client.auth) == (None, None)
    assert client.headers == {"authorization": "Key 7", "x-region": "eu"}
    assert "Key 7" not in repr(client)


@pytest.mark.parametrize("text", ["X-Region", "X Region: eu", ": eu", "X-Region: e\r\nu"])
def test_malformed_header_is_rejected_without_its_value(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"^--header: must be 'Name: value'"):
        parse_headers([text])
