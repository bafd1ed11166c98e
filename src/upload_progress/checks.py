"""What a tracker refuses to be told."""

from upload_progress.errors import InvalidValue

__all__ = ["check_mount_path", "check_stall"]


def check_stall(_instance: object, _attribute: object, value: float) -> None:
    """Refuse a time after which an upload is stalled that is none."""
    if not value > 0:
        raise InvalidValue("stall_after_seconds", f"must be above 0, not {value!r}")


def check_mount_path(_instance: object, _attribute: object, value: str) -> None:
    """Refuse a mount path that cannot begin a link."""
    if not value.startswith("/") or value.endswith("/"):
        raise InvalidValue("mount_path", f"starts with a slash and ends without, not {value!r}")
