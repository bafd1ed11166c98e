"""Readers of request heads: announced uploads, and protocols that send one in several requests.

All functions are pure and read heads only. Write your own protocol as a `TransferProtocol`.
"""

from typing import Final

from upload_progress.protocols.base import (
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    parse_count,
    part_name,
    refusal,
    resolve_path,
    upload_id_for,
)
from upload_progress.protocols.content_range import ContentRange
from upload_progress.protocols.ietf import IetfResumable
from upload_progress.protocols.oci import Oci
from upload_progress.protocols.request_head import (
    FORM_PREFIX_BYTES,
    RequestHead,
    form_filename,
    read_request_head,
)
from upload_progress.protocols.s3 import S3Multipart
from upload_progress.protocols.tus import Tus

__all__ = [
    "DEFAULT_PROTOCOLS",
    "FORM_PREFIX_BYTES",
    "ContentRange",
    "Headers",
    "IetfResumable",
    "Oci",
    "RequestHead",
    "S3Multipart",
    "TransferHead",
    "TransferKind",
    "TransferOutcome",
    "TransferProtocol",
    "TransferResult",
    "Tus",
    "form_filename",
    "parse_count",
    "part_name",
    "read_request_head",
    "refusal",
    "resolve_path",
    "upload_id_for",
]

DEFAULT_PROTOCOLS: Final[tuple[TransferProtocol, ...]] = (
    Tus(),
    IetfResumable(),
    Oci(),
    S3Multipart(),
    ContentRange(),
)
"""The protocols that are recognised by default. The first one that reads a request is used."""
