"""The files that ``put`` sends, and where each is sent to."""

from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum, unique
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

import httpx2
from attrs import frozen

from upload_progress.client.retry import ignore
from upload_progress.client.urls import parse_url, target_url
from upload_progress.exceptions import (
    InvalidValue,
)

__all__ = ["STANDARD_INPUT", "FileToUpload", "HiddenFiles", "find_files"]

STANDARD_INPUT: Final = "/dev/stdin"
"""The path that means standard input."""


@unique
class HiddenFiles(Enum):
    """What becomes of the hidden files of a folder."""

    SKIP = "skip"
    SEND = "send"


@frozen
class FileToUpload:
    """One file and the URL that it is sent to.

    Attributes:
        path: Where the file is; None for standard input.
        name: Its path below the URL.
        target: The complete URL.
    """

    path: Path | None
    name: str
    target: str


def find_files(
    paths: Sequence[str],
    url: str,
    *,
    hidden: HiddenFiles = HiddenFiles.SKIP,
    exclude: Collection[str] = (),
    has_one_target: bool = False,
    on_skipped: Callable[[PurePosixPath], object] = ignore,
) -> list[FileToUpload]:
    """Return the given files, and the files in the given folders, with their targets.

    Args:
        paths: Files and folders. A file that is given by its name is sent, whatever the name.
        url: URL that they are sent to.
        hidden: Whether to send files in a folder if their names, or those of their folders,
            begin with a dot: they often contain secrets.
        exclude: Patterns such as ``*.log`` or ``build/*``: files in a folder are not sent if their
            names, or their paths below it, match one.
        has_one_target: Whether every file is sent to the URL itself, as in a form.
        on_skipped: Called with each hidden file that is not sent.

    Raises:
        InvalidValue: A file does not exist, two files have the same target, or several files
            are to be sent to a URL that does not end with ``/``.
    """
    server = parse_url(url, "URL")
    if STANDARD_INPUT in paths:
        return [_standard_input(paths, server.url, has_one_target=has_one_target)]
    on_hidden = None if hidden is HiddenFiles.SEND else on_skipped
    found = [each for path in paths for each in _files_in(Path(path), exclude, on_hidden)]
    if not found:
        hint = "" if on_hidden is None else "; hidden files are sent with --hidden"
        raise InvalidValue(" ".join(paths), f"contains no file{hint}")
    if has_one_target:
        return [FileToUpload(path, str(name), str(server.url)) for path, name in found]
    accepts_names = server.url.path.endswith("/")
    if not accepts_names and (len(found) > 1 or Path(paths[0]).is_dir()):
        raise InvalidValue("URL", "must end with / to receive several files or a folder")
    files = [
        FileToUpload(path, str(name), str(target_url(server.url, name))) for path, name in found
    ]
    _check_targets(files)
    return files


def _standard_input(paths: Sequence[str], url: httpx2.URL, *, has_one_target: bool) -> FileToUpload:
    if len(paths) > 1:
        raise InvalidValue("standard input", "is sent alone, without other files")
    if url.path.endswith("/") and not has_one_target:
        raise InvalidValue("URL", "must contain the name of the file for standard input")
    return FileToUpload(None, url.path.rpartition("/")[2] or "standard input", str(url))


def _files_in(
    path: Path, exclude: Collection[str], on_hidden: Callable[[PurePosixPath], object] | None
) -> Iterator[tuple[Path, PurePosixPath]]:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            name = PurePosixPath(each.relative_to(path).as_posix())
            if _is_excluded(name, exclude) or not each.is_file():
                continue
            if on_hidden and _is_hidden(name):
                on_hidden(name)
            else:
                yield each, name
    else:
        try:
            path.stat()
        except OSError as error:
            raise InvalidValue(str(path), error.strerror or "cannot be read") from error
        yield path, PurePosixPath(path.name)


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _is_excluded(name: PurePosixPath, patterns: Collection[str]) -> bool:
    """Return whether the path, a folder in it, or the name of either matches a pattern."""
    paths = (name, *name.parents)
    texts = {text for path in paths for text in (str(path), path.name) if text}
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _check_targets(files: Sequence[FileToUpload]) -> None:
    seen: dict[str, Path | None] = {}
    for file in files:
        other = seen.setdefault(file.target, file.path)
        if other is not file.path:
            problem = f"would overwrite {other}: both have the name {file.name}"
            raise InvalidValue(str(file.path), problem)
