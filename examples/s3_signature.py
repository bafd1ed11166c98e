"""Whose request to S3 is this, and is its body what was signed?

Source: AWS Signature Version 4 for S3: in the header, and in chunks of an ``aws-chunked`` body.
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

from common import USERS
from upload_progress import Connection, Identity

ALGORITHM = "AWS4-HMAC-SHA256"
SIGNED_CHUNKS, PLAIN_CHUNKS = f"STREAMING-{ALGORITHM}-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
UNSIGNED = "UNSIGNED-PAYLOAD"
DIGEST = "x-amz-content-sha256"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=(?P<user>\w+)/(?P<scope>(?P<day>\d{{8}})/[\w-]+/s3/aws4_request), ?"
    r"SignedHeaders=(?P<headers>[\w;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
MOST_SKEW = timedelta(minutes=15)
LARGEST_CHUNK_BYTES = 16 * 1024 * 1024
NOTHING = hashlib.sha256(b"").hexdigest()


@frozen
class Signature:
    """The signature of a request, not yet compared with anything."""

    user: str
    scope: str
    day: str
    headers: str
    signature: str = field(repr=False)
    date: str

    @classmethod
    def of(cls, connection: Connection) -> "Signature | None":
        found = AUTHORIZATION.fullmatch(connection.header("authorization") or "")
        date = connection.header("x-amz-date")
        return cls(**found.groupdict(), date=date) if found and date else None

    def sign(self, kind: str, *lines: str) -> str:
        """Return what the user's secret, which is their name, makes of these lines."""
        key = f"AWS4{self.user}".encode()
        for word in self.scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        text = "\n".join([kind, self.date, self.scope, *lines])
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def is_recent(self) -> bool:
        try:
            date = datetime.strptime(self.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return False
        return self.date.startswith(self.day) and abs(datetime.now(UTC) - date) < MOST_SKEW


def signed(connection: Connection) -> Identity | None:
    """Say whose request it is, by its signature: an authenticator."""
    signature = Signature.of(connection)
    if signature is None or signature.user not in USERS or not signature.is_recent():
        return None
    text = canonical(connection, signature.headers)
    right = signature.sign(ALGORITHM, hashlib.sha256(text.encode()).hexdigest())
    return Identity(signature.user) if hmac.compare_digest(right, signature.signature) else None


def canonical(connection: Connection, headers: str) -> str:
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
            connection.header(DIGEST) or UNSIGNED,
        ]
    )


async def body_of(request: Request) -> AsyncIterator[bytes]:
    """Yield the body's bytes, out of their chunks; raise at the end if they are not as signed."""
    said = dict(request.headers)
    chunks: AsyncIterator[bytes] = request.stream()
    if said.get(DIGEST) in {SIGNED_CHUNKS, PLAIN_CHUNKS}:
        chunks = unchunked(Reader(chunks), Signature.of(Connection(request.scope)), said)
    sha256, md5, crc32 = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    async for chunk in chunks:
        sha256.update(chunk)
        md5.update(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        yield chunk
    expected = {
        DIGEST: sha256.hexdigest(),
        "content-md5": base64.b64encode(md5.digest()).decode(),
        "x-amz-checksum-crc32": base64.b64encode(crc32.to_bytes(4, "big")).decode(),
    }
    for name, right in expected.items():
        if said.get(name, right) not in {right, UNSIGNED, SIGNED_CHUNKS, PLAIN_CHUNKS}:
            raise HTTPException(400, "BadDigest")


async def unchunked(
    reader: "Reader", signature: Signature | None, said: dict[str, str]
) -> AsyncIterator[bytes]:
    """Take an ``aws-chunked`` body apart, chunk by chunk; add its trailers to what is *said*."""
    before = signature.signature if signature else ""
    length = 0
    while True:
        found = CHUNK.fullmatch(await reader.line())
        if found is None:
            raise HTTPException(400, "IncompleteBody")
        data = await reader.take(int(found[1], 16))
        if signature and said[DIGEST] == SIGNED_CHUNKS:
            digest = hashlib.sha256(data).hexdigest()
            right = signature.sign(f"{ALGORITHM}-PAYLOAD", before, NOTHING, digest)
            if not hmac.compare_digest(right.encode(), found[2] or b""):
                raise HTTPException(403, "SignatureDoesNotMatch")
            before = right
        if not data:
            break
        length += len(data)
        yield data
        await reader.line()
    while line := await reader.line():
        name, _, value = line.decode("latin-1").partition(":")
        said[name.strip().lower()] = value.strip()
    if said.get("x-amz-decoded-content-length") != str(length):
        raise HTTPException(400, "IncompleteBody")


class Reader:
    """Reads lines, and so many bytes, from a stream of pieces."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.buffer = b""

    async def more(self) -> None:
        transfer_head = await anext(self.stream, b"")
        if not transfer_head or len(self.buffer) > LARGEST_CHUNK_BYTES:
            raise HTTPException(400, "IncompleteBody")
        self.buffer += transfer_head

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            await self.more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data
