"""Demo artifact server, started by ``upload-progress demo``.

Users upload files with a browser or curl and watch the progress on a web page. Needs the extra
``demo``.
"""

from upload_progress.demo.app import create_app
from upload_progress.demo.server import DemoConfig, serve

__all__ = ["DemoConfig", "create_app", "serve"]
