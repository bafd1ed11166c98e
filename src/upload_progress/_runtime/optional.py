"""What stands in for a driver that is not installed: the line that installs it."""

from upload_progress.exceptions import MissingExtra

__all__ = [
    "explained",
]


def explained(error: ImportError, package: str, extra: str) -> ImportError:
    """Return what to raise instead of *error*, which the import of *package* has raised.

    Only where that package itself is missing; that something inside it is broken stays in sight.
    """
    return MissingExtra(package, extra) if error.name == package else error
