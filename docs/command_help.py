"""The texts of ``upload-progress --help``, which the package contains."""

from __future__ import annotations

import io

from rich.console import Console

from upload_progress.cli.commands import app, register_completion
from upload_progress.cli.stored_help import COMMANDS, WIDTH

__all__ = ["command_help"]


def command_help() -> dict[str, str]:
    """Return the help of the program, and of each command, by its name."""
    register_completion()
    return {"upload-progress": help_of(), **{command: help_of(command) for command in COMMANDS}}


def help_of(*command: str) -> str:
    """Return the help of one command as the parser of arguments writes it."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None, force_terminal=False)
    # Markdown joins the lines of a docstring, but must not join those of the examples.
    epilogue, app.help_epilogue, app.help_format = app.help_epilogue, None, "markdown"
    app.help_print(command, console=console)
    app.help_epilogue, app.help_format = epilogue, "plaintext"
    lines = [*text.getvalue().splitlines(), "", *str(epilogue).splitlines()]
    return "\n".join(line.rstrip() for line in lines) + "\n"
