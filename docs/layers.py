"""The diagram of the packages: one row for each layer, as SVG.

Imports point downwards only. The rows are those of the import-linter contract in
``pyproject.toml``, except for ``client``, which stands beside the server's packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LAYERS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("programs", ("cli", "testing")),
    ("", ("demo",)),
    ("web", ("starlette", "client")),
    ("", ("openapi",)),
    ("", ("asgi",)),
    ("tracker", ("tracker",)),
    ("", ("_background", "_resources")),
    ("backends", ("memory", "redis", "postgres", "kafka", "rabbitmq")),
    ("other workers", ("_cluster",)),
    ("this process", ("upload", "_tracking")),
    ("", ("_fanout",)),
    ("", ("protocols",)),
    ("", ("_runtime",)),
    ("vocabulary", ("interfaces",)),
    ("", ("throttling", "config")),
    ("", ("_model",)),
    ("", ("exceptions", "connection", "identity")),
)
WIDTH, LEFT, ROW, BOX = 720, 120, 38, 28
STYLE = """
.paper { fill: #ffffff }
.private { fill: #f3f4f6; stroke: #9ca3af; stroke-width: 1.2 }
.public { fill: #eef2ff; stroke: #4f5bd5; stroke-width: 1.5 }
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #111827 }
.label { font-size: 12px; text-anchor: start; fill: #6b7280 }
"""


def layers_svg() -> str:
    """Return the diagram; public packages are coloured, private ones are grey."""
    height = ROW * len(LAYERS) + 16
    rows = [_row(number, *layer) for number, layer in enumerate(LAYERS)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The packages of upload-progress, in layers">\n'
        f'<style>{STYLE}</style>\n<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>'
    )
    return "\n".join([head, *rows, "</svg>\n"])


def _row(number: int, label: str, names: Sequence[str]) -> str:
    top = 8 + ROW * number
    width = (WIDTH - LEFT - 16) / len(names)
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
