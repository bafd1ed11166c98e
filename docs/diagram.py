"""The state diagram of an upload, drawn from the table ``TRANSITIONS``.

This module defines the positions of the boxes and the paths of the lines; the table defines which
lines exist, and their labels. A transition without a path is an error, and so is a path without a
transition.
"""

from __future__ import annotations

from collections.abc import Iterator

from upload_progress._model.models import UploadState
from upload_progress._model.models import UploadState as S
from upload_progress._model.state import FINAL_STATES, TRANSITIONS, Signal

HALF_WIDTH, HALF_HEIGHT = 62, 22
POSITIONS: dict[UploadState, tuple[int, int]] = {
    S.PENDING: (140, 170),
    S.PAUSED: (140, 300),
    S.RECEIVING: (400, 235),
    S.PROCESSING: (650, 235),
    S.COMPLETED: (880, 235),
    S.CANCELLED: (525, 50),
    S.FAILED: (525, 420),
}

# The path of each line (SVG path data), and the centre of its label.
PATHS: dict[tuple[UploadState, UploadState], tuple[str, int, int]] = {
    (S.PENDING, S.RECEIVING): ("M202,170 C270,170 270,225 338,225", 270, 197),
    (S.RECEIVING, S.PENDING): ("M370,213 C345,135 290,135 202,155", 318, 140),
    (S.PROCESSING, S.PENDING): ("M600,213 C530,110 330,95 196,148", 500, 128),
    (S.PAUSED, S.RECEIVING): ("M202,290 C265,290 275,243 338,243", 262, 262),
    (S.RECEIVING, S.PAUSED): ("M375,257 C345,312 290,312 202,312", 300, 312),
    (S.PROCESSING, S.PAUSED): ("M600,257 C520,345 330,345 196,319", 500, 310),
    (S.RECEIVING, S.PROCESSING): ("M462,235 L588,235", 523, 235),
    (S.PROCESSING, S.COMPLETED): ("M712,235 L818,235", 763, 235),
    (S.RECEIVING, S.COMPLETED): ("M440,213 C530,145 790,145 865,213", 735, 168),
    (S.PENDING, S.CANCELLED): ("M140,148 C150,90 300,56 463,56", 235, 84),
    (S.PAUSED, S.CANCELLED): ("M78,295 C-10,240 0,40 240,40 L463,42", 65, 105),
    (S.RECEIVING, S.CANCELLED): ("M410,213 C415,150 450,100 500,72", 428, 140),
    (S.PROCESSING, S.CANCELLED): ("M640,213 C635,150 600,100 550,72", 622, 140),
    (S.PENDING, S.FAILED): ("M78,178 C-10,230 0,430 240,430 L463,428", 70, 375),
    (S.PAUSED, S.FAILED): ("M140,322 C150,380 300,414 463,414", 235, 385),
    (S.RECEIVING, S.FAILED): ("M410,257 C415,320 450,370 500,398", 428, 335),
    (S.PROCESSING, S.FAILED): ("M640,257 C635,320 600,370 550,398", 625, 335),
}
STYLE = """
.paper { fill: #ffffff }
.box { fill: #eef2ff; stroke: #4f5bd5; stroke-width: 1.5 }
.final { fill: #f3f4f6; stroke: #4b5563; stroke-width: 3 }
.line { fill: none; stroke: #6b7280; stroke-width: 1.4; marker-end: url(#tip) }
.tip { fill: #6b7280 }
text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #111827 }
.signal { font-size: 12px; fill: #374151; paint-order: stroke; stroke: #fff; stroke-width: 5 }
"""
HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 970 470" role="img" \
aria-label="The states of an upload">
<style>{STYLE}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" \
orient="auto"><path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>
<rect class="paper" width="970" height="470" rx="8"/>
"""


def states_svg() -> str:
    """Return the diagram as SVG.

    Raises:
        LookupError: A path has no transition, or a transition has no path.
    """
    signals_by_pair = transitions()
    if unused := PATHS.keys() - signals_by_pair.keys():
        raise LookupError(f"these paths have no transition: {sorted(unused)}")
    lines = [_line(*PATHS[pair], signals) for pair, signals in signals_by_pair.items()]
    boxes = [_box(state) for state in UploadState]
    return HEAD + "\n".join([*lines, *boxes, "</svg>\n"])


def transitions_table() -> str:
    """Return the transitions as a Markdown table: a row per signal, a column per open state."""
    states = [state for state in UploadState if state not in FINAL_STATES]
    rows = [_row("", [f"`{state}`" for state in states]), _row("---", ["---"] * len(states))]
    for signal in Signal:
        cells = [TRANSITIONS.get((state, signal)) for state in states]
        rows.append(_row(f"`{signal}`", [f"`{cell}`" if cell else "·" for cell in cells]))
    return "\n".join(rows) + "\n"


def transitions() -> dict[tuple[UploadState, UploadState], list[Signal]]:
    """Return the signals of each pair of states."""
    signals: dict[tuple[UploadState, UploadState], list[Signal]] = {}
    for (state, signal), target in TRANSITIONS.items():
        signals.setdefault((state, target), []).append(signal)
    return signals


def _row(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _line(path: str, x: int, y: int, signals: list[Signal]) -> str:
    labels = list(_labels(x, y, signals))
    return "\n".join([f'<path class="line" d="{path}"/>', *labels])


def _labels(x: int, y: int, signals: list[Signal]) -> Iterator[str]:
    pairs = [", ".join(signals[at : at + 2]) for at in range(0, len(signals), 2)]
    top = y + 4 - 8 * (len(pairs) - 1)
    for number, pair in enumerate(pairs):
        yield f'<text class="signal" x="{x}" y="{top + 16 * number}">{pair}</text>'


def _box(state: UploadState) -> str:
    x, y = POSITIONS[state]
    kind = "final" if state in FINAL_STATES else "box"
    position = f'x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}"'
    size = f'width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}"'
    label = f'<text x="{x}" y="{y + 5}">{state}</text>'
    return f'<rect class="{kind}" {position} {size} rx="10"/>\n{label}'
