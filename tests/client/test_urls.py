from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from upload_progress.client.urls import mount_of, read_url, target_of, upload_in
from upload_progress.exceptions import InvalidValue


def test_credentials_are_taken_out_of_a_url_and_never_shown() -> None:
    address = read_url("https://ann:s3cret@host/files/#x")

    assert address.text == "https://host/files/"
    assert address.basic == ("ann", "s3cret")
    assert "s3cret" not in repr(address)
    assert read_url("https://host").basic is None


@pytest.mark.parametrize("text", ["", "host/files", "ftp://host", "http://", "http://h:x", "://"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="here: "):
        read_url(text, "here")


@pytest.mark.parametrize(
    ("url", "path", "upload_id"),
    [
        ("http://h", "/uploads", None),
        ("http://h/", "/uploads", None),
        ("http://h/uploads", "/uploads", None),
        ("http://h/api/uploads/?x=1", "/api/uploads", None),
        ("http://h/uploads/progress", "/uploads", None),
        ("http://h/uploads/abc/progress", "/uploads", "abc"),
        ("http://h/api/uploads/abc/progress/", "/api/uploads", "abc"),
    ],
)
def test_every_address_leads_to_the_mount(url: str, path: str, upload_id: str | None) -> None:
    address = read_url(url).url

    assert (mount_of(address).path, upload_in(address)) == (path, upload_id)
    assert mount_of(address).query == b""


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h/files/", "http://h/files/a%20b%3F/%C3%A9.txt"),
        ("http://h/files/?group=x", "http://h/files/a%20b%3F/%C3%A9.txt?group=x"),
        ("http://h/files/x", "http://h/files/x"),
    ],
)
def test_a_name_is_added_to_a_folder(url: str, target: str) -> None:
    assert str(target_of(read_url(url).url, PurePosixPath("a b?/é.txt"))) == target
