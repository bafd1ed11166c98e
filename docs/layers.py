"""The diagram of the packages, as SVG: one row for each layer of the import-linter contract."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[1] / "pyproject.toml"
# The first package of a layer, and the label of the row.
LABELS: Final = {
    "cli": "programs",
    "starlette": "web",
    "tracker": "tracker",
    "backends": "stores, brokers",
    "_cluster": "other workers",
    "upload": "this process",
    "config": "vocabulary",
}
WIDTH, LEFT, ROW, BOX = 720, 120, 38, 28
STYLE = """
.paper { fill: #ffffff }
.private { fill: #f3f4f6; stroke: #9ca3af; stroke-width: 1.2 }
.public { fill: #eef2ff; stroke: #4f5bd5; stroke-width: 1.5 }
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #111827 }
.label { font-size: 12px; text-anchor: start; fill: #6b7280 }
"""


def layers() -> list[list[str]]:
    """Return the packages of each layer, highest first."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    [contract] = [each for each in contracts if each["type"] == "layers"]
    return [re.findall(r"\w+", layer) for layer in contract["layers"]]


def layers_svg() -> str:
    """Return the diagram; public packages are coloured, private ones are grey."""
    rows = [_row(number, names) for number, names in enumerate(layers())]
    height = ROW * len(rows) + 16
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The packages of upload-progress, in layers">\n'
        f'<style>{STYLE}</style>\n<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>'
    )
    return "\n".join([head, *rows, "</svg>\n"])


def _row(number: int, names: Sequence[str]) -> str:
    top = 8 + ROW * number
    width = (WIDTH - LEFT - 16) / len(names)
    label = LABELS.get(names[0], "")
    texts = [f'<text class="label" x="14" y="{top + 22}">{label}</text>'] if label else []
    for place, name in enumerate(names):
        x = LEFT + place * width
        kind = "private" if name.startswith("_") else "public"
        texts.append(
            f'<rect class="{kind}" x="{x:.0f}" y="{top + 4}" width="{width - 8:.0f}" '
            f'height="{BOX}" rx="6"/>\n'
            f'<text x="{x + width / 2 - 4:.0f}" y="{top + 22}">{name}</text>'
        )
    return "\n".join(texts)
