"""The theory's numbers: what they claim, that JSON holds them, that figures draw from them alone, and repeatable training."""

import json

import matplotlib
import numpy as np
import pytest
import torch

from artifact.exhibits import theory
from artifact.theory import density, features, trials

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def runs():
    return {"sce": features.softmax_run(2, epochs=3, keep=(1,)), "mmc-10": features.mmc_run(2, epochs=3, keep=(1,))}


@pytest.fixture(scope="module")
def drawn(runs):
    return {"figure_1": features.figure_1(runs), "figure_2": trials.figure_2(), "figure_5": trials.figure_5(),
            "figure_6": trials.figure_6(length=18.5, step=0.25)}


@pytest.mark.parametrize("name", ["figure_1", "figure_2", "figure_5", "figure_6"])
def test_figures_are_drawn_from_json(drawn, name, tmp_path):
    text = json.dumps(drawn[name], allow_nan=False)
    assert len(text) < 150_000 and drawn[name]["says"].endswith(".")
    figure = getattr(theory, name)(json.loads(text))
    assert isinstance(figure, matplotlib.figure.Figure)
    figure.savefig(tmp_path / "figure.png", dpi=50)
    matplotlib.pyplot.close(figure)


def test_stand_in_data_is_named(drawn):
    figure = theory.figure_1(drawn["figure_1"])
    assert "handwritten digits (stand-in)" in figure.get_suptitle()
    matplotlib.pyplot.close(figure)


def test_rounding():
    values = {"a": np.array([1 / 3, 1e-9 / 3]), "b": torch.tensor([[2.0]]), "c": None, "d": "text", "e": np.int64(3), "f": True}
    assert trials.rounded(values, 3) == {"a": [0.333, 3.33e-10], "b": [[2.0]], "c": None, "d": "text", "e": 3, "f": True}


def test_figure_2_contours_by_root_finding(drawn):
    for shape in (drawn["figure_2"]["softmax"], drawn["figure_2"]["mmc"]):
        for contour in shape["contours"]:
            radii = np.linalg.norm(np.array(contour["found"]) - shape["center"], axis=1)
            assert np.allclose(radii, contour["radius"], rtol=1e-3)
    assert (np.diff(drawn["figure_2"]["softmax"]["radii"]) < 0).all() and (np.diff(drawn["figure_2"]["mmc"]["radii"]) > 0).all()


def test_figure_5_angles(drawn):
    assert [panel["angle"] for panel in drawn["figure_5"]["panels"]] == pytest.approx([180, 120, 109.47], abs=0.01)


def test_figure_6_fields(drawn):
    shown = {panel["objective"]: panel for panel in drawn["figure_6"]["panels"]}
    plane, (own, _, target) = np.array(drawn["figure_6"]["grid"]), np.array(drawn["figure_6"]["centers"])
    # By hand, with L_MMC = ½‖z - μ‖²: away from y; to the target; and constant between the two.
    assert np.allclose(shown["untargeted_1"]["gradient"], plane - own, atol=1e-2)
    assert np.allclose(shown["targeted_1"]["gradient"], target - plane, atol=1e-2)
    assert np.allclose(shown["targeted_2"]["gradient"], target - own, atol=1e-2)
    assert shown["targeted_1"]["target_loss"] < 0.1
    assert min(shown, key=lambda name: shown[name]["crossing"]["length"]) == "untargeted_2"


@pytest.mark.parametrize("kind", ["mmc", "growing", "bounded"])
def test_volume_trial_decides_for_the_exact_form(kind):
    trial = trials.volume_trial(kind, 3, count=200_000, seed=1)
    assert trial["exact_inside"] and not trial["paper_inside"]


@pytest.mark.parametrize("kind", ["mmc", "growing"])
def test_density_trial(kind):
    rows = trials.density_trial(kind, 3, [0.01, 0.1, 0.5], count=200_000, seed=1)
    assert all(row["low"] <= row["exact"] <= row["high"] for row in rows)
    assert trials.exponent(rows, "exact") == pytest.approx(-0.5 if kind == "mmc" else 1.03, abs=0.03)


def test_training_is_repeatable_and_learns(runs):
    again = features.mmc_run(2, epochs=3, keep=(1,))
    assert all(np.array_equal(again.features[epoch], runs["mmc-10"].features[epoch]) for epoch in (1, 3))
    assert runs["mmc-10"].test_accuracy > 0.5
    assert runs["mmc-10"].own_losses().shape == runs["mmc-10"].labels.shape


def test_pair_run_uses_the_contours_it_is_given():
    contours = trials.pair_contours("growing", 2)
    run = features.pair_run(contours, epochs=2, classes=(3, 8))
    values = trials.pair_loss(features.biased(contours))(run.final)
    assert np.allclose(values[run.labels == 0], run.own_losses()[run.labels == 0], rtol=1e-5)
    assert set(run.labels) == {0, 1} and not [p for p in run.classifier.head.parameters() if p.requires_grad]


def test_rival_counts(runs):
    per_class, pairs = features.rival_counts(runs["mmc-10"])
    assert per_class.sum() == pairs.sum() == len(runs["mmc-10"].labels) and (pairs.diagonal() == 0).all()


def test_formula_beside_measurement_on_a_known_distribution():
    # Gaussian features around their center are what Theorem 2 assumes: the exact form is right with nothing fitted.
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(4000, 3)), np.repeat([0, 1], 2000)
    found = features.compare_with_formula(points, np.square(points).sum(1) / 2, labels, density.CenterContours(3), 20)
    assert abs(found["exact_median_log_ratio"]) < 0.2 and found["exact_rank_correlation"] > 0.8
    assert found["paper_spread_log_ratio"] > found["exact_spread_log_ratio"]


def test_unit_length_is_a_length():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(60, 2)), np.arange(60) % 3
    assert features.unit_length(7 * points, labels) == pytest.approx(7 * features.unit_length(points, labels))
