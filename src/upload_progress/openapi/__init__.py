"""Machine-readable descriptions of what this library answers and sends, made from its types."""

from upload_progress.openapi.asyncapi import asyncapi_document
from upload_progress.openapi.openapi import openapi_document

__all__ = [
    "asyncapi_document",
    "openapi_document",
]
