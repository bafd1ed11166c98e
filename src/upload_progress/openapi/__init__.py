"""OpenAPI and AsyncAPI documents of the routes and events, generated from their types."""

from upload_progress.openapi.asyncapi import asyncapi_document
from upload_progress.openapi.openapi import openapi_document

__all__ = ["asyncapi_document", "openapi_document"]
