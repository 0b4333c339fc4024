"""Distances, indicators and attacks at equal passes through a tiny profile, and that the demo makes their exhibits."""

import json

import numpy as np
import pytest
import torch
import yaml

from artifact import experiment, jobs, receipts, rehearsal, report
from artifact.compute import deeper, measure, trained
from artifact.exhibits import distances, exhibit, style, trust
from artifact.exhibits import ladder as ladder_exhibits
from artifact.exhibits import white_box as white_box_exhibits
from artifact.measurements import ladder, white_box
from artifact.measurements.measurement import Measurement
from artifact.methods import RUNGS
from mmclib import centers, losses, models
from tests.artifact.test_report import overlaps

TINY = {
    "title": "digits stand in",
    "train_on_the_spot": True,
    "training": {"digits": {"dataset": "digits", "architecture": "small_convnet", "feature_dim": 16, "epochs": 4, "milestones": [3],
                            "flip": False, "rate": 10000}},
    "models": {"sce": {"training": "digits", "loss": "sce"}, "mmc-10": {"training": "digits", "loss": "mmc"},
               "lgm": {"training": "digits", "loss": "lgm"}},
    "white_box": {"models": ["sce", "mmc-10"], "images": 16, "epsilons": [0.1, 0.2], "step_size": 0.02, "steps": [4, 12],
                  "convergence_steps": [20], "curve_epsilons": [0.05, 0.1]},
    "verdict": {"models": ["sce", "mmc-10", "lgm"], "images": 16, "check_images": 8, "restarts": 2, "classes": 3, "steps": 12,
                "queries": 8, "distances": 16, "distance_steps": 30, "indicators": 16, "matched": 8, "passes": 60,
                "more_rungs": ["gap", "pma", "pma_gap", "malt"]},
}
EXHIBITS = (distances.whole_curve, distances.why, trust.indicators, trust.equal_passes)


