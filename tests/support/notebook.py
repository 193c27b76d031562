"""Makes examples/malt_in_one_page.ipynb of examples/malt_in_one_page.py: a cell a definition.

python tests/support/notebook.py
"""

import ast
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "examples" / "malt_in_one_page.py"
_INSTALL = """# With what this host's accelerator needs, if it has one.
import shutil
from pathlib import Path

tpus = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
extra = "[gpu]" if shutil.which("nvidia-smi") else "[tpu]" if tpus else ""
%pip install --quiet "malt-jax{extra}"
"""


def of(source: str) -> dict[str, Any]:
    """The notebook of a page: its documentation as text, its imports and settings as one cell, each
    definition as another, and its run."""
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    definitions = (ast.FunctionDef, ast.ClassDef)
    starts = [
        min([node.lineno, *(d.lineno for d in node.decorator_list)])
        for node in tree.body
        if isinstance(node, definitions)
    ]
    first = tree.body[1].lineno
    end = tree.body[-1].lineno  # of what runs the page as a program
    bounds = [first, *starts, end]
    parts = ["".join(lines[a - 1 : b - 1]) for a, b in pairwise(bounds)]
    cells = [_cell("markdown", ast.get_docstring(tree) or ""), _cell("code", _INSTALL)]
    cells += [_cell("code", part) for part in (*parts, "main()")]
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def _cell(kind: str, text: str) -> dict[str, Any]:
    of_code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    source = text.strip().splitlines(keepends=True)
    return {"cell_type": kind, "metadata": {}, "source": source, **of_code}


def text(source: str) -> str:
    """The notebook's file."""
    return json.dumps(of(source), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.with_suffix(".ipynb").write_text(text(PAGE.read_text()))
