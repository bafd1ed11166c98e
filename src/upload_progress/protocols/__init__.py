"""Readers of request heads: announced uploads, and protocols that send one in several requests.

All functions are pure and read heads only. Write your own protocol as a `TransferProtocol`.
"""

from typing import Final

from upload_progress.protocols.azure import AzureBlocks
from upload_progress.protocols.base import (
    MAX_BODY_BYTES,
    Headers,
    ReadsQueries,
    ReadsResponseBody,
    RequiresHeaders,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    is_success,
    parse_count,
    part_name,
    refusal,
    resolve_path,
    resolve_target,
    target_of,
    upload_id_for,
)
from upload_progress.protocols.content_range import ContentRange
from upload_progress.protocols.filepond import FilePond
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
    "MAX_BODY_BYTES",
    "AzureBlocks",
    "ContentRange",
    "FilePond",
    "Headers",
    "IetfResumable",
    "Oci",
    "ReadsQueries",
    "ReadsResponseBody",
    "RequestHead",
    "RequiresHeaders",
    "S3Multipart",
    "TransferHead",
    "TransferKind",
    "TransferOutcome",
    "TransferProtocol",
    "TransferResult",
    "Tus",
    "form_filename",
    "is_success",
    "parse_count",
    "part_name",
    "read_request_head",
    "refusal",
    "resolve_path",
    "resolve_target",
    "target_of",
    "upload_id_for",
]

DEFAULT_PROTOCOLS: Final[tuple[TransferProtocol, ...]] = (
    Tus(),
    IetfResumable(),
    Oci(),
    S3Multipart(),
    AzureBlocks(),
    FilePond(),
    ContentRange(),
)
"""The protocols that are recognised by default. The first one that reads a request is used."""
