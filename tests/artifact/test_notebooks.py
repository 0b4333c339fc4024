"""Notebook hygiene: what `pytest --nbval` cannot see by itself."""

import ast
import json
import re

import pytest

from artifact import experiment, jobs

NOTEBOOKS = sorted((experiment.ROOT / "notebooks").glob("*.ipynb"))
IGNORED = "nbval-ignore-output"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_has_one_parameters_cell_of_literals(self, path):
        defaults = jobs.notebook_parameters(path)
        assert defaults.get("profile") == (None if path.stem == "00_quickstart" else "demo")

    def test_cells_are_short_and_define_only_what_they_explain(self, path):
        kinds, defined = (ast.FunctionDef, ast.ClassDef), []
        for cell in code_cells(path):
            assert source(cell).count("\n") < 15, source(cell)[:80]
            defined += [node.name for node in ast.parse(source(cell)).body if isinstance(node, kinds)]
        assert len(defined) <= 3, f"machinery lives in mmclib and artifact, a notebook defines what it explains: {defined}"

    def test_is_committed_executed_in_order_without_errors(self, path):
        cells = [cell for cell in code_cells(path) if source(cell).strip()]
        counts = [cell["execution_count"] for cell in cells]
        assert counts == list(range(1, len(cells) + 1)), "run it top to bottom in a fresh kernel and save it"
        assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])

    def test_compares_something(self, path):
        # A stripped notebook, or one whose every cell is tagged, would pass nbval and show nothing.
        compared = [cell for cell in code_cells(path) if IGNORED not in cell["metadata"].get("tags", [])]
        assert any(cell["outputs"] for cell in compared)
        assert any("assert " in source(cell) or "print(" in source(cell) for cell in compared)

    def test_outputs_are_small_and_hold_no_machine_path(self, path):
        for cell in code_cells(path):
            for output in cell["outputs"]:
                text = json.dumps(output)
                assert len(text) < 200_000, f"{len(text)} bytes of output: {source(cell)[:80]}"
                assert not re.search(r"/(home|root|tmp)/|site-packages", text)

    def test_needs_nothing_but_pytorchs_stack(self, path):
        # `python -m artifact run` runs the same cells where there is no Jupyter.
        for cell in code_cells(path):
            assert "IPython" not in source(cell) and not source(cell).lstrip().startswith(("%", "!"))
