"""Uploads in words: what a bar, a line and a list say of one."""

from typing import Final

from attrs import define

from upload_progress._model.models import Arrival, UploadProgress, UploadState
from upload_progress._runtime.sizes import format_size

__all__ = [
    "Row",
    "clean",
    "duration",
    "figures",
    "percent_of",
    "result_line",
    "standing",
]

_MINUTE: Final = 60
_HOUR: Final = 3600
_UNSTATED: Final = frozenset({UploadState.RECEIVING, UploadState.COMPLETED})


@define
class Row:
    """One upload on display.

    Attributes:
        label: What people call it.
        total_bytes: As far as we know it ourselves.
        sent_bytes: What was handed to the network.
        progress: The server's newest word.
        outcome: What came of it, once it is over.
    """

    label: str
    total_bytes: int | None = None
    sent_bytes: int = 0
    progress: UploadProgress | None = None
    outcome: str | None = None


def clean(text: str, characters: int = 60) -> str:
    """Return *text* fit for a terminal: printable, on one line, and short.

    File names come from other people, and may hold what moves a cursor.
    """
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown if len(shown) <= characters else f"{shown[: characters - 1]}…"


def duration(seconds: float) -> str:
    """Return *seconds* for people: two units at most, since more would be pretended."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"


def percent_of(row: Row) -> float | None:
    """Return how far the server says that it is."""
    return None if row.progress is None else row.progress.percent


def standing(progress: UploadProgress) -> str:
    """Return what is to be said beside figures: stage, state, or that it stands still."""
    if progress.stage is not None:
        stage, total = progress.stage, progress.stage.total
        share = f" {100 * stage.done // total} %" if total else ""
        return f"{clean(stage.name, 30)}{share}"
    if progress.stalled:
        return "stalled"
    return "" if progress.state in _UNSTATED else str(progress.state)


def figures(row: Row) -> str:
    """Return bytes, speed, time left and state, as far as they are known."""
    progress = row.progress
    if progress is None:
        return f"{format_size(row.sent_bytes)} sent, no word from the server yet"
    here = format_size(progress.bytes_transferred)
    total = progress.total_bytes
    words = [here if total is None else f"{here} of {format_size(total)}"]
    if progress.bytes_per_second is not None:
        words.append(f"{format_size(progress.bytes_per_second)}/s")
    if progress.eta_seconds:
        words.append(f"{duration(progress.eta_seconds)} left")
    words.append(standing(progress))
    return "  ".join(word for word in words if word)


def result_line(row: Row) -> str:
    """Return what came of an upload, as one line."""
    progress = row.progress
    words = [f"{row.label}: {row.outcome}"]
    if progress is None:
        words.append("the server tells no progress")
    else:
        words.append(format_size(progress.bytes_transferred))
        if progress.started_at and progress.finished_at:
            seconds = (progress.finished_at - progress.started_at).total_seconds()
            words.append(f"in {duration(seconds)}")
        if progress.arrival is Arrival.BUFFERED:
            words.append("held back by a proxy (see: upload-progress doctor)")
        words.append(f"id {progress.upload_id}")
    return ", ".join(words)