def load(folder, **verdict):
    settings = json.loads(json.dumps(TINY))
    settings["verdict"] |= verdict
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return experiment.load_profile(str(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deeper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMC_RESULTS", str(folder / "results"))
        patch.setenv("MMC_CHECKPOINTS", str(folder / "checkpoints"))
        profile = load(folder)
        for model in profile.verdict.models:
            for spec in ladder.measurements(profile, model):
                measure.evaluate(profile, spec)
        yield profile


@pytest.mark.parametrize(("verdict", "says"), [
    ({"distances": 17}, "verdict.distances is 17; it must be at most verdict.images = 16"),
    ({"indicators": 17}, "verdict.indicators is 17"), ({"matched": 0}, "verdict.matched"), ({"passes": 3}, "verdict.passes"),
    ({"more_rungs": ["fab"]}, "verdict.more_rungs"), ({"rules": {"indicator_limit": 1}}, "verdict.rules.indicator_limit"),
])
def test_a_bad_field_is_a_sentence(tmp_path, verdict, says):
    with pytest.raises(ValueError) as error:
        load(tmp_path, **verdict)
    assert says in str(error.value)


def test_what_a_profile_does_not_ask_for_is_not_made(tmp_path):
    profile = load(tmp_path, distances=None, indicators=None, matched=None, more_rungs=[])
    assert ladder.deeper(profile, "mmc-10") == []
    assert list(ladder.rungs(profile, "sce")) == ["cross_entropy", "untargeted_1", "untargeted_2", "restarts", "multi_targeted"]
    assert not {RUNGS["pma"], RUNGS["autoattack"]} & set(ladder.titles(profile)) and len(ladder.titles(profile)) == 6
    profile.verdict.autoattack.append("sce")
    assert ladder.titles(profile)[-1] == RUNGS["autoattack"]
    for build in EXHIBITS:
        with pytest.raises(exhibit.NotPlanned):
            build(profile)


def test_the_strongest_attack_is_the_same_for_all_of_a_comparison_or_missing(made, tmp_path):
    path = ladder.distances(made, "sce")["linf"].path(made)
    path.rename(tmp_path / "away.json")
    try:
        with pytest.raises(exhibit.Missing, match="fmn on sce"):
            ladder_exhibits.strongest(made, "sce")
    finally:
        (tmp_path / "away.json").rename(path)
    assert len(ladder_exhibits.strongest(made, "sce")) == made.verdict.images


def test_a_model_alone_is_not_held_against_transfer(made):
    alone = made.model_copy(update={"verdict": made.verdict.model_copy(update={"models": ["sce"]})})
    both = made.model_copy(update={"verdict": made.verdict.model_copy(update={"models": ["sce", "mmc-10"]})})
    for spec in ladder.transfer(both).values():
        measure.evaluate(both, spec)
    assert "white box beats transfer" not in trust.self_checks(alone).table and "white box beats transfer" in trust.self_checks(both).table


def test_rungs_stand_in_the_order_of_their_titles(made):
    for model in made.verdict.models:
        names = list(ladder.rungs(made, model))
        assert names == [name for name in RUNGS if name in names]
    assert set(RUNGS) - set(ladder.rungs(made, "mmc-10")) == {"autoattack"}


def test_a_distance_is_no_farther_than_any_ball_in_which_the_image_fell(made):
    for model in made.verdict.models:
        found = distances.least(made, model)
        for spec in ladder.rungs(made, model).values():
            assert (found[~exhibit.correct(made, spec)] <= spec.settings["epsilon"] + 1e-9).all()
        own = exhibit.evaluation(made, ladder.distances(made, model)["linf"])
        assert (found <= np.where(exhibit.correct(made, ladder.distances(made, model)["linf"]), np.inf, own["distance"])).all()
        assert (found[~exhibit.clean(made, model, 16)] == 0).all()
        assert (distances.least(made, model, "l2") >= found - 1e-6).all() or np.isinf(distances.least(made, model, "l2")).any()


def test_what_fmn_finds_within_epsilon_counts_in_the_worst_case(made, monkeypatch):
    spec, epsilon = ladder.distances(made, "sce")["linf"], made.white_box.epsilons[0]
    before, distance = ladder_exhibits.strongest(made, "sce"), np.array(exhibit.evaluation(made, spec)["distance"])
    assert not (before[:len(distance)] & (distance <= epsilon - 1e-6)).any()
    told = {"distance": [epsilon - 1e-6] * 8 + [epsilon + 1e-6] * 8,
            "targets": {"sce": {"correct": experiment.pack(np.ones(16, bool))}}}
    monkeypatch.setattr(ladder_exhibits, "evaluation", lambda *_: told)
    monkeypatch.setattr(ladder_exhibits, "correct", lambda profile, asked: np.arange(len(exhibit.correct(profile, asked))) != 7
                        if asked == spec else np.ones(len(exhibit.correct(profile, asked)), dtype=bool))
    assert list(ladder_exhibits.strongest(made, "sce")[:16]) == [place != 7 for place in range(16)]


def test_a_receipts_distances_are_checked_when_it_is_read(made, tmp_path):
    path = ladder.distances(made, "mmc-10")["linf"].path(made)
    receipt = experiment.read_receipt(path)
    copy = tmp_path / "mmc-10" / path.name
    for change, says in ((lambda results: results["distance"].__setitem__(slice(None), [2 * d + 0.1 for d in results["distance"]]),
                          "median_distance is"), (lambda results: results["distance"].pop(), "are not those of 16 images")):
        edited = json.loads(json.dumps(receipt))
        change(edited["results"])
        edited["sha256"] = receipts.checksum(edited)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(json.dumps(edited))
        with pytest.raises(ValueError, match=says):
            experiment.read_receipt(copy)


@pytest.mark.parametrize("build", EXHIBITS)
def test_every_exhibit_is_drawn_with_a_sentence(build, made, tmp_path):
    item = build(made)
    assert len(item.table) and item.says and item.notes and item.table.notna().all().all()
    assert "nan" not in item.sentence and report.write_item(tmp_path, item)
    if item.figure is not None:
        assert round(item.figure.get_figwidth(), 4) == round(style.WIDE, 4) and overlaps(item.figure) == []


def test_a_mixture_has_a_curve_but_no_margin(made):
    assert "L-GM" in distances.whole_curve(made).table.index and "L-GM" not in distances.why(made).table.index


def test_mmc_enlarges_the_margin_of_features(made):
    values = distances.why(made).values
    by = values[values["margin"] > 0].groupby("model")["relative"].median()
    assert by["mmc-10"] > by["sce"]


def test_cross_entropy_is_no_evidence_on_mmc_and_a_rule_decides(made):
    values = trust.indicators(made).values
    on = values[(values["model"] == "mmc-10") & (values["rung"] == "cross_entropy")].set_index("indicator")
    assert on.loc["unavailable_gradients", "share"] > 5 and not on["trusted"].any()
    assert (values[values["indicator"] == "silent_success"]["share"] == 0).all(), "attacks here return the best try"
    rules = made.verdict.rules.model_copy(update={"indicator_limit": 0.999999})
    lenient = made.model_copy(update={"verdict": made.verdict.model_copy(update={"rules": rules})})
    assert trust.indicators(lenient).values["trusted"].sum() >= values["trusted"].sum()


def test_at_equal_passes_the_blind_attack_is_the_worst(made):
    item = trust.equal_passes(made)
    scores = item.values[item.values["model"] == "mmc-10"].set_index("attack")["optimality"]
    assert ((0 <= scores) & (scores <= 1)).all() and scores["cross_entropy"] < scores["untargeted_2"]
    for spec in ladder.matched(made, "mmc-10").values():
        results = exhibit.evaluation(made, spec)
        assert max(results["passes"]) <= made.verdict.passes and len(results["least"]) == 8


def test_areas_are_trapezoids():
    found = trust._between(np.array([0.0, 0.01, 0.025, 0.03, 0.1, np.inf]), [0.1, 0.05, 0.025])
    assert found.tolist() == pytest.approx([0.0, 0.0125, 0.0125, 0.0375, 0.075, np.inf])


def test_the_demo_makes_them_and_a_rehearsal_in_miniature(tmp_path, monkeypatch):
    demo = experiment.load_profile("demo")
    for model in demo.verdict.models:
        assert {spec.attack for spec in ladder.deeper(demo, model)} >= {"fmn", "ddn", "indicators", "stability", "pgd"}
    assert {spec.attack for spec in ladder.matched(demo, "mmc-10").values()} == {"matched"}
    job = jobs.find(demo, "verdict")
    assert set(job.makes) >= {spec.path(demo) for model in demo.verdict.models for spec in ladder.deeper(demo, model)}
    assert {"Whole curve", "Why", "Indicators", "Equal passes"} <= report.ITEMS.keys()
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    toy = rehearsal.rehearsal(demo, "cpu").verdict
    assert (toy.distances, toy.indicators, toy.matched, toy.distance_steps, toy.passes) == (4, 4, 4, 2, demo.verdict.passes)
    assert Measurement("sce", "matched", 4, settings={"budget": 20}).gradients() > 0


def test_a_rung_that_another_refutes_is_no_evidence(made):
    values = trust.survivors(made, "mmc-10").set_index(["rung", "indicator"])
    left = {name: exhibit.correct(made, spec)[:16] for name, spec in ladder.rungs(made, "mmc-10").items()}
    best = np.logical_and.reduce(list(left.values()))
    for name, own in left.items():
        if own.any():
            assert values.loc[(name, "beaten"), "share"] == pytest.approx(100 * (own & ~best).sum() / own.sum())
    assert values.loc[("cross_entropy", "beaten"), "share"] > 5
    assert "another attack fools" in trust.indicators(made).table.loc["MMC-10", RUNGS["cross_entropy"]]


PRESET = centers.max_mahalanobis_centers(10, 16)


class Placed(torch.nn.Module):
    """Features on the centers: image i has the brightness of class i."""

    def forward(self, images):
        return PRESET[(9 * images.mean((1, 2, 3))).round().long()]


def test_features_on_their_centers_have_the_margin_that_the_note_names(made):
    model = models.Classifier(Placed(), losses.MaxMahalanobisCenter(PRESET)).eval()
    labels = torch.arange(10).repeat(3)
    images = (labels * 255 / 9).round().to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    found = deeper.feature_margin(made, None, model, images, labels, partial=None)
    assert found["accuracy"] == 1 and np.array(found["margin"]) / found["spread"] == pytest.approx((10 / 18) ** 0.5, rel=1e-3)


def test_at_equal_passes_steps_shrink_with_the_ball(made, monkeypatch):
    seen, real, spec = [], deeper.evaluation.robust_accuracy, ladder.matched(made, "sce")["untargeted_2"]
    monkeypatch.setattr(deeper.evaluation, "robust_accuracy",
                        lambda *given, **how: seen.append(how["step_size"] / how["epsilon"]) or real(*given, **how))
    images, labels, _ = trained.load_data("digits", "test", 8)
    deeper.matched(made, spec, trained.ensure_model(made, "sce").classifier, images, labels, partial=None)
    assert len(seen) > 1 and max(seen) == pytest.approx(min(seen))


def test_the_curve_says_how_much_it_flatters(made, monkeypatch):
    for model in made.white_box.models:
        for spec in white_box.measurements(made, model):
            measure.evaluate(made, spec)
    monkeypatch.setattr(white_box_exhibits, "least", lambda profile, model: np.full(16, 0.06 if model == "sce" else 0.2))
    right = exhibit.correct(made, white_box.curve(made, "sce")[0.1]).mean()
    assert right > 0, "or there is nothing to flatter"
    assert white_box_exhibits.curve(made).notes.endswith(
        f"It flatters most at ε = 0.1, where it leaves SCE {100 * right:.1f} % of the first 16 images and all attacks of the verdict 0.0 % "
        "(see Whole curve).")
