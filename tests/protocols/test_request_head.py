"""The reader of request heads: any head is read without error."""

from __future__ import annotations

import time
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upload_progress.connection import Connection
from upload_progress.protocols import (
    FORM_PREFIX_BYTES,
    RequestHead,
    form_filename,
    read_request_head,
)
from upload_progress.protocols.request_head import MAX_GROUP_CHARACTERS, MAX_NAME_CHARACTERS

HEADER_NAMES = [
    b"upload-id",
    b"x-progress-id",
    b"upload-group",
    b"content-length",
    b"content-type",
    b"content-disposition",
    b"transfer-encoding",
    b"via",
]


def head(
    *headers: tuple[str, str], query: str = "", method: str = "POST", path: str = "/files"
) -> RequestHead:
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("utf-8")) for name, value in headers],
    }
    return read_request_head(Connection(scope))


@given(
    st.lists(
        st.tuples(st.sampled_from(HEADER_NAMES) | st.binary(max_size=9), st.binary(max_size=80))
    ),
    st.binary(max_size=80),
    st.text(st.characters(codec=None), max_size=40),
    st.sampled_from(["PUT", "POST", "PATCH"]),
)
def test_any_head_is_read_without_error(
    headers: list[tuple[bytes, bytes]], query: bytes, path: str, method: str
) -> None:
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": headers,
    }
    request_head = read_request_head(Connection(scope))

    for text in (request_head.filename, request_head.content_type):
        assert text is None or 0 < len(text.encode("utf-8").decode("utf-8")) <= MAX_NAME_CHARACTERS
    assert request_head.group is None or 0 < len(request_head.group) <= MAX_GROUP_CHARACTERS
    assert request_head.group is None or request_head.group.isprintable()
    assert request_head.total_bytes is None or 0 <= request_head.total_bytes < 2**53


DISPOSITION_PARTS = [
    *(b"form-data", b"attachment", b";", b" ", b"filename", b"filename*", b"=", b'"', b"\\"),
    *(b"UTF-8''", b"x''", b"''", b"%ED%A0%80", b"%", b"*0*", b"*1", b"\r\n ", b"\0", b"a.b"),
    *(b"=?utf-8?q?=41?=", b"..", b"/", b"\xff", "ä".encode()),
]
dispositions = st.lists(
    st.sampled_from(DISPOSITION_PARTS) | st.binary(max_size=5), max_size=14
).map(b"".join)


@given(dispositions)
def test_any_disposition_is_read_without_error(value: bytes) -> None:
    scope = {"type": "http", "method": "POST", "headers": [(b"content-disposition", value)]}
    form = b'--x\r\nContent-Disposition: form-data; name="f"; ' + value + b"\r\n\r\nbody"

    for name in (read_request_head(Connection(scope)).filename, form_filename(form)):
        text = name or "none"
        assert 0 < len(text) <= MAX_NAME_CHARACTERS
        assert text.encode("utf-8")
        assert not set(text) & {"/", "\\"}


@given(st.binary(max_size=3000))
def test_any_form_is_searched_without_error(start: bytes) -> None:
    name = form_filename(start)

    assert name is None or len(name) <= MAX_NAME_CHARACTERS


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ([], "", None),
        ([("upload-id", "a")], "", "a"),
        ([("upload-id", "a"), ("upload-id", "b")], "", "a"),
        ([("upload-id", "a"), ("x-progress-id", "b")], "upload_id=c&X-Progress-ID=d", "a"),
        ([("x-progress-id", "b")], "upload_id=c&X-Progress-ID=d", "c"),
        ([("x-progress-id", "b")], "X-Progress-ID=d", "b"),
        ([], "X-Progress-ID=d", "d"),
        ([], "upload_id=c&upload_id=d", "c"),
        ([("upload-id", "")], "upload_id=c", ""),
        ([("upload-id", "../x")], "upload_id=c", "../x"),
    ],
)
def test_only_the_first_id_is_used(
    headers: list[tuple[str, str]], query: str, expected: str | None
) -> None:
    """A12: the first one present is used, even if it is invalid."""
    assert head(*headers, query=query).requested_id == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("123", 123),
        ("9007199254740991", 2**53 - 1),
        ("9007199254740992", None),
        ("9" * 18, None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1_0", None),
        (" 1", 1),
        ("٣", None),
        ("", None),
        ("5, 5", 5),
        ("5,", None),
        ("5, 6", None),
        ("5, -5", None),
    ],
)
def test_content_length(text: str, expected: int | None) -> None:
    """Sizes that not every JSON reader can represent, and different sizes, are unknown."""
    values = text.split(",")
    for headers in ([text], values):
        named = [("content-length", value) for value in headers]
        assert head(*named).total_bytes == expected


