"""Notebook hygiene: what `pytest --nbval` cannot see by itself."""

import ast
import json
import re

import numpy as np
import pytest
import torch

from artifact import experiment, notebook, runners
from artifact.exhibits import white_box as white_box_exhibits
from artifact.experiment import ROOT
from mmclib.losses import SoftmaxCrossEntropy

NOTEBOOKS = sorted((experiment.ROOT / "notebooks").glob("*.ipynb"))
IGNORED = "nbval-ignore-output"


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_has_one_parameters_cell_of_literals(self, path):
        defaults = runners.notebook_parameters(path)
        assert defaults.get("profile") == (None if path.stem == "00_quickstart" else "demo")

    def test_cells_are_short_and_define_only_what_they_explain(self, path):
        kinds, defined = (ast.FunctionDef, ast.ClassDef), []
        for cell in code_cells(path):
            assert source(cell).count("\n") < 15, source(cell)[:80]
            defined += [node.name for node in ast.parse(source(cell)).body if isinstance(node, kinds)]
        assert len(defined) <= 5, f"machinery lives in mmclib and artifact, a notebook defines what it explains: {defined}"

    def test_ends_with_exercises_and_a_cell_to_try(self, path):
        cells = json.loads(path.read_text())["cells"]
        titles = [number for number, cell in enumerate(cells) if cell["cell_type"] == "markdown" and "## Exercises" in source(cell)]
        assert len(titles) == 1, "one cell of exercises"
        assert cells[titles[0] + 1]["cell_type"] == "code" and len(cells) - titles[0] <= 3
        assert 2 <= len(re.findall(r"^\d\. ", source(cells[titles[0]]), re.M)) <= 3

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


def test_at_most_three_cells_in_ten_go_unchecked():
    cells = [cell for path in NOTEBOOKS for cell in code_cells(path)]
    ignored = [cell for cell in cells if IGNORED in cell["metadata"].get("tags", [])]
    assert len(ignored) <= 0.3 * len(cells), f"{len(ignored)} of {len(cells)}"


class TestRun:
    def test_claims_are_said_and_stand_in_the_receipt(self, tmp_path, capsys):
        run = notebook.Run("demo", ["sce"], str(tmp_path / "02_training-0123456789ab.json"))
        run.claim("one is one", True)
        run.claim("one is two", np.bool_(False), "It is one")
        run.finish(models=["a"])
        assert capsys.readouterr().out.splitlines() == ["holds: one is one", "DOES NOT HOLD: one is two. It is one", "1 of 2 claims hold"]
        results = experiment.read_receipt(tmp_path / "02_training-0123456789ab.json")["results"]
        assert [claim["holds"] for claim in results["claims"]] == [True, False] and results["models"] == ["a"]
        assert [claim["says"] for claim in results["claims"]] == ["", "It is one"]

    def test_without_an_output_it_writes_nothing_and_without_an_item_it_says_so(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
        run = notebook.Run("demo", ["sce"])
        assert run.show(white_box_exhibits.table_1) is None
        run.finish()
        assert capsys.readouterr().out.strip() == notebook.NO_PART and not list(tmp_path.iterdir())


def test_the_hand_worked_network_is_the_same_twice_and_knows_digits():
    images, labels = notebook.digits()
    first, second = (notebook.trained_on_digits(SoftmaxCrossEntropy(10, 64), epochs=3) for _ in range(2))
    assert torch.equal(first(images), second(images)) and (first(images).argmax(1) == labels).float().mean() > 0.8


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_measure_only_what_their_jobs_wait_for(path):
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert not re.search(r"measure\.evaluate|ensure_model", code)
