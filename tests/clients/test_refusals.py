"""The example servers refuse invalid requests that real clients do not send."""

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

DIGEST_OF_NOTHING = f"sha256:{hashlib.sha256(b'').hexdigest()}"
DATA = os.urandom(100_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
TUS = {"Tus-Resumable": "1.0.0"}
BOB = ("bob", "bob")

# --- one PUT --------------------------------------------------------------------------------------


def test_range_must_follow_the_received_bytes(files: ExampleServer) -> None:
    def put(content_range: str, content: bytes = b"") -> httpx2.Response:
        return files.http.put(
            "/files/ranges", content=content, headers={"Content-Range": content_range}
        )

    responses = [
        put("bytes 0-3/8", b"0123"),
        put("bytes */8"),
        put("bytes 6-7/8", b"67"),
        put("bytes 4-9/8", b"456789"),
        put("nonsense", b"4567"),
        put("bytes 4-7/8", b"4567"),
    ]

    assert [response.status_code for response in responses] == [308, 308, 416, 400, 400, 201]
    assert responses[1].headers["range"] == "bytes=0-3"
    assert files.http.get("/files/ranges").content == b"01234567"


def test_files_are_private_and_names_are_not_paths(files: ExampleServer) -> None:
    files.http.put("/files/mine", content=DATA)

    assert files.http.get("/files/mine", auth=BOB).status_code == 404
    assert httpx2.get(f"{files.url}/files/mine").status_code == 401
    assert files.http.get("/files/mine", auth=("alice", "bob")).status_code == 401
    assert files.http.put("/files/..%2f..%2fescaped", content=b"").status_code == 404
    assert files.http.put("/files/%2e%2e", content=b"").status_code in {400, 404, 405}
    assert files.http.put("/files/.hidden", content=b"").status_code == 400


def test_files_persist_after_a_restart(tmp_path: Path) -> None:
    for method, content in (("PUT", DATA), ("GET", b"")):
        with run_example(
            "generic_put.py", "--data", str(tmp_path), bytes_per_second=BYTES_PER_SECOND
        ) as server:
            response = server.http.request(method, "/files/kept", content=content)

    assert response.content == DATA


# --- the index ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file", "digest"),
    [
        ("tidy", "tidy-1.0.tar.gz", "0" * 64),
        ("tidy", "other-1.0.tar.gz", ""),
        ("../tidy", "tidy-1.0.tar.gz", ""),
        ("tidy", ".htaccess", ""),
    ],
)
def test_invalid_package_is_refused(
    index: ExampleServer, name: str, file: str, digest: str
) -> None:
    form = {":action": "file_upload", "name": name, "sha256_digest": digest}
    response = index.http.post("/legacy/", data=form, files={"content": (file, DATA)})

    assert response.status_code == 400
    assert index.http.get("/simple/tidy/").status_code == 404


def test_package_is_listed_and_cannot_be_replaced(index: ExampleServer) -> None:
    def post(content: bytes) -> int:
        form = {":action": "file_upload", "name": "Fine.Name"}
        files = {"content": ("fine_name-1.0.tar.gz", content)}
        return index.http.post("/legacy/", data=form, files=files).status_code

    assert [post(DATA), post(DATA), post(b"other")] == [200, 200, 400]
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    page = index.http.get("/simple/Fine.Name/", follow_redirects=True)
    document = index.http.get("/simple/fine-name/", headers=accept).json()
    index_document = index.http.get("/simple/", headers=accept).json()
    assert f"#sha256={DIGEST.partition(':')[2]}" in page.text
    assert document["files"][0]["hashes"] == {"sha256": DIGEST.partition(":")[2]}
    assert {"name": "fine-name"} in index_document["projects"]


# --- the registry ---------------------------------------------------------------------------------


def open_session(registry: ExampleServer, repository: str = "alice/odd") -> str:
    response = registry.http.post(f"/v2/{repository}/blobs/uploads/")
    assert response.status_code == 202
    return response.headers["location"]


