"""Who is this request? Pure functions from request heads to what they carry."""

from typing import Final

from upload_progress.protocols.base import (
    Came,
    Headers,
    Kind,
    Outcome,
    Piece,
    TransferProtocol,
    id_of,
    part_of,
)
from upload_progress.protocols.content_range import ContentRange
from upload_progress.protocols.ietf import Resumable
from upload_progress.protocols.oci import Oci
from upload_progress.protocols.request_head import (
    MULTIPART_LOOK_BYTES,
    Incoming,
    multipart_filename,
    read_head,
)
from upload_progress.protocols.s3 import S3Multipart
from upload_progress.protocols.tus import Tus

__all__ = [
    "Came",
    "ContentRange",
    "DEFAULT_PROTOCOLS",
    "Headers",
    "Incoming",
    "Kind",
    "MULTIPART_LOOK_BYTES",
    "Oci",
    "Outcome",
    "Piece",
    "Resumable",
    "S3Multipart",
    "TransferProtocol",
    "Tus",
    "id_of",
    "multipart_filename",
    "part_of",
    "read_head",
]

DEFAULT_PROTOCOLS: Final[tuple[TransferProtocol, ...]] = (
    Tus(),
    Resumable(),
    Oci(),
    S3Multipart(),
    ContentRange(),
)
"""All that is shipped; the first that knows a request has it."""
