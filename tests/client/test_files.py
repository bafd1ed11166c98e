from __future__ import annotations

from pathlib import Path

import pytest

from upload_progress.client.files import SLICE_BYTES, Source, open_source
from upload_progress.exceptions import InvalidValue

pytestmark = pytest.mark.anyio


async def read(source: Source, start: int, stop: int) -> tuple[list[int], list[int]]:
    told: list[int] = []
    return [len(data) async for data in source.read(start, stop, told.append)], told


async def test_a_file_is_read_in_slices_from_any_place(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(bytes(2 * SLICE_BYTES + 5))

    source = await open_source(path, None)

    assert (source.name, source.size_bytes) == ("a.tar.gz", 2 * SLICE_BYTES + 5)
    assert await read(source, 0, source.size_bytes) == (
        [SLICE_BYTES, SLICE_BYTES, 5],
        [SLICE_BYTES, 2 * SLICE_BYTES, 2 * SLICE_BYTES + 5],
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
async def test_its_name_says_what_it_is(
    tmp_path: Path, name: str, given: str | None, content_type: str
) -> None:
    (tmp_path / name).touch()

    assert (await open_source(tmp_path / name, given)).content_type == content_type


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="nothing: No such file"):
        await open_source(tmp_path / "nothing", None)


async def test_a_file_that_shrinks_or_goes_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    source = await open_source(path, None)
    path.write_bytes(b"1")

    with pytest.raises(InvalidValue, match="became shorter"):
        await read(source, 0, 5)

    path.unlink()
    with pytest.raises(InvalidValue, match="No such file"):
        await read(source, 0, 5)
