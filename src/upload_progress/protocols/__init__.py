"""Who is this request? Pure functions from request heads to what they carry."""

from typing import Final

from upload_progress.protocols.base import (
    Headers,
    TransferHead,
    TransferKind,
    TransferOutcome,
    TransferProtocol,
    TransferResult,
    part_name,
    upload_id_for,
)
from upload_progress.protocols.content_range import ContentRange
from upload_progress.protocols.ietf import IetfResumable
from upload_progress.protocols.oci import Oci
from upload_progress.protocols.request_head import (
    MULTIPART_LOOK_BYTES,
    RequestHead,
    multipart_filename,
    read_request_head,
)
from upload_progress.protocols.s3 import S3Multipart
from upload_progress.protocols.tus import Tus

__all__ = [
    "TransferResult",
    "ContentRange",
    "DEFAULT_PROTOCOLS",
    "Headers",
    "RequestHead",
    "TransferKind",
    "MULTIPART_LOOK_BYTES",
    "Oci",
    "TransferOutcome",
    "TransferHead",
    "IetfResumable",
    "S3Multipart",
    "TransferProtocol",
    "Tus",
    "upload_id_for",
    "multipart_filename",
    "part_name",
    "read_request_head",
]

DEFAULT_PROTOCOLS: Final[tuple[TransferProtocol, ...]] = (
    Tus(),
    IetfResumable(),
    Oci(),
    S3Multipart(),
    ContentRange(),
)
"""All that is shipped; the first that knows a request has it."""