def test_chunked_body_has_no_length() -> None:
    """Also with both headers, as in request smuggling: no length is used."""
    chunked = ("transfer-encoding", "chunked")

    assert head(chunked).total_bytes is None
    assert head(("content-length", "5"), chunked).total_bytes is None


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename=plain", "plain"),
        ("attachment; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
        ("attachment; filename*=utf-8'en'%41", "A"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\dir\\\\x.exe"', "x.exe"),
        ('attachment; filename="umläut"', "umläut"),
        ("attachment; filename*=nonsense''%FF", "ÿ"),
        ("attachment", None),
        ("", None),
        ('attachment; filename="dir/"', None),
    ],
)
def test_filename_of_a_disposition(disposition: str, expected: str | None) -> None:
    """RFC 6266 and RFC 8187; the path is removed."""
    assert head(("content-disposition", disposition)).filename == expected


def test_filename_of_a_path() -> None:
    assert head(method="PUT", path="/files/a.bin").filename == "a.bin"
    assert head(method="PUT", path="/files/a.bin/").filename == "a.bin"
    assert head(method="PUT", path="/").filename is None
    assert head(method="POST", path="/files/a.bin").filename is None
    named = head(("content-disposition", "x"), method="PUT", path="/a.bin")
    assert named.filename == "a.bin"
    assert head(method="PUT", path="/\ud800" + "x" * 999).filename == "?" + "x" * 254


@pytest.mark.parametrize(
    "disposition",
    [
        "attachment" + ';x="' * 50_000,
        'attachment; filename="' + ";" * 200_000,
        "attachment; filename=" + "a" * 200_000,
        "attachment" + "; filename*0=a" * 10_000,
    ],
    ids=["open quotes", "semicolons", "long name", "continuations"],
)
def test_huge_disposition_is_ignored_at_once(disposition: str) -> None:
    """The parser of the standard library needs 23 s for the first one."""
    start_seconds = time.process_time()
    named = head(("content-disposition", disposition), method="PUT", path="/files/a.bin")

    assert named.filename == "a.bin"
    assert time.process_time() - start_seconds < 1


def test_group() -> None:
    assert head(("upload-group", "g"), query="upload_group=h").group == "g"
    assert head(query="upload_group=h").group == "h"
    for bad in ("", "a\r\nb", "x" * 129, "a\0"):
        assert head(("upload-group", bad)).group is None


def test_content_type_and_proxy() -> None:
    form = head(("content-type", "Multipart/Form-Data; boundary=x"), ("via", "1.1 p"))

    assert (form.content_type, form.is_form, form.is_proxied) == ("multipart/form-data", True, True)
    plain = head(("content-type", ""))
    assert (plain.content_type, plain.is_form, plain.is_proxied) == (None, False, False)


def test_filename_of_a_form() -> None:
    start = (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nfilename=no\r\n'
        b'--x\r\ncontent-disposition: form-data; name="f"; filename="\xc3\xa4.bin"\r\n\r\n'
        b'--x\r\nContent-Disposition: form-data; name="g"; filename="second"\r\n\r\n'
    )

    assert form_filename(start) == "ä.bin"
    assert form_filename(b" " * FORM_PREFIX_BYTES + b"\r\n" + start) is None
    assert form_filename(b"") is None


@pytest.mark.parametrize(
    "field",
    [
        b'name="resumableFilename"\r\n\r\nother.bin',
        b'name="filename"\r\n\r\nother.bin',
        b'name="filename="\r\n\r\nother.bin',
        b'name="a"; filename=""\r\n\r\n',
        b'name="a"\r\n\r\n\r\n\r\nfilename=other.bin\r\n\r\n',
    ],
)
def test_only_a_part_with_a_file_names_it(field: bytes) -> None:
    disposition = b"--x\r\nContent-Disposition: form-data; "
    file = disposition + b'name="file"; filename=cat.png\r\n\r\n'

    assert form_filename(disposition + field + b"\r\n" + file) == "cat.png"
    assert form_filename(disposition + field) is None


def test_search_of_a_form_is_fast() -> None:
    """A20: the worst input takes a few milliseconds."""
    worst_case = b"content-disposition: form-data;" + b"filename" * 400 + b"\0" * 800
    start_seconds = time.process_time()
    for _ in range(10):
        form_filename(worst_case)
        form_filename(b"content-disposition:" * 200)
        form_filename(b"content-disposition: form-data; filename\n" * 100)

    assert time.process_time() - start_seconds < 2


@pytest.mark.parametrize("error", [LookupError, ValueError, TypeError])
def test_errors_of_the_email_package_are_ignored(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(_message: Message) -> None:
        raise error

    monkeypatch.setattr(Message, "get_filename", fail)

    assert head(("content-disposition", "attachment; filename=a")).filename is None
