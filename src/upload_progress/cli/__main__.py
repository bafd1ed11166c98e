"""``python -m upload_progress.cli``."""

from upload_progress.cli import main

__all__: list[str] = []

main()
