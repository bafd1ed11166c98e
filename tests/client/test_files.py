from __future__ import annotations

from pathlib import Path

import pytest

from upload_progress.client.files import CHUNK_BYTES, FileSource, open_file
from upload_progress.exceptions import InvalidValue

pytestmark = pytest.mark.anyio


async def read(source: FileSource, start: int, stop: int) -> tuple[list[int], list[int]]:
    """Return the sizes of the chunks, and the offsets reported."""
    offsets: list[int] = []
    return [len(data) async for data in source.read(start, stop, offsets.append)], offsets


async def test_file_is_read_in_chunks_from_any_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(bytes(2 * CHUNK_BYTES + 5))

    source = await open_file(path, None)

    assert (source.name, source.size_bytes) == ("a.tar.gz", 2 * CHUNK_BYTES + 5)
    assert await read(source, 0, source.size_bytes) == (
        [CHUNK_BYTES, CHUNK_BYTES, 5],
        [CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 5],
    )
    assert await read(source, 10, 15) == ([5], [15])
    assert await read(source, 0, 0) == ([], [])


@pytest.mark.parametrize(
    ("name", "given", "content_type"),
    [
        ("a.txt", None, "text/plain"),
        ("a.txt", "x/y", "x/y"),
        ("a.unknown-kind", None, "application/octet-stream"),
    ],
)
async def test_content_type_is_guessed_from_the_name(
    tmp_path: Path, name: str, given: str | None, content_type: str
) -> None:
    (tmp_path / name).touch()

    assert (await open_file(tmp_path / name, given)).content_type == content_type


async def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="nothing: No such file"):
        await open_file(tmp_path / "nothing", None)


async def test_file_that_shrinks_or_disappears_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    source = await open_file(path, None)
    path.write_bytes(b"1")

    with pytest.raises(InvalidValue, match="became shorter"):
        await read(source, 0, 5)

    path.unlink()
    with pytest.raises(InvalidValue, match="No such file"):
        await read(source, 0, 5)
