"""An artifact server to try the library on: ``upload-progress demo``.

People upload files with a browser or curl, and watch them arrive. The extra ``demo`` holds
what it needs.
"""

from upload_progress.demo.app import create_app
from upload_progress.demo.server import Settings, serve

__all__ = ["Settings", "create_app", "serve"]
