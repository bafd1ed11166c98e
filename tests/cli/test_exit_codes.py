from __future__ import annotations

import pytest

from upload_progress import exceptions
from upload_progress.cli.exit_codes import combined_exit_code, error_text, exit_code


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [
        (exceptions.UploadRejected(413, "too large"), 1, ""),
        (exceptions.UploadRejected(404, "Not Found"), 1, "Check that the URL"),
        (exceptions.UploadCancelled(), 1, ""),
        (exceptions.UploadNotFound(), 1, ""),
        (exceptions.InvalidValue("x", "is bad"), 2, ""),
        (exceptions.UnexpectedResponse("http://h", "answers 404"), 2, "--mount"),
        (exceptions.UnexpectedResponse("http://h", "accepts parts"), 2, "--chunk-size"),
        (exceptions.ServerUnreachable("http://h", "gone"), 3, ""),
        (exceptions.ServerUnreachable("http://h", "Certificate verify failed"), 3, "--cacert"),
        (exceptions.ServerBusy("later", 1), 3, ""),
        (exceptions.NotAllowed(401, "who?"), 4, "UPLOAD_PROGRESS_TOKEN"),
        (exceptions.NotAllowed(403, "no"), 4, ""),
    ],
)
def test_error_has_an_exit_code_and_a_hint(
    error: exceptions.UploadProgressError, code: int, hint: str
) -> None:
    assert exit_code(error) == code
    assert error_text(error).startswith(str(error))
    assert hint in error_text(error).removeprefix(str(error))
    assert hint or error_text(error) == str(error)


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 3, 3], 3), ([3, 4], 1), ([1], 1)]
)
def test_exit_codes_are_combined(codes: list[int], code: int) -> None:
    assert combined_exit_code(codes) == code