def test_blob_in_chunks_and_its_status(registry: ExampleServer) -> None:
    url = open_session(registry)
    first = registry.http.patch(url, content=DATA[:50], headers={"Content-Range": "0-49"})
    repeated = registry.http.patch(url, content=DATA[:50], headers={"Content-Range": "0-49"})
    status = registry.http.get(url)
    last = registry.http.put(url, params={"digest": DIGEST}, content=DATA[50:])
    part = registry.http.get(f"/v2/alice/odd/blobs/{DIGEST}", headers={"Range": "bytes=50-99"})

    assert (first.status_code, repeated.status_code) == (202, 416)
    assert (status.status_code, status.headers["range"]) == (204, "0-49")
    assert last.headers["docker-content-digest"] == DIGEST
    assert (part.status_code, part.content) == (206, DATA[50:100])


def test_blob_is_posted_mounted_or_cancelled(registry: ExampleServer) -> None:
    digest = {"digest": DIGEST}
    posted = registry.http.post("/v2/alice/one/blobs/uploads/", params=digest, content=DATA)
    mount = {"mount": DIGEST, "from": "alice/one"}
    mounted = registry.http.post("/v2/alice/two/blobs/uploads/", params=mount)
    missing = registry.http.post(
        "/v2/alice/two/blobs/uploads/", params={"mount": DIGEST_OF_NOTHING, "from": "alice/one"}
    )
    cancelled = registry.http.delete(missing.headers["location"])

    assert [posted.status_code, mounted.status_code, missing.status_code] == [201, 201, 202]
    assert registry.http.head(f"/v2/alice/two/blobs/{DIGEST}").status_code == 200
    assert cancelled.status_code == 204
    assert registry.http.get(missing.headers["location"]).status_code == 404


def test_blob_with_wrong_digest_is_refused(registry: ExampleServer) -> None:
    response = registry.http.put(
        open_session(registry), params={"digest": DIGEST_OF_NOTHING}, content=DATA
    )
    none = registry.http.put(open_session(registry), params={"digest": "sha256:x"}, content=DATA)

    assert response.json() == {"errors": [{"code": "DIGEST_INVALID"}]}
    assert none.status_code == 400


def test_repository_of_another_user_is_refused(registry: ExampleServer) -> None:
    address = "/v2/alice/hers/blobs/uploads/"

    assert registry.http.post(address, auth=BOB).status_code == 403
    assert httpx2.post(registry.url + address).json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert registry.http.post("/v2/alice/../x/blobs/uploads/").status_code in {400, 403, 404}
    assert registry.http.post("/v2/alice/UPPER/blobs/uploads/").status_code == 400


def test_manifests_and_tags(registry: ExampleServer) -> None:
    at = "/v2/alice/tags"
    registry.http.post(f"{at}/blobs/uploads/", params={"digest": DIGEST}, content=DATA)
    manifest = {"schemaVersion": 2, "config": {"digest": DIGEST}, "layers": []}
    put = [registry.http.put(f"{at}/manifests/{tag}", json=manifest) for tag in ("a", "b", "c")]
    digest = put[0].headers["docker-content-digest"]
    missing = registry.http.put(
        f"{at}/manifests/d", json={"layers": [{"digest": DIGEST_OF_NOTHING}]}
    )
    broken = registry.http.put(f"{at}/manifests/d", content=b"{")
    other = registry.http.put(f"{at}/manifests/{DIGEST_OF_NOTHING}", json=manifest)
    page = registry.http.get(f"{at}/tags/list", params={"n": "2"})

    assert [missing.status_code, broken.status_code, other.status_code] == [404, 400, 400]
    assert page.json() == {"name": "alice/tags", "tags": ["a", "b"]}
    assert registry.http.get(page.links["next"]["url"]).json()["tags"] == ["c"]
    assert registry.http.get(f"{at}/manifests/{digest}").json() == manifest
    deleted = [f"{at}/manifests/a", f"{at}/manifests/{digest}", f"{at}/blobs/{DIGEST}"]
    assert [registry.http.delete(each).status_code for each in deleted] == [202, 202, 202]
    assert registry.http.get(f"{at}/manifests/b").status_code == 404
    assert registry.http.delete(f"{at}/blobs/{DIGEST}").status_code == 404


