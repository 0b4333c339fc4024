"""Verdicts, words and files of the report, apart from any run."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from artifact import experiment, items, report
from artifact.exhibits import exhibit, figures


def comparable(change=None):
    profile = experiment.load_profile("paper")
    return profile.model_copy(update=change or {})


@pytest.mark.parametrize(("ours", "printed", "says"), [
    (36.9, "36.0", "reproduced"), (38.1, "36.0", "near"), (30.9, "36.0", "differs"),
    (0.2, "<=1", "reproduced"), (2.9, "<=1", "reproduced"), (3.5, "<=1", "near"), (19.0, "<=1", "differs"),
    (50.0, None, "paper: not available"), (50.0, float("nan"), "paper: not available"),
])
def test_a_verdict_follows_the_profiles_band(ours, printed, says):
    assert exhibit.verdict(comparable(), ours, printed) == says


def test_numbers_from_stand_in_data_get_no_verdict():
    assert exhibit.verdict(experiment.load_profile("demo"), 36.0, "36.0").startswith("not comparable")
    assert not experiment.load_profile("quick").comparable


def test_epsilon_reads_as_the_paper_writes_it():
    assert [exhibit.epsilon_text(e) for e in (8 / 255, 16 / 255, 0.1, 0.3)] == ["8/255", "16/255", "0.1", "0.3"]


def test_the_papers_rows_are_rows_of_the_paper_profile():
    rows = [items.label(model) for model in experiment.load_profile("paper").white_box.models]
    assert rows == list(exhibit.paper_table("table1.csv").index)


def test_a_worst_case_is_taken_image_by_image():
    flags = [np.array([True, True, False, True]), np.array([True, False, True, True])]
    assert exhibit.worst(flags)["accuracy"] == 50


def test_a_figure_is_the_same_file_when_drawn_again(tmp_path):
    data = pd.DataFrame({"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]})
    for folder in ("a", "b"):
        figures.save(figures.accuracy_against_epsilon(data, "title"), tmp_path / folder, "figure", data)
    for name in ("figure.pdf", "figure.png", "figure.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not plt.get_fignums()


def test_a_method_has_one_colour_and_adversarial_training_a_dash():
    looks = {model: figures.line_style(model) for model in ("mmc-10", "at-un-mmc-10", "mnist-mmc-10", "mmc-10-2d", "mmc-100", "sce")}
    assert len({looks[m]["color"] for m in ("mmc-10", "at-un-mmc-10", "mnist-mmc-10", "mmc-10-2d")}) == 1
    assert looks["mmc-100"]["color"] != looks["mmc-10"]["color"] != looks["sce"]["color"]
    assert looks["at-un-mmc-10"]["linestyle"] == ":" and looks["mmc-10"]["linestyle"] == "-"


def test_long_form_names_every_number_by_where_it_stands():
    frame = report.long_form({"a": [1, [2.5]], "says": "words", "b": {"c": 3}})
    assert frame.to_dict("list") == {"what": ["a.0", "a.1.0", "b.c"], "value": [1, 2.5, 3]}


def test_a_table_is_written_in_every_format(tmp_path):
    table = pd.DataFrame({"PGD-10 un, ε = 8/255": ["36.0"]}, index=["MMC-10 (100 %_x)"])
    item = report.Item("Table 9", "table_9", "A title", "It says", table, None, pd.DataFrame({"accuracy": [36.0]}))
    assert report.write_item(tmp_path, item) == ["table_9.csv", "table_9.md", "table_9.tex"]
    assert "| MMC-10 (100 %_x) |" in (tmp_path / "table_9.md").read_text()
    latex = (tmp_path / "table_9.tex").read_text()
    assert r"100 \%\_x" in latex and r"$\varepsilon$ = 8/255" in latex and r"\toprule" in latex
