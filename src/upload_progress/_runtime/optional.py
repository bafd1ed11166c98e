"""Optional dependencies: a missing one raises an error that names the extra to install."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from upload_progress.exceptions import MissingExtra

__all__ = ["hidden", "require"]


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


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let imports inside the block not find *packages*, except those that are imported already.

    For packages that a dependency imports wherever they are installed, and that are not used.

    Args:
        packages: Names of top-level packages.
    """
    names = [package for package in packages if package not in sys.modules]
    for name in names:
        # The import of such a module fails, as the import system documents.
        sys.modules[name] = None  # type: ignore[assignment]  # see above
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
