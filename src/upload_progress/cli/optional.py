"""What a command needs beyond the core is asked for before it is imported."""

from importlib.util import find_spec

from upload_progress.exceptions import MissingExtra

__all__ = [
    "require",
]


def require(*packages: str, extra: str) -> None:
    """Make sure that *packages*, which *extra* installs, are there.

    Raises:
        MissingExtra: One of them is not.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(package, extra)
