"""Uploads as text: the words and figures of a progress bar, a log line and a list."""

from collections.abc import Mapping
from time import monotonic
from typing import Final

from attrs import define

from upload_progress._model.models import Arrival, UploadProgress, UploadState
from upload_progress._model.state import is_final
from upload_progress._runtime.sizes import format_size
from upload_progress.client import Resumption, Retry
from upload_progress.exceptions import ServerUnreachable

__all__ = [
    "UploadRow",
    "format_delay",
    "format_duration",
    "format_progress",
    "format_result",
    "format_resumption",
    "format_retry",
    "format_status",
    "format_summary",
    "printable",
]

_MINUTE: Final = 60
_HOUR: Final = 3600
_SHORT_SECONDS: Final = 10
_TENTH: Final = 0.1
_LEAST_SECONDS: Final = 0.001
_REASON_CHARACTERS: Final = 250
_OBVIOUS_STATES: Final = frozenset({UploadState.RECEIVING, UploadState.COMPLETED})


@define
class UploadRow:
    """One upload as a command shows it.

    Attributes:
        label: Name of the upload.
        sent_bytes: Bytes handed to the network.
        progress: The newest snapshot; None before the first.
        result: How the upload ended; None while it runs.
        retry_at: When the upload is tried again, by the monotonic clock; None unless it waits.
        goes_on_later: Whether the next run of the command goes on with it.
        before: The end of an attempt that was shown, and that this one replaces; None for none.
    """

    label: str
    sent_bytes: int = 0
    progress: UploadProgress | None = None
    result: str | None = None
    retry_at: float | None = None
    goes_on_later: bool = False
    before: UploadProgress | None = None

    @property
    def percent(self) -> float | None:
        """The received part in percent; None if unknown."""
        return None if self.progress is None else self.progress.percent


def printable(text: str, characters: int = 60) -> str:
    """Return *text* for a terminal: printable, on one line, and not longer than *characters*.

    A file name may contain control characters that move the cursor.
    """
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown if len(shown) <= characters else f"{shown[: characters - 1]}…"


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units: ``45 s``, ``1 min 10 s``, ``2 h 30 min``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"


def format_delay(seconds: float) -> str:
    """Return a delay; a short one with a decimal: ``0.5 s``, or ``0.02 s``."""
    if seconds < _TENTH:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < _SHORT_SECONDS else format_duration(seconds)


def format_retry(retry: Retry) -> str:
    """Return why a request failed, and when it is sent again."""
    error = retry.error
    if isinstance(error, ServerUnreachable):
        reason = f"connection failed ({printable(error.problem, _REASON_CHARACTERS)})"
    else:
        reason = printable(str(error), _REASON_CHARACTERS)
    delay = format_delay(retry.delay_seconds)
    return f"{reason}, trying again in {delay} ({retry.number}/{retry.retries})"


def format_resumption(resumption: Resumption) -> str:
    """Return from where an upload goes on after a failure."""
    if resumption.offset_bytes:
        return f"continuing at {format_size(resumption.offset_bytes)}"
    return f"starting again from 0 bytes (attempt {resumption.attempt})"


def format_summary(counts: Mapping[str, int], size_bytes: int, seconds: float) -> str:
    """Return what became of several uploads on one line.

    >>> format_summary({"completed": 2, "failed": 0, "not started": 1}, 5_000_000, 2.5)
    '2 files completed, 1 not started, 5.0 MB in 2.5 s, 2.0 MB/s'

    Args:
        counts: How many of the uploads have each result.
        size_bytes: Size of the completed uploads in bytes.
        seconds: Duration of all of them in seconds.
    """
    first, *others = [(count, result) for result, count in counts.items() if count]
    noun = "file" if first[0] == 1 else "files"
    words = [f"{first[0]} {noun} {first[1]}", *(f"{count} {result}" for count, result in others)]
    if counts.get("completed"):
        speed = f"{format_size(size_bytes / max(seconds, _LEAST_SECONDS))}/s"
        words += [f"{format_size(size_bytes)} in {format_delay(seconds)}", speed]
    else:
        words.append(f"after {format_delay(seconds)}")
    return ", ".join(words)


def format_status(progress: UploadProgress) -> str:
    """Return the stage, ``stalled`` or the state; empty if the figures alone say enough."""
    if progress.stage is not None:
        stage, total = progress.stage, progress.stage.total
        share = f" {100 * stage.done // total} %" if total else ""
        return f"{printable(stage.name, 30)}{share}"
    if progress.stalled:
        return "stalled"
    return "" if progress.state in _OBVIOUS_STATES else str(progress.state)


def format_progress(row: UploadRow) -> str:
    """Return bytes, rate, remaining time and status, as far as they are known."""
    progress = row.progress
    if row.retry_at is not None:
        return f"waiting, trying again in {format_delay(max(0.0, row.retry_at - monotonic()))}"
    if progress is None:
        return f"{format_size(row.sent_bytes)} sent, no progress from the server yet"
    received, total = format_size(progress.bytes_transferred), progress.total_bytes
    words = [received if total is None else f"{received} of {format_size(total)}"]
    if progress.bytes_per_second is not None:
        words.append(f"{format_size(progress.bytes_per_second)}/s")
    if progress.eta_seconds:
        words.append(f"{format_duration(max(1.0, progress.eta_seconds))} left")
    if progress.stored_bytes is not None and not is_final(progress.state):
        words.append(f"{format_size(progress.stored_bytes)} stored")
    words.append(format_status(progress))
    if row.before is not None:
        words.append(f"attempt {progress.attempt}")
    return "  ".join(word for word in words if word)


def format_result(row: UploadRow) -> str:
    """Return the result of an upload on one line."""
    progress = row.progress
    words = [f"{row.label}: {row.result}"]
    if progress is None:
        words.append("the server does not report progress")
    else:
        words.append(format_size(progress.bytes_transferred))
        if progress.started_at and progress.finished_at:
            seconds = (progress.finished_at - progress.started_at).total_seconds()
            words.append(f"in {format_delay(seconds)}")
        if progress.arrival is Arrival.BUFFERED:
            words.append("buffered by a proxy (see: upload-progress doctor)")
        words.append(f"id {progress.upload_id}")
    return ", ".join(words)
