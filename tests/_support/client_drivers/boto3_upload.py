"""Uploads, resumes or downloads a file with boto3, as a process that can be killed.

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
    """Upload a file in parallel parts with the transfer manager."""
    parallel = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    client.upload_file(str(file), BUCKET, key, Config=parallel)


def resume(client: Any, file: Path, key: str) -> None:  # noqa: ANN401  # boto3 has no types
    """Upload the missing parts of an interrupted upload, and complete it."""
    [interrupted] = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    target = {"Bucket": BUCKET, "Key": key, "UploadId": interrupted["UploadId"]}
    uploaded = client.list_parts(**target).get("Parts", [])
    parts = {part["PartNumber"]: part["ETag"] for part in uploaded}
    data = file.read_bytes()
    starts = {first // PART_BYTES + 1: first for first in range(0, len(data), PART_BYTES)}
    for number in starts.keys() - parts.keys():
        content = data[starts[number] : starts[number] + PART_BYTES]
        parts[number] = client.upload_part(**target, PartNumber=number, Body=content)["ETag"]
    listed = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(parts.items())]
    client.complete_multipart_upload(**target, MultipartUpload={"Parts": listed})


def download(client: Any, file: Path, key: str) -> None:  # noqa: ANN401  # boto3 has no types
    """Download an object."""
    client.download_file(BUCKET, key, str(file))


def main(action: str, url: str, file: str, key: str) -> None:
    """Run one action as alice."""
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
    {"upload": upload, "resume": resume, "download": download}[action](client, Path(file), key)


main(*sys.argv[1:])
