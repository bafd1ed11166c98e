"""Optional dependencies: a missing one raises an error that names the extra to install."""

from importlib.util import find_spec

from upload_progress.exceptions import MissingExtra

__all__ = ["require"]


def require(*packages: str, extra: str) -> None:
    """Check that *packages* are installed; call it before they are imported.

    An error inside an installed package is not hidden: it is raised by its own import.

    Args:
        packages: Names of top-level packages.
        extra: The extra of ``upload-progress`` that installs them.

    Raises:
        MissingExtra: One of them is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)
