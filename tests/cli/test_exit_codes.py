from __future__ import annotations

import pytest

from upload_progress import exceptions as errors
from upload_progress.cli.exit_codes import code_of, explained, summed_up


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (errors.UploadRejected(413, "too large"), 1, ""),
        (errors.UploadRejected(404, "Not Found"), 1, "Is the URL"),
        (errors.UploadCancelled(), 1, ""),
        (errors.UploadNotFound(), 1, ""),
        (errors.InvalidValue("x", "is bad"), 2, ""),
        (errors.UnexpectedAnswer("http://h", "answers 404"), 2, "--mount"),
        (errors.ServerUnreachable("http://h", "gone"), 3, ""),
        (errors.ServerUnreachable("http://h", "Certificate verify failed"), 3, "--cacert"),
        (errors.ServerBusy("later", 1), 3, ""),
        (errors.NotAllowed(401, "who?"), 4, "UPLOAD_PROGRESS_TOKEN"),
        (errors.NotAllowed(403, "no"), 4, ""),
    ],
)
def test_an_error_has_a_code_and_a_hint(
    error: errors.UploadProgressError, code: int, hint: str
) -> None:
    assert code_of(error) == code
    assert explained(error).startswith(str(error))
    assert hint in explained(error).removeprefix(str(error))
    assert hint or explained(error) == str(error)


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 3, 3], 3), ([3, 4], 1), ([1], 1)]
)
def test_several_codes_become_one(codes: list[int], code: int) -> None:
    assert summed_up(codes) == code
