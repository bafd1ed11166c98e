from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from upload_progress.client.urls import mount_url, parse_url, target_url, upload_id_in
from upload_progress.exceptions import InvalidValue


def test_credentials_are_removed_from_a_url() -> None:
    server = parse_url("https://ann:s3cret@host/files/#x")

    assert str(server) == "https://host/files/"
    assert server.credentials == ("ann", "s3cret")
    assert "s3cret" not in repr(server)
    assert parse_url("https://host").credentials is None


@pytest.mark.parametrize("text", ["", "host/files", "ftp://host", "http://", "http://h:x", "://"])
def test_invalid_url_is_rejected(text: str) -> None:
    with pytest.raises(InvalidValue, match="here: "):
        parse_url(text, "here")


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
def test_mount_point_is_derived_from_any_url_of_the_api(
    url: str, path: str, upload_id: str | None
) -> None:
    parsed = parse_url(url).url

    assert (mount_url(parsed).path, upload_id_in(parsed)) == (path, upload_id)
    assert mount_url(parsed).query == b""


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h/files/", "http://h/files/a%20b%3F/%C3%A9.txt"),
        ("http://h/files/?group=x", "http://h/files/a%20b%3F/%C3%A9.txt?group=x"),
        ("http://h/files/x", "http://h/files/x"),
    ],
)
def test_name_is_appended_to_a_url_that_ends_with_a_slash(url: str, target: str) -> None:
    assert str(target_url(parse_url(url).url, PurePosixPath("a b?/é.txt"))) == target
