"""Which file goes where: the arguments of ``put``, made into a list of single uploads."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from attrs import frozen

from upload_progress.client.addresses import read_url, target_of
from upload_progress.errors import InvalidValue

__all__ = ["Errand", "plan"]


@frozen
class Errand:
    """One file and its target.

    Attributes:
        name: Where it stands below the URL, and what it is called on display.
        target: The whole URL.
    """

    path: Path
    name: str
    size_bytes: int
    target: str


def plan(paths: Sequence[str], url: str) -> list[Errand]:
    """Return what is to be sent: files, and the files in folders with their paths below these.

    Raises:
        InvalidValue: A file is not there, two have one target, or the URL cannot take several.
    """
    address = read_url(url, "URL")
    found = [each for path in paths for each in _files(Path(path))]
    if not found:
        raise InvalidValue(" ".join(paths), "has no file in it")
    is_folder = address.url.path.endswith("/")
    if not is_folder and (len(found) > 1 or Path(paths[0]).is_dir()):
        raise InvalidValue("URL", "must end with / to take several files, or a folder")
    errands = [
        Errand(path, str(name), _size(path), str(target_of(address.url, name)))
        for path, name in found
    ]
    _check_distinct(errands)
    return errands


def _files(path: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            if each.is_file():
                yield each, PurePosixPath(each.relative_to(path).as_posix())
    else:
        yield path, PurePosixPath(path.name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InvalidValue(str(path), error.strerror or "cannot be read") from error


def _check_distinct(errands: Sequence[Errand]) -> None:
    seen: dict[str, Path] = {}
    for errand in errands:
        other = seen.setdefault(errand.target, errand.path)
        if other is not errand.path:
            raise InvalidValue(str(errand.path), f"would overwrite {other}: both are {errand.name}")
