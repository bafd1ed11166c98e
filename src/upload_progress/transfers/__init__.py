"""Who is this request? Pure functions from request heads to what they carry."""

from upload_progress.transfers.plain import (
    MULTIPART_LOOK_BYTES,
    Incoming,
    multipart_filename,
    read_head,
)

__all__ = ["MULTIPART_LOOK_BYTES", "Incoming", "multipart_filename", "read_head"]
