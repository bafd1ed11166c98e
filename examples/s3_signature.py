"""Verification of AWS Signature Version 4: of a request head, and of an aws-chunked body.

Used by s3_gateway.py, and separate from it because it is needed for S3 only, not for progress.
The secret key of a user is the user's name. Source: "Authenticating Requests (AWS Signature
Version 4)" in the Amazon S3 API reference.
"""

import base64
import hashlib
import hmac
import re
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from attrs import field, frozen
from starlette.exceptions import HTTPException
from starlette.requests import Request

from upload_progress import Connection, Identity

USERS = ("alice", "bob")
ALGORITHM = "AWS4-HMAC-SHA256"
SIGNED_CHUNKS, UNSIGNED_CHUNKS = (
    f"STREAMING-{ALGORITHM}-PAYLOAD",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)
UNSIGNED = "UNSIGNED-PAYLOAD"
CONTENT_SHA256 = "x-amz-content-sha256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<user>\w+)/(?P<scope>(?P<day>\d{{8}})/[\w-]+/s3/aws4_request), ?"
    r"SignedHeaders=(?P<headers>[\w;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
MAX_CLOCK_SKEW = timedelta(minutes=15)
MAX_CHUNK_BYTES = 16 * 1024 * 1024
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@frozen
class Signature:
    """The signature of a request, not yet verified."""

    user: str
    scope: str
    day: str
    headers: str
    signature: str = field(repr=False)
    date: str

    @classmethod
    def of(cls, connection: Connection) -> "Signature | None":
        match = AUTHORIZATION.fullmatch(connection.header("authorization") or "")
        date = connection.header("x-amz-date")
        return cls(**match.groupdict(), date=date) if match and date else None

    def sign(self, algorithm: str, *lines: str) -> str:
        """Return the signature of *lines*, in hexadecimal digits."""
        key = f"AWS4{self.user}".encode()
        for component in self.scope.split("/"):
            key = hmac.digest(key, component.encode(), "sha256")
        text = "\n".join([algorithm, self.date, self.scope, *lines])
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def is_recent(self) -> bool:
        try:
            date = datetime.strptime(self.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return False
        return self.date.startswith(self.day) and abs(datetime.now(UTC) - date) < MAX_CLOCK_SKEW


def signature_identity(connection: Connection) -> Identity | None:
    """Authenticate a request by its signature; an authenticator for the tracker."""
    signature = Signature.of(connection)
    if signature is None or signature.user not in USERS or not signature.is_recent():
        return None
    text = canonical_request(connection, signature.headers)
    expected = signature.sign(ALGORITHM, hashlib.sha256(text.encode()).hexdigest())
    is_valid = hmac.compare_digest(expected, signature.signature)
    return Identity(signature.user) if is_valid else None


def canonical_request(connection: Connection, headers: str) -> str:
    query = parse_qsl(connection.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    pairs = sorted((quote(key, safe="-_.~"), quote(value, safe="-_.~")) for key, value in query)
    lines = [
        f"{name}:{','.join(' '.join(value.split()) for value in connection.headers(name))}"
        for name in headers.split(";")
    ]
    return "\n".join(
        [
            connection.method,
            connection.scope["raw_path"].decode("latin-1"),
            "&".join(f"{key}={value}" for key, value in pairs),
            *lines,
            "",
            headers,
            connection.header(CONTENT_SHA256) or UNSIGNED,
        ]
    )


async def verified_body(request: Request) -> AsyncIterator[bytes]:
    """Yield the decoded body; raise at its end if a checksum or signature does not match."""
    headers = dict(request.headers)
    chunks: AsyncIterator[bytes] = request.stream()
    if headers.get(CONTENT_SHA256) in {SIGNED_CHUNKS, UNSIGNED_CHUNKS}:
        chunks = decode_chunks(
            ChunkReader(chunks), Signature.of(Connection(request.scope)), headers
        )
    sha256, md5, crc32 = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    async for chunk in chunks:
        sha256.update(chunk)
        md5.update(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        yield chunk
    expected = {
        CONTENT_SHA256: sha256.hexdigest(),
        "content-md5": base64.b64encode(md5.digest()).decode(),
        "x-amz-checksum-crc32": base64.b64encode(crc32.to_bytes(4, "big")).decode(),
    }
    for name, digest in expected.items():
        if headers.get(name, digest) not in {digest, UNSIGNED, SIGNED_CHUNKS, UNSIGNED_CHUNKS}:
            raise HTTPException(400, "BadDigest")


async def decode_chunks(
    reader: "ChunkReader", signature: Signature | None, headers: dict[str, str]
) -> AsyncIterator[bytes]:
    """Decode and verify an ``aws-chunked`` body; add its trailers to *headers*."""
    previous = signature.signature if signature else ""
    length = 0
    while True:
        match = CHUNK.fullmatch(await reader.read_line())
        if match is None:
            raise HTTPException(400, "IncompleteBody")
        data = await reader.read(int(match[1], 16))
        if signature and headers[CONTENT_SHA256] == SIGNED_CHUNKS:
            digest = hashlib.sha256(data).hexdigest()
            expected = signature.sign(f"{ALGORITHM}-PAYLOAD", previous, EMPTY_SHA256, digest)
            if not hmac.compare_digest(expected.encode(), match[2] or b""):
                raise HTTPException(403, "SignatureDoesNotMatch")
            previous = expected
        if not data:
            break
        length += len(data)
        yield data
        await reader.read_line()
    while line := await reader.read_line():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("x-amz-decoded-content-length") != str(length):
        raise HTTPException(400, "IncompleteBody")


class ChunkReader:
    """Reads lines and byte counts from a stream of buffers."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.buffer = b""

    async def fill(self) -> None:
        data = await anext(self.stream, b"")
        if not data or len(self.buffer) > MAX_CHUNK_BYTES:
            raise HTTPException(400, "IncompleteBody")
        self.buffer += data

    async def read_line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            await self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.fill()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data
