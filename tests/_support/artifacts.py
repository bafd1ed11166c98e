"""Artifacts for real clients: a wheel and a container image, both with random content."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

__all__ = ["make_image", "make_wheel", "sha256_of"]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(folder: Path, project: str, size: int) -> Path:
    """Create a wheel that contains *size* random bytes."""
    data, info = os.urandom(size), f"{project}-1.0.dist-info"
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    members: dict[str, str | bytes] = {
        f"{project}/data.bin": data,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{project}/data.bin,sha256={digest},{size}\n{info}/METADATA,,\n"
        f"{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    path = folder / f"{project}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


def make_image(folder: Path, size: int) -> str:
    """Create an OCI image layout with the tag ``1`` and two new layers, the first of *size* bytes.

    Returns:
        The digest of the manifest.
    """
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layers = [make_layer(os.urandom(size)), make_layer(os.urandom(5))]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff for diff, _ in layers]},
    }
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": write_blob(folder, f"{kind}.config.v1+json", json.dumps(config).encode()),
        "layers": [write_blob(folder, f"{kind}.layer.v1.tar+gzip", data) for _, data in layers],
    }
    descriptor = write_blob(folder, f"{kind}.manifest.v1+json", json.dumps(manifest).encode())
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(descriptor["digest"])


def make_layer(content: bytes) -> tuple[str, bytes]:
    """Return a layer with one file: the digest of its archive, and the compressed archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("data.bin")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    data = archive.getvalue()
    compressed = gzip.compress(data, compresslevel=1, mtime=0)
    return f"sha256:{hashlib.sha256(data).hexdigest()}", compressed


def write_blob(folder: Path, media_type: str, data: bytes) -> dict[str, object]:
    """Write a blob and return its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