# --- tus ------------------------------------------------------------------------------------------


def test_tus_upload_is_private_and_downloadable_when_complete(tus: ExampleServer) -> None:
    metadata = {"Upload-Metadata": "filename YQ==,filetype YQ=="}
    headers = {**TUS, "Upload-Length": "8", **metadata}
    url = tus.http.post("/files/", headers=headers).headers["location"]
    patch_headers = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    tus.http.patch(url, content=b"0123", headers=patch_headers)
    early = tus.http.get(url)
    tus.http.patch(url, content=b"4567", headers={**patch_headers, "Upload-Offset": "4"})

    assert early.status_code == 404
    assert tus.http.get(url).content == b"01234567"
    assert tus.http.get(url, auth=BOB).status_code == 404
    assert httpx2.get(url).status_code == 401
    assert tus.http.post("/files/", headers=headers, auth=("bob", "")).status_code == 401


# --- S3 -------------------------------------------------------------------------------------------

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SHA256_OF_NOTHING = hashlib.sha256(b"").hexdigest()


class Signer:
    """Signs requests to S3 (Signature Version 4), with signed chunks, which boto3 does not send."""

    def __init__(self, name: str = "alice") -> None:
        self.date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.scope = f"{self.date[:8]}/us-east-1/s3/aws4_request"
        self.key = f"AWS4{name}".encode()
        for word in self.scope.split("/"):
            self.key = sign(self.key, word.encode(), "sha256")

    def sign(self, algorithm: str, *lines: str) -> str:
        text = "\n".join([algorithm, self.date, self.scope, *lines])
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

    def chunks(self, previous_signature: str, *chunks: bytes) -> bytes:
        body = b""
        for chunk in [*chunks, b""]:
            digest = hashlib.sha256(chunk).hexdigest()
            previous_signature = self.sign(
                "AWS4-HMAC-SHA256-PAYLOAD", previous_signature, SHA256_OF_NOTHING, digest
            )
            body += b"%x;chunk-signature=%s\r\n%s\r\n" % (
                len(chunk),
                previous_signature.encode(),
                chunk,
            )
        return body


@pytest.fixture
def bucket(s3: ExampleServer) -> str:
    path = "/odd-bucket"
    response = s3.http.put(path, headers=Signer().headers("PUT", path, SHA256_OF_NOTHING))
    assert response.status_code == 200
    return path


CHANGES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "unchanged": (lambda body: body, 200),
    "changed": (lambda body: body.replace(DATA[:9], b"otherwise", 1), 403),
    "truncated": (lambda body: body[: len(body) // 2], 400),
    "invalid size": (lambda body: b"x" + body, 400),
}


@pytest.mark.parametrize("name", CHANGES)
def test_signed_chunks(name: str, s3: ExampleServer, bucket: str) -> None:
    change, status = CHANGES[name]
    signer, path = Signer(), f"{bucket}/chunks"
    headers = signer.headers("PUT", path, SIGNED_CHUNKS)
    previous_signature = headers["Authorization"].rpartition("=")[2]
    body = change(signer.chunks(previous_signature, DATA[:70_000], DATA[70_000:]))
    headers["X-Amz-Decoded-Content-Length"] = str(len(DATA))
    response = s3.http.put(path, content=body, headers=headers)

    assert response.status_code == status, response.text


def test_invalid_signature_is_refused(s3: ExampleServer, bucket: str) -> None:
    path = f"{bucket}/x"
    digest = hashlib.sha256(DATA).hexdigest()
    forged = s3.http.put(path, content=b"", headers=Signer("bob").headers("PUT", path, digest))
    changed = s3.http.put(path, content=b"x", headers=Signer().headers("PUT", path, digest))
    unsigned = s3.http.put(path, content=b"")

    assert [forged.status_code, changed.status_code, unsigned.status_code] == [403, 400, 403]
    assert "<Code>BadDigest</Code>" in changed.text
    missing = s3.http.get(path, headers=Signer().headers("GET", path, SHA256_OF_NOTHING))
    assert missing.status_code == 404
