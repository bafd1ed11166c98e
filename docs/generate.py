"""Writes the parts of the documentation that are created from the code: documents, pages, diagrams.

Run ``python -m docs.generate`` after a change of the code; a test fails if it is needed.
"""

from __future__ import annotations

import json
from pathlib import Path

from docs.backends import backends_table
from docs.clients import clients_table
from docs.command_help import command_help
from docs.dashboard import dashboard
from docs.diagram import states_svg, transitions_table
from docs.layers import layers_svg
from docs.metrics import metrics_table
from docs.pages import events_page, http_page
from docs.variables import variables_table
from upload_progress.openapi import asyncapi_document, openapi_document
from upload_progress.starlette.component import component_script, script_integrity, script_version

HELP = "../src/upload_progress/static/help"
HERE = Path(__file__).parent
SCRIPT = """\
<script type="module" src="/uploads/upload-progress.js?v={version}"
  integrity="{integrity}"></script>
"""


def generated() -> dict[str, str]:
    """Return the text of each generated file by its path in this folder."""
    openapi, asyncapi = openapi_document(), asyncapi_document()
    return {
        "images/layers.svg": layers_svg(),
        "images/states.svg": states_svg(),
        "generated/backends.md": backends_table(),
        "generated/clients.md": clients_table(),
        "../examples/monitoring/dashboard.json": dashboard(),
        "generated/metrics.md": metrics_table(),
        "generated/transitions.md": transitions_table(),
        "generated/variables.md": variables_table(),
        "generated/integrity.html": script_tag(),
        "reference/openapi.json": json.dumps(openapi, indent=2) + "\n",
        "reference/asyncapi.json": json.dumps(asyncapi, indent=2) + "\n",
        "reference/http.md": http_page(openapi),
        "reference/events.md": events_page(asyncapi),
        **{f"{HELP}/{name}.txt": text for name, text in command_help().items()},
    }


def script_tag() -> str:
    """Return the ``script`` element with which a page loads this version of the component."""
    script = component_script() or b""
    return SCRIPT.format(version=script_version(script), integrity=script_integrity(script))


def main() -> None:
    """Write all generated files."""
    for path, text in generated().items():
        target = HERE / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
