"""boto3 as a program of its own, so that it can be killed: upload, resume, or download a file.

boto3_upload.py upload|resume|download URL FILE KEY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

BUCKET = "files"
PART_BYTES = 5 * 1024 * 1024


def upload(client: Any, file: Path, key: str) -> None:  # noqa: ANN401  # boto3 has no types
    """Send a file in parallel parts, as its transfer manager does."""
    parallel = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    client.upload_file(str(file), BUCKET, key, Config=parallel)


def resume(client: Any, file: Path, key: str) -> None:  # noqa: ANN401  # boto3 has no types
    """Send the parts that are missing from an upload that was broken off, and complete it."""
    [begun] = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    place = {"Bucket": BUCKET, "Key": key, "UploadId": begun["UploadId"]}
    here = client.list_parts(**place).get("Parts", [])
    parts = {part["PartNumber"]: part["ETag"] for part in here}
    data = file.read_bytes()
    for first in range(0, len(data), PART_BYTES):
        number, transfer_head = first // PART_BYTES + 1, data[first : first + PART_BYTES]
        if number not in parts:
            parts[number] = client.upload_part(**place, PartNumber=number, Body=transfer_head)[
                "ETag"
            ]
    listed = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(parts.items())]
    client.complete_multipart_upload(**place, MultipartUpload={"Parts": listed})


def download(client: Any, file: Path, key: str) -> None:  # noqa: ANN401  # boto3 has no types
    """Fetch an object."""
    client.download_file(BUCKET, key, str(file))


def main(what: str, url: str, file: str, key: str) -> None:
    """Do one of them, as alice."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="alice",
        aws_secret_access_key="alice",
        region_name="us-east-1",
        verify=os.environ.get("CERTIFICATE"),
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.create_bucket(Bucket=BUCKET)
    {"upload": upload, "resume": resume, "download": download}[what](client, Path(file), key)


main(*sys.argv[1:])
