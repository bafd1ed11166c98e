"""The example servers refuse what is wrong, also where real clients never go."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from hmac import digest as sign
from pathlib import Path

import httpx2
import pytest

from tests._support.upload_watcher import ExampleServer, run_example
from tests.clients.conftest import BYTES_PER_SECOND

NOTHING = f"sha256:{hashlib.sha256(b'').hexdigest()}"
DATA = os.urandom(100_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
TUS = {"Tus-Resumable": "1.0.0"}
BOB = ("bob", "bob")

# --- one PUT --------------------------------------------------------------------------------------


def test_a_piece_must_follow_what_is_here(files: ExampleServer) -> None:
    def put(place: str, content: bytes = b"") -> httpx2.Response:
        return files.http.put("/files/pieces", content=content, headers={"Content-Range": place})

    answers = [
        put("bytes 0-3/8", b"0123"),
        put("bytes */8"),
        put("bytes 6-7/8", b"67"),
        put("bytes 4-9/8", b"456789"),
        put("nonsense", b"4567"),
        put("bytes 4-7/8", b"4567"),
    ]

    assert [answer.status_code for answer in answers] == [308, 308, 416, 400, 400, 201]
    assert answers[1].headers["range"] == "bytes=0-3"
    assert files.http.get("/files/pieces").content == b"01234567"


def test_files_are_private_and_names_are_no_paths(files: ExampleServer) -> None:
    files.http.put("/files/mine", content=DATA)

    assert files.http.get("/files/mine", auth=BOB).status_code == 404
    assert httpx2.get(f"{files.url}/files/mine").status_code == 401
    assert files.http.get("/files/mine", auth=("alice", "bob")).status_code == 401
    assert files.http.put("/files/..%2f..%2fescaped", content=b"").status_code == 404
    assert files.http.put("/files/%2e%2e", content=b"").status_code in {400, 404, 405}
    assert files.http.put("/files/.hidden", content=b"").status_code == 400


def test_files_outlive_the_server(tmp_path: Path) -> None:
    for method, content in (("PUT", DATA), ("GET", b"")):
        with run_example(
            "generic_put.py", "--data", str(tmp_path), bytes_per_second=BYTES_PER_SECOND
        ) as server:
            answer = server.http.request(method, "/files/kept", content=content)

    assert answer.content == DATA


# --- the index ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("tidy", "tidy-1.0.tar.gz", "0" * 64),
        ("tidy", "other-1.0.tar.gz", ""),
        ("../tidy", "tidy-1.0.tar.gz", ""),
        ("tidy", ".htaccess", ""),
    ],
)
def test_a_package_must_be_what_it_says(
    index: ExampleServer, name: str, file: str, said: str
) -> None:
    form = {":action": "file_upload", "name": name, "sha256_digest": said}
    answer = index.http.post("/legacy/", data=form, files={"content": (file, DATA)})

    assert answer.status_code == 400
    assert index.http.get("/simple/tidy/").status_code == 404


def test_a_package_is_listed_as_html_and_json_and_never_changes(index: ExampleServer) -> None:
    def post(content: bytes) -> int:
        form = {":action": "file_upload", "name": "Fine.Name"}
        files = {"content": ("fine_name-1.0.tar.gz", content)}
        return index.http.post("/legacy/", data=form, files=files).status_code

    assert [post(DATA), post(DATA), post(b"other")] == [200, 200, 400]
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    page = index.http.get("/simple/Fine.Name/", follow_redirects=True)
    document = index.http.get("/simple/fine-name/", headers=accept).json()
    everything = index.http.get("/simple/", headers=accept).json()
    assert f"#sha256={DIGEST.partition(':')[2]}" in page.text
    assert document["files"][0]["hashes"] == {"sha256": DIGEST.partition(":")[2]}
    assert {"name": "fine-name"} in everything["projects"]


# --- the registry ---------------------------------------------------------------------------------


def begun(registry: ExampleServer, repository: str = "alice/odd") -> str:
    answer = registry.http.post(f"/v2/{repository}/blobs/uploads/")
    assert answer.status_code == 202
    return answer.headers["location"]


def test_a_blob_comes_in_pieces_and_is_asked_for(registry: ExampleServer) -> None:
    place = begun(registry)
    first = registry.http.patch(place, content=DATA[:50], headers={"Content-Range": "0-49"})
    again = registry.http.patch(place, content=DATA[:50], headers={"Content-Range": "0-49"})
    asked = registry.http.get(place)
    last = registry.http.put(place, params={"digest": DIGEST}, content=DATA[50:])
    part = registry.http.get(f"/v2/alice/odd/blobs/{DIGEST}", headers={"Range": "bytes=50-99"})

    assert (first.status_code, again.status_code) == (202, 416)
    assert (asked.status_code, asked.headers["range"]) == (204, "0-49")
    assert last.headers["docker-content-digest"] == DIGEST
    assert (part.status_code, part.content) == (206, DATA[50:100])


def test_a_blob_is_mounted_taken_whole_or_given_up(registry: ExampleServer) -> None:
    take = {"digest": DIGEST}
    whole = registry.http.post("/v2/alice/one/blobs/uploads/", params=take, content=DATA)
    mount = {"mount": DIGEST, "from": "alice/one"}
    mounted = registry.http.post("/v2/alice/two/blobs/uploads/", params=mount)
    missing = registry.http.post(
        "/v2/alice/two/blobs/uploads/", params={"mount": NOTHING, "from": "alice/one"}
    )
    given_up = registry.http.delete(missing.headers["location"])

    assert [whole.status_code, mounted.status_code, missing.status_code] == [201, 201, 202]
    assert registry.http.head(f"/v2/alice/two/blobs/{DIGEST}").status_code == 200
    assert given_up.status_code == 204
    assert registry.http.get(missing.headers["location"]).status_code == 404


def test_a_blob_must_have_its_digest(registry: ExampleServer) -> None:
    answer = registry.http.put(begun(registry), params={"digest": NOTHING}, content=DATA)
    none = registry.http.put(begun(registry), params={"digest": "sha256:x"}, content=DATA)

    assert answer.json() == {"errors": [{"code": "DIGEST_INVALID"}]}
    assert none.status_code == 400


def test_a_repository_belongs_to_somebody(registry: ExampleServer) -> None:
    address = "/v2/alice/hers/blobs/uploads/"

    assert registry.http.post(address, auth=BOB).status_code == 403
    assert httpx2.post(registry.url + address).json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert registry.http.post("/v2/alice/../x/blobs/uploads/").status_code in {400, 403, 404}
    assert registry.http.post("/v2/alice/UPPER/blobs/uploads/").status_code == 400


def test_manifests_and_tags(registry: ExampleServer) -> None:
    at = "/v2/alice/tags"
    registry.http.post(f"{at}/blobs/uploads/", params={"digest": DIGEST}, content=DATA)
    good = {"schemaVersion": 2, "config": {"digest": DIGEST}, "layers": []}
    put = [registry.http.put(f"{at}/manifests/{tag}", json=good) for tag in ("a", "b", "c")]
    digest = put[0].headers["docker-content-digest"]
    missing = registry.http.put(f"{at}/manifests/d", json={"layers": [{"digest": NOTHING}]})
    broken = registry.http.put(f"{at}/manifests/d", content=b"{")
    other = registry.http.put(f"{at}/manifests/{NOTHING}", json=good)
    page = registry.http.get(f"{at}/tags/list", params={"n": "2"})

    assert [missing.status_code, broken.status_code, other.status_code] == [404, 400, 400]
    assert page.json() == {"name": "alice/tags", "tags": ["a", "b"]}
    assert registry.http.get(page.links["next"]["url"]).json()["tags"] == ["c"]
    assert registry.http.get(f"{at}/manifests/{digest}").json() == good
    deleted = [f"{at}/manifests/a", f"{at}/manifests/{digest}", f"{at}/blobs/{DIGEST}"]
    assert [registry.http.delete(each).status_code for each in deleted] == [202, 202, 202]
    assert registry.http.get(f"{at}/manifests/b").status_code == 404
    assert registry.http.delete(f"{at}/blobs/{DIGEST}").status_code == 404


# --- tus ------------------------------------------------------------------------------------------


def test_an_upload_of_tus_is_private_and_given_back_when_it_is_whole(tus: ExampleServer) -> None:
    metadata = {"Upload-Metadata": "filename YQ==,filetype YQ=="}
    headers = {**TUS, "Upload-Length": "8", **metadata}
    place = tus.http.post("/files/", headers=headers).headers["location"]
    transfer_head = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    tus.http.patch(place, content=b"0123", headers=transfer_head)
    early = tus.http.get(place)
    tus.http.patch(place, content=b"4567", headers={**transfer_head, "Upload-Offset": "4"})

    assert early.status_code == 404
    assert tus.http.get(place).content == b"01234567"
    assert tus.http.get(place, auth=BOB).status_code == 404
    assert httpx2.get(place).status_code == 401
    assert tus.http.post("/files/", headers=headers, auth=("bob", "")).status_code == 401


# --- S3 -------------------------------------------------------------------------------------------

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()


class Signer:
    """Signs requests to S3 by the book: no client at hand sends chunks that are signed."""

    def __init__(self, name: str = "alice") -> None:
        self.date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.scope = f"{self.date[:8]}/us-east-1/s3/aws4_request"
        self.key = f"AWS4{name}".encode()
        for word in self.scope.split("/"):
            self.key = sign(self.key, word.encode(), "sha256")

    def sign(self, kind: str, *lines: str) -> str:
        text = "\n".join([kind, self.date, self.scope, *lines])
        return sign(self.key, text.encode(), "sha256").hex()

    def headers(self, method: str, path: str, digest: str) -> dict[str, str]:
        names = "x-amz-content-sha256;x-amz-date"
        text = f"{method}\n{path}\n\nx-amz-content-sha256:{digest}\nx-amz-date:{self.date}\n\n"
        text += f"{names}\n{digest}"
        signature = self.sign("AWS4-HMAC-SHA256", hashlib.sha256(text.encode()).hexdigest())
        credential = f"Credential=alice/{self.scope}, SignedHeaders={names}, Signature={signature}"
        return {
            "Authorization": f"AWS4-HMAC-SHA256 {credential}",
            "X-Amz-Date": self.date,
            "X-Amz-Content-SHA256": digest,
        }

    def chunks(self, seed: str, *pieces: bytes) -> bytes:
        body = b""
        for transfer_head in [*pieces, b""]:
            digest = hashlib.sha256(transfer_head).hexdigest()
            seed = self.sign("AWS4-HMAC-SHA256-PAYLOAD", seed, EMPTY, digest)
            body += b"%x;chunk-signature=%s\r\n%s\r\n" % (
                len(transfer_head),
                seed.encode(),
                transfer_head,
            )
        return body


@pytest.fixture
def bucket(s3: ExampleServer) -> str:
    path = "/odd-bucket"
    made = s3.http.put(path, headers=Signer().headers("PUT", path, EMPTY))
    assert made.status_code == 200
    return path


CHANGES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "as it was": (lambda body: body, 200),
    "another byte": (lambda body: body.replace(DATA[:9], b"otherwise", 1), 403),
    "cut": (lambda body: body[: len(body) // 2], 400),
    "no size": (lambda body: b"x" + body, 400),
}


@pytest.mark.parametrize("name", CHANGES)
def test_chunks_that_are_signed(name: str, s3: ExampleServer, bucket: str) -> None:
    change, status = CHANGES[name]
    signer, path = Signer(), f"{bucket}/chunks"
    headers = signer.headers("PUT", path, SIGNED_CHUNKS)
    seed = headers["Authorization"].rpartition("=")[2]
    body = change(signer.chunks(seed, DATA[:70_000], DATA[70_000:]))
    headers["X-Amz-Decoded-Content-Length"] = str(len(DATA))
    answer = s3.http.put(path, content=body, headers=headers)

    assert answer.status_code == status, answer.text


def test_who_has_not_signed_is_refused(s3: ExampleServer, bucket: str) -> None:
    path = f"{bucket}/x"
    digest = hashlib.sha256(DATA).hexdigest()
    forged = s3.http.put(path, content=b"", headers=Signer("bob").headers("PUT", path, digest))
    changed = s3.http.put(path, content=b"x", headers=Signer().headers("PUT", path, digest))
    nobody = s3.http.put(path, content=b"")

    assert [forged.status_code, changed.status_code, nobody.status_code] == [403, 400, 403]
    assert "<Code>BadDigest</Code>" in changed.text
    missing = s3.http.get(path, headers=Signer().headers("GET", path, EMPTY))
    assert missing.status_code == 404
