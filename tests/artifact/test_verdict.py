"""The ladder and the variants through a tiny profile: receipts made once, and what the tables, checks and claims make of them."""

import json
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats
from sklearn.metrics import roc_auc_score

from artifact import experiment, methods, report
from artifact.compute import measure, peers, probes, trained
from artifact.compute.pieces import Pieces
from artifact.exhibits import claims, exhibit, seeds, trust
from artifact.exhibits import ladder as ladder_exhibits
from artifact.exhibits import variants as variants_exhibits
from artifact.measurements import ladder, variants
from artifact.measurements.measurement import Measurement, stands
from artifact.methods import RUNGS
from artifact.sections import Rules
from mmclib import attacks, intervals
from mmclib.attacks.objectives import OBJECTIVES, divided
from tests.artifact.tiny import told

TINY = {
    "title": "digits stand in",
    "train_on_the_spot": True,
    "training": {
        "digits": {
            "dataset": "digits",
            "architecture": "small_convnet",
            "feature_dim": 16,
            "epochs": 4,
            "milestones": [3],
            "flip": False,
            "epsilon": 0.1,
            "step_size": 0.05,
            "steps": 2,
            "rate": 10000,
        },
        "pairs": {
            "dataset": "digit-pairs",
            "train_images": 1000,
            "architecture": "small_convnet",
            "feature_dim": 99,
            "epochs": 2,
            "milestones": [1],
            "flip": False,
            "rate": 5000,
        },
    },
    "models": {
        "sce": {"training": "digits", "loss": "sce"},
        "mmc-10": {"training": "digits", "loss": "mmc"},
        "at-un-sce": {"training": "digits", "loss": "sce", "adversarial": "untargeted"},
        "at-un-mmc-10": {"training": "digits", "loss": "mmc", "adversarial": "untargeted"},
        "sce-1": {"training": "digits", "loss": "sce", "seed": 1},
        "mmc-10-1": {"training": "digits", "loss": "mmc", "seed": 1},
        "mmc-10-abs": {"training": "digits", "loss": "mmc", "form": "absolute"},
        "at-un-mmc-10-margin": {"training": "digits", "loss": "mmc", "adversarial": "untargeted", "inner": "margin"},
        "mmc-3": {"training": "digits", "loss": "mmc", "radius": 3},
        "pairs-sce": {"training": "pairs", "loss": "sce"},
        "pairs-mmc-10": {"training": "pairs", "loss": "mmc"},
        "pairs-emc-1": {"training": "pairs", "loss": "emc", "alpha": 1},
        "pairs-hm-10-3": {"training": "pairs", "loss": "mmc-hm", "radii": [10, 3], "rotate": True},
    },
    "white_box": {"models": ["sce", "mmc-10"], "images": 24, "epsilons": [0.1, 0.2], "step_size": 0.05, "steps": [2, 6]},
    "cifar100": {"models": ["pairs-sce", "pairs-mmc-10"]},
    "depth": {"networks": {"small": ["sce", "mmc-10"], "small again": ["sce", "mmc-10"]}},
    "variants": {
        "elastic": ["pairs-mmc-10", "pairs-emc-1"],
        "hierarchical": ["pairs-mmc-10", "pairs-hm-10-3"],
        "forms": ["mmc-10", "mmc-10-abs"],
        "inner": ["at-un-mmc-10", "at-un-mmc-10-margin"],
        "radius": ["mmc-3", "mmc-10"],
        "uncertainty": ["sce", "mmc-10"],
    },
    "verdict": {
        "models": ["sce", "mmc-10", "at-un-sce", "at-un-mmc-10"],
        "images": 16,
        "restarts": 2,
        "classes": 3,
        "steps": 8,
        "queries": 8,
        "check_images": 12,
        "autoattack": [],
        "diagnosed": ["mmc-10"],
    },
    "seeds": {"models": ["sce-1", "mmc-10-1"]},
}


def load(tmp_path, change=lambda settings: None):
    settings = json.loads(json.dumps(TINY))
    change(settings)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return experiment.load_profile(str(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The profile with every receipt of 06 and 07."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMC_RESULTS", str(folder / "results"))
        patch.setenv("MMC_CHECKPOINTS", str(folder / "checkpoints"))
        profile = load(folder)
        for model in variants.models(profile):
            for spec in variants.measurements(profile, model):
                measure.evaluate(profile, spec)
        for model in ladder.models(profile):
            for spec in ladder.measurements(profile, model):
                measure.evaluate(profile, spec)
        yield profile


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s["models"]["mmc-10-abs"].update(loss="sce"), "form is for loss 'mmc' only"),
    (lambda s: s["models"]["mmc-3"].update(inner="margin"), "inner is what adversarial training climbs: it needs adversarial"),
    (lambda s: s["models"]["pairs-emc-1"].pop("alpha"), "loss 'emc' needs alpha"),
    (lambda s: s["models"]["pairs-hm-10-3"].update(training="digits"), "hierarchical centers need a data set with superclasses"),
    (lambda s: s["models"]["pairs-hm-10-3"].update(radii=[10]), "models.pairs-hm-10-3.radii"),
    (lambda s: s["verdict"].update(check_images=17), "verdict.check_images is 17; it must be at most verdict.images = 16"),
    (lambda s: s["verdict"].update(images=25), "verdict.images is 25; it must be at most white_box.images = 24"),
    (lambda s: s["variants"]["elastic"].append("emc-7"), "variants.elastic names 'emc-7'"),
    (lambda s: s["depth"]["networks"]["small"].__setitem__(0, "big"), "depth.networks names 'big'"),
    (lambda s: s["verdict"].update(rules={"attack_gap": 0}), "verdict.rules.attack_gap"),
    (lambda s: s["models"]["mmc-10-1"].update(radius=3), "seeds.models names 'mmc-10-1'; verdict.models must have a model that differs "
                                                         "from it in its seed alone"),
])
def test_a_bad_section_is_a_sentence(tmp_path, change, says):
    with pytest.raises(ValueError) as error:
        load(tmp_path, change)
    assert says in str(error.value)


def test_a_variants_setting_moves_its_own_identity_only(tmp_path):
    before, after = load(tmp_path), load(tmp_path, lambda s: s["models"]["pairs-emc-1"].update(alpha=2))
    moved = [m for m in before.models if experiment.model_identity(before, m) != experiment.model_identity(after, m)]
    assert moved == ["pairs-emc-1"]


def test_adversarial_training_climbs_what_its_row_says(made):
    climbed = {model: trained.recipe(made, model).adversarial.objective for model in ("at-un-sce", "at-un-mmc-10", "at-un-mmc-10-margin")}
    assert climbed == {"at-un-sce": "cross_entropy", "at-un-mmc-10": "untargeted_1", "at-un-mmc-10-margin": "untargeted_2"}
    assert methods.label(made, "at-un-mmc-10-margin") == "AT_un2 (MMC-10, against the margin)"
    assert made.find(["at-un-mmc-10-margin", "at-un-mmc-10"], "mmc", "untargeted") == "at-un-mmc-10", "the paper's is what claims go by"
    assert "inner" not in experiment.model_settings(made, "at-un-mmc-10"), "or every receipt would be work to do again"
    item = variants_exhibits.inner(made)
    assert list(item.table.index) == ["AT_un2 (MMC-10)", "AT_un2 (MMC-10, against the margin)"]
    assert "worst case against MMC-10 trained the same way: AT_un2 (MMC-10, against the margin) " in item.says


def test_each_variant_trains_the_head_it_names(made):
    assert trained.ensure_model(made, "mmc-10-abs").classifier.head.form == "absolute"
    assert trained.ensure_model(made, "pairs-emc-1").classifier.head.alpha == 1
    own = trained.ensure_model(made, "pairs-hm-10-3").classifier.head.centers
    offsets = own.reshape(10, 10, -1) - own.reshape(10, 10, -1).mean(1, keepdim=True)  # pairs are sorted by their tens
    assert torch.allclose(offsets.norm(dim=2), torch.tensor(3.0), atol=1e-3)
    assert not torch.allclose(offsets[0], offsets[1], atol=0.1), "rotated"


def test_the_ladder_never_rises_and_counts_on_the_same_images(made):
    item = ladder_exhibits.ladder_item(made)
    for _, rows in item.values.groupby("model"):
        assert (rows["so_far"].diff().dropna() <= 0).all() and (rows["so_far"] <= rows["accuracy"]).all()
        assert list(rows["rung"])[-1] == "worst" and rows["accuracy"].iloc[-1] == rows["so_far"].iloc[-2] == rows["so_far"].min()
        assert (rows["low"] <= rows["accuracy"]).all() and (rows["accuracy"] <= rows["high"]).all()
    assert list(item.table.columns)[-1] == "worst case" and set(item.table.index) == {methods.label(made, m) for m in made.verdict.models}
    assert item.table.loc["SCE", RUNGS["divided"]] == "–"  # no known scale to divide by
    shared = ladder.rungs(made, "sce")["untargeted_2"]
    assert shared.images == made.white_box.images, "Table 1's notebook makes it too"


def test_dividing_logits_brings_cross_entropys_gradient_back(made):
    rungs = ladder.rungs(made, "mmc-10")
    blind, sees = (exhibit.evaluation(made, rungs[name]) for name in ("cross_entropy", "divided"))
    assert rungs["divided"].settings["divide_logits"] == 200
    assert blind["zero_gradients"] > 0.2 > sees["zero_gradients"] == 0


def test_dividing_logits_changes_no_margin_step():
    logits = torch.tensor([[-400.0, -100.0, -250.0]], requires_grad=True)
    labels = torch.tensor([1])
    plain, = torch.autograd.grad(OBJECTIVES["untargeted_2"](None, logits, labels, None).sum(), logits)
    scaled, = torch.autograd.grad(divided("untargeted_2", 200)(None, logits, labels, None).sum(), logits)
    assert plain.sign().equal(scaled.sign())


def test_self_checks_tell_a_blind_attack_from_a_seeing_one(made):
    item = trust.self_checks(made)
    assert item.table.loc["MMC-10", "no more than 5 % zero gradients, cross-entropy"].startswith("FLAG")
    assert item.table.loc["MMC-10", "no more than 5 % zero gradients, margin"].startswith("ok")
    assert item.table.loc["SCE", "not random"] == "ok (0)"
    assert "MMC-10: no more than 5 % zero gradients, cross-entropy" in item.says


def test_a_claim_holds_where_it_holds_on_every_seed(made):
    first, second = claims.casts(made, ladder.models(made))
    assert (first.seed, first.sce, first.at_mmc) == (0, "sce", "at-un-mmc-10")
    assert (second.seed, second.sce, second.mmc, second.at_sce) == (1, "sce-1", "mmc-10-1", None)
    judged = claims.claims(made)
    assert judged.table["measured"].str.contains("\nseed 1: ").tolist() == [True, True, False, False], "time is no matter of seeds"
    gaps = [100 * (exhibit.clean(made, cast.mmc, None).mean() - exhibit.clean(made, cast.sce, None).mean()) for cast in (first, second)]
    between = made.verdict.rules.model_copy(update={"clean_gap": 100 - 1e-6})
    assert all(f"{gap:+.1f} points" in judged.table["measured"].iloc[1].replace(": 0.0 ", ": +0.0 ") for gap in gaps)
    worse = [claims._claim_clean(made, between, cast)[2] for cast in (first, second)]
    kind = made.model_copy(update={"verdict": made.verdict.model_copy(update={"rules": between})})
    assert claims.claims(kind).table["verdict"].iloc[1] == claims.LEVELS[max(worse)]


def test_a_table_is_made_as_far_as_its_receipts_are_there(made, monkeypatch, tmp_path):
    whole = report.make("Ladder", made)
    assert "Not made yet" not in whole.notes and "Not made yet" not in report.make("Table 1", made).notes
    away = tmp_path / "away.json"
    path = ladder.rungs(made, "at-un-sce")["restarts"].path(made)
    path.rename(away)
    try:
        part = report.make("Ladder", made)
        assert part.notes.endswith("Not made yet: AT_un2 (SCE).")
        pd.testing.assert_frame_equal(part.table, whole.table.drop("AT_un2 (SCE)").loc[part.table.index])
        assert len(part.table) == len(whole.table) - 1
        judged = report.make("Verdict", made).table
        assert judged["verdict"].iloc[3] == "not judged" and "no receipt of pgd on at-un-sce" in judged["measured"].iloc[3]
        assert set(judged["verdict"].iloc[:3]) <= set(claims.LEVELS)
    finally:
        away.rename(path)
    with pytest.raises(exhibit.NotPlanned):
        report.make("Table 3", made)


def test_a_part_of_figure_3a_has_no_model_that_the_whole_lacks(made, tmp_path):
    whole, model = report.make("Figure 3a", made), made.white_box.models[-1]
    path = experiment.model_receipt_path(made, model)
    path.rename(tmp_path / "away.json")
    try:
        part = report.make("Figure 3a", made)
    finally:
        (tmp_path / "away.json").rename(path)
    assert set(part.values["model"]) == set(whole.values["model"]) - {model} and "Not made yet" in part.notes


def test_seeds_are_shown_as_mean_and_range_with_paired_differences(made):
    item = seeds.seeds(made)
    numbers = [100 * exhibit.clean(made, model, None).mean() for model in ("mmc-10", "mmc-10-1")]
    assert item.table.loc["MMC-10", "Clean"] == f"{np.mean(numbers):.1f} ({min(numbers):.1f} to {max(numbers):.1f})"
    assert item.table.loc["MMC-10", ["seeds", "attacked"]].tolist() == [2, 2] and list(item.table.index) == ["SCE", "MMC-10"]
    rungs = [exhibit.correct(made, spec)[:16] for spec in ladder.rungs(made, "mmc-10-1").values()]
    assert item.values.set_index(["model", "seed", "title"]).loc[("mmc-10", 1, seeds.WORST), "accuracy"] == pytest.approx(
        100 * np.logical_and.reduce(rungs).mean(), abs=1e-4)
    assert [part.split(":")[0] for part in item.says.split("; ")] == ["seed 0, MMC-10 over SCE", "seed 1, MMC-10 over SCE",
                                                                      "seed 0, AT MMC-10 over AT SCE"]
    with pytest.raises(exhibit.NotPlanned):
        seeds.seeds(made, ["sce", "mmc-10"])


@pytest.mark.parametrize("methods", [["sce-1"], ["mmc-10-1"], ["at-un-sce"], ["sce", "mmc-10"]])
def test_the_verdicts_notebook_runs_over_any_share_of_its_models(made, methods, capsys):
    cells = [cell for cell in json.loads((experiment.ROOT / "notebooks" / "07_verdict.ipynb").read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    begins = next(place for place, source in enumerate(sources) if source.startswith("run.evaluate("))
    names = {"profile": made.source, "methods": methods, "output": ""}
    for source in (next(source for source in sources if "run = Run(" in source), *sources[begins:]):
        if "torch.autograd.grad" not in source:  # the exercise goes on with what was worked by hand
            exec(source, names)
    assert names["run"].methods == methods and "by hand" not in capsys.readouterr().out


def test_a_seed_that_is_trained_and_not_attacked_counts_for_clean_accuracy_alone(made, monkeypatch, tmp_path):
    whole = seeds.seeds(made)
    path = ladder.rungs(made, "mmc-10-1")["restarts"].path(made)
    path.rename(tmp_path / "away.json")
    try:
        part = seeds.seeds(made)
    finally:
        (tmp_path / "away.json").rename(path)
    assert part.table.loc["MMC-10", ["seeds", "attacked", "Clean"]].tolist() == [2, 1, whole.table.loc["MMC-10", "Clean"]]
    own = whole.values.set_index(["model", "seed", "title"])["accuracy"]
    assert part.table.loc["MMC-10", seeds.WORST] == f"{own['mmc-10', 0, seeds.WORST]:.1f}", "one number has no range"
    assert part.table.loc["SCE"].equals(whole.table.loc["SCE"])
    assert [("clean" in one, "worst case" in one) for one in part.says.split("; ")] == [(True, True), (True, False), (True, True)]
    receipt = json.loads(experiment.model_receipt_path(made, "sce").read_text())
    other = receipt | {"provenance": receipt["provenance"] | {"precision": "bfloat16"}}
    read = exhibit.read_receipt
    monkeypatch.setattr(exhibit, "read_receipt", lambda path: other if path == experiment.model_receipt_path(made, "sce") else read(path))
    assert seeds.seeds(made).notes.endswith("Trained in bfloat16: SCE seed 0; in float32: SCE seed 1, MMC-10 seed 0, MMC-10 seed 1.")
    assert "Trained in" not in whole.notes


def test_claims_follow_the_rules_of_the_profile(made, tmp_path):
    judged = claims.claims(made).table
    assert list(judged.index.str[:4]) == ["(i) ", "(ii)", "(iii", "(iv)"] and set(judged["verdict"]) <= set(claims.LEVELS)
    lenient = made.verdict.rules.model_copy(update={"attack_gap": 100, "clean_gap": 100, "extra_time": 100.0})
    kind = made.model_copy(update={"verdict": made.verdict.model_copy(update={"rules": lenient})})
    assert list(claims.claims(kind).table["verdict"][1:3]) == ["holds", "holds"]
    strict = made.verdict.rules.model_copy(update={"attack_gap": 1e-9})
    hard = made.model_copy(update={"verdict": made.verdict.model_copy(update={"rules": strict})})
    paper, left = exhibit.correct(made, ladder.rungs(made, "mmc-10")["untargeted_1"])[:16], ladder_exhibits.strongest(made, "mmc-10")
    assert left.sum() < paper.sum() and claims.claims(hard).table["verdict"].iloc[0] != "holds"
    part = claims.claims(made, ["sce", "mmc-10"]).table
    assert part["verdict"].iloc[3] == "not judged" and "needs AT_un of SCE and AT_un of MMC, not here" in part["measured"].iloc[3]
    with pytest.raises(exhibit.NotPlanned, match="the claims are about SCE and MMC"):
        claims.claims(made, ["mmc-10"])


def test_checks_on_fewer_images_count_on_those(made):
    specs = ladder.checks(made, "mmc-10")
    assert {spec.images for spec in specs.values()} == {12} and ladder.diagnosis(made, "mmc-10").images == 12
    rungs = np.logical_and.reduce([exhibit.correct(made, spec)[:16] for spec in ladder.rungs(made, "mmc-10").values()])
    also = exhibit.correct(made, specs["longer"]) & exhibit.correct(made, specs["black_box"])
    assert (ladder_exhibits.strongest(made, "mmc-10") == np.concatenate([rungs[:12] & also, rungs[12:]])).all()


def test_a_loss_surface_is_flat_where_cross_entropy_is_blind(made):
    results = exhibit.evaluation(made, ladder.diagnosis(made, "mmc-10"))
    assert np.shape(results["surface"]["cross_entropy"]) == (21, 21)
    assert np.ptp(results["surface"]["untargeted_2"]) > 1
    assert results["paths"]["untargeted_2"]["margin"][-1] < results["paths"]["untargeted_2"]["margin"][0]
    assert ladder_exhibits.diagnosis(made).figure is not None


@pytest.mark.parametrize("build", [getattr(variants_exhibits, name) for name in (
    "table_4", "table_5", "elastic", "hierarchical", "forms", "inner", "radius", "uncertainty")])
def test_every_variants_table_is_drawn_with_a_sentence(made, build):
    item = build(made)
    assert len(item.table) and item.says and not (item.table.astype(str) == "–").all(axis=None)
    assert item.values.select_dtypes("number").to_numpy(float).size
    with pytest.raises(exhibit.NotPlanned):
        build(made, [])


def test_a_right_class_is_in_the_right_superclass(made):
    values = variants_exhibits.hierarchical(made).values.set_index(["model", "column"])["accuracy"]
    assert all(values[m, "superclass"] >= values[m, "clean"] for m in ("pairs-mmc-10", "pairs-hm-10-3"))
    spec = variants.variant(made, "pairs-mmc-10")["superclass"]
    images, labels, _ = trained.load_data("digit-pairs", "test", spec.images)
    right = trained.ensure_model(made, "pairs-mmc-10").classifier(images.float() / 255).argmax(1) // 10 == labels // 10
    assert values["pairs-mmc-10", "superclass"] == pytest.approx(100 * right.double().mean().item(), abs=1e-3)


def test_differences_are_paired():
    first, second = np.array([True, True, True, False]), np.array([True, True, False, False])
    gap, low, high, only = exhibit.difference(first, second)
    assert gap == 25 and -100 <= low < 0 < 25 < high <= 100 and only == (1, 0)
    nothing = np.zeros(200, bool)
    gap, low, high, _ = exhibit.difference(nothing, nothing)
    assert gap == 0 and -2 < low < 0 < high < 2, "0 against 0 of 200 is not certainty"
    assert exhibit.with_difference(exhibit.Difference(-0.04, -0.06, 0.04)) == "0.0 points [-0.1, +0.04]", "never -0.0"


def test_auroc_agrees_with_scikit_learn_and_knows_an_empty_side():
    low, high = np.array([0.1, 0.4, 0.3]), np.array([0.35, 0.9])
    value, least, most = intervals.auroc_interval(low, high)
    assert value == roc_auc_score([0, 0, 0, 1, 1], [*low, *high]) and 0 < least < value < most < 1
    assert intervals.auroc_interval([1, 2], [3, 4])[2] == 1 and 0 < intervals.auroc_interval([1, 2], [3, 4])[1] < 1
    with pytest.raises(ValueError, match="both sides need a score"):
        intervals.auroc_interval(low, [])


def test_newcombes_paired_interval_is_the_published_one():
    # Newcombe (1998), Statistics in Medicine 17:2635, Table III, method 10: 36 both, 12 and 2 discordant, none neither.
    low, high = intervals.paired_interval(36, 12, 2, 0)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-4)


def test_autoattack_has_the_same_door_as_the_others(mmc, digits):
    pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    images, labels = (part[:6] for part in digits)
    weights = {name: tensor.clone() for name, tensor in mmc.state_dict().items()}
    result = attacks.autoattack(mmc, images, labels, epsilon=0.2, seed=3)
    assert (result.images - images).abs().max() <= 0.2 + 1e-6 and result.images.min() >= 0 and result.images.max() <= 1
    assert result.fooled.equal(mmc(result.images).argmax(1) != labels) and result.queries.min() > 100
    assert all(tensor.equal(weights[name]) for name, tensor in mmc.state_dict().items()) and not mmc.training
    with pytest.raises(ValueError, match="targets must be None"):
        attacks.autoattack(mmc, images, labels, targets=(labels + 1) % 10)
    with pytest.raises(ValueError, match="epsilon must be a finite number of at least 0"):
        attacks.autoattack(mmc, images, labels, epsilon=-1.0)


def test_an_attack_on_survivors_counts_the_worst_case_of_both(made):
    first = ladder.rungs(made, "at-un-mmc-10")["multi_targeted"]
    settings = {"epsilon": 0.2, "steps": 4, "step_size": 0.05, "restarts": 1, "objective": "untargeted_2", "start": "clean"}
    alone = measure.evaluate(made, Measurement("at-un-mmc-10", "pgd", 16, settings=settings))["results"]
    both = measure.evaluate(made, Measurement("at-un-mmc-10", "pgd", 16, settings=settings | {
        "after": {"attack": first.attack, "settings": first.settings}}))["results"]
    left = exhibit.correct(made, first)
    assert 0 < left.sum() < 16 and (experiment.unpack(both["correct"], 16) == (left & experiment.unpack(alone["correct"], 16))).all()
    asked = made.model_copy(update={"verdict": made.verdict.model_copy(update={"autoattack": ["sce"], "autoattack_on": "survivors"})})
    spec = ladder.rungs(asked, "sce")["autoattack"]
    assert spec.settings == {"epsilon": 0.1, "after": {"attack": "multi_targeted", "settings": first.settings}}


def test_a_library_that_is_missing_is_named(mmc, digits, monkeypatch):
    images, labels = (part[:8] for part in digits)
    monkeypatch.setitem(peers._RUNS, "foolbox", _missing)
    left = peers.reports(mmc, images, labels, epsilon=0.1, step_size=0.05, steps=3)
    assert left["foolbox"] == "not installed"
    assert left["mmclib, pgd, untargeted_2"] <= left["mmclib, pgd, cross_entropy"] <= left["no attack"]


@pytest.mark.parametrize("attack", ["scores", "diagnosis", "indicators", "libraries"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_measurement_goes_on_from_the_parts_that_are_done(made, monkeypatch, attack, damaged):
    if attack == "libraries":
        pytest.importorskip("foolbox", reason="foolbox is not installed")
    asked = made.model_copy(update={"verdict": made.verdict.model_copy(update={"indicators": 8})})
    planned = [spec for room in (variants, ladder) for model in room.models(made) for spec in room.measurements(asked, model)]
    spec = next(spec for spec in planned if spec.attack == attack)
    path, whole, once, begun = spec.path(made), measure.evaluate(made, spec), Pieces.once, []

    def killed_in_the_second(pieces, name, make):
        begun.append(name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return once(pieces, name, make)

    def noted(pieces, name, make):
        return once(pieces, name, lambda: begun.append(name) or make())

    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "once", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            measure.evaluate(made, spec)
    partial = path.with_suffix(".partial")
    if damaged:
        partial.write_bytes(partial.read_bytes().replace(b"e", b"f", 1))
    first, *_ = begun
    begun.clear()
    monkeypatch.setattr(Pieces, "once", noted)
    assert told(measure.evaluate(made, spec)) == told(whole) and not partial.exists()
    assert begun and (first in begun) == damaged


def test_what_a_missing_library_reports_is_made_again_once_it_is_there(made, monkeypatch):
    spec = ladder.libraries(made, "mmc-10")
    receipt = measure.evaluate(made, spec)
    lacking = receipt | {"results": {"accuracy": {"no attack": 0.9, "foolbox": "not installed"}}}
    monkeypatch.setitem(sys.modules, "foolbox", None)  # as if it were not
    assert stands(made, receipt) and stands(made, lacking)
    monkeypatch.setitem(sys.modules, "foolbox", types.ModuleType("foolbox"))
    assert stands(made, receipt) and not stands(made, lacking)


def _missing(*arguments):
    raise ModuleNotFoundError("No module named 'foolbox'", name="foolbox")


@pytest.mark.parametrize("worse", [0, 1])
def test_a_claim_is_no_better_than_on_its_worst_seed(made, monkeypatch, worse):
    monkeypatch.setattr(claims, "_claim_clean", lambda profile, rules, cast: ("rule", "measured", 2 * (cast.seed == worse)))
    assert claims.claims(made).table["verdict"].iloc[1] == "does not hold"


def test_a_steps_cost_is_the_losss_over_the_others(made, monkeypatch):
    clock, takes = [0.0], {"MaxMahalanobisCenter": 0.3, "SoftmaxCrossEntropy": 0.2}

    class Step:
        def __init__(self, network, *_):
            self.takes = takes[type(network.head).__name__]

        def __call__(self, *_):
            clock[0] += self.takes
            return torch.zeros(()), None, None

    monkeypatch.setattr(probes, "TrainingStep", Step)
    monkeypatch.setattr(probes.time, "perf_counter", lambda: clock[0])
    spec = ladder.step_time(made, "mmc-10", "sce")
    found = probes.step_time(made, spec, None, None, None, partial=None)
    assert found["ratio"] == pytest.approx(1.5) and found["ratios"] == pytest.approx([1.5] * spec.settings["rounds"])


@pytest.mark.parametrize(("ratio", "level"), [(0.9, 0), (1.04, 0), (1.06, 1), (1.14, 1), (1.16, 2)])
def test_what_a_step_may_cost(made, monkeypatch, ratio, level):
    monkeypatch.setattr(claims, "evaluation", lambda *_: {"ratio": ratio, "ratios": [ratio]})
    cast, rules = claims.casts(made, ladder.models(made))[0], Rules()  # a twentieth; in part: three of them
    assert rules.extra_time == 0.05 and claims._claim_time(made, rules, cast)[2] == level


def test_a_mean_distortion_is_of_the_images_it_was_found_for(made):
    how = {"binary_search_steps": 1, "steps": 3, "initial_const": 0.3, "learning_rate": 0.02}  # too short for all of them
    results = measure.evaluate(made, Measurement("mmc-10", "carlini_wagner", 24, settings=how))["results"]
    every, fooled = np.array(results["distortion"]), ~experiment.unpack(results["correct"], 24)
    assert 1 < fooled.sum() < 24 and results["success"] == pytest.approx(fooled.sum() / 24) and (every[~fooled] == 0).all()
    told, moved = exhibit.distortion(results), every[every > 0]
    assert (told["mean_distortion"], told["standard_error"]) == pytest.approx((moved.mean(), stats.sem(moved)), abs=1e-9)
    assert told["success"] == pytest.approx(len(moved) / (len(moved) + (~fooled).sum()))


@pytest.mark.parametrize("model", ["sce", "mmc-10"])
def test_a_score_is_the_loss_of_the_predicted_class(made, model):
    spec = variants.uncertainty(made, model)
    network, (images, _, _) = trained.ensure_model(made, model).classifier, trained.load_data("digits", "test", spec.images)
    features = network.features(images.float() / 255)
    loss = network.head.loss(features, network.head.logits(features).argmax(1), "none")
    assert exhibit.evaluation(made, spec)["clean"] == pytest.approx(loss.tolist(), rel=1e-3, abs=1e-5)


def test_the_attack_that_tries_to_look_certain_goes_to_another_classs_center(made):
    spec = variants.uncertainty(made, "mmc-10")
    assert spec.settings["objectives"] == ["untargeted_1", "untargeted_2", "targeted_1"]
    assert variants.uncertainty(made, "sce").settings["objectives"] == ["cross_entropy", "untargeted_2"]
    attacked = exhibit.evaluation(made, spec)["attacked"]  # scores are distances to the nearest center: its are the smallest
    wrong = {name: np.mean(found["scores"]) for name, found in attacked.items()}
    assert wrong["targeted_1"] < wrong["untargeted_1"]


def test_another_seed_has_other_weights_and_another_order(made, monkeypatch, tmp_path):
    one, other = (next(iter(trained.build(made, model).backbone.parameters())) for model in ("sce", "sce-1"))
    assert not torch.equal(one, other)
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    seeds = []

    def seen(*_, seed, **__):
        seeds.append(seed)
        raise ZeroDivisionError

    monkeypatch.setattr(trained.training, "fit", seen)
    for model in ("sce", "sce-1"):
        with pytest.raises(ZeroDivisionError):
            trained.train(made, model, progress=False)
    assert len(set(seeds)) == 2


def test_each_draw_of_a_transformation_is_another(made):
    specs = [Measurement("sce", "gaussian_noise", 8, settings={"sigma": 0.3, "draw": draw}) for draw in range(3)]
    assert len({measure._seed(made, spec) for spec in specs}) == 3


def test_a_random_model_is_seen(digits):
    class Noisy(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :10] + torch.rand(len(images), 10)

    images = (digits[0] * 255).to(torch.uint8)
    found = probes.repeated(types.SimpleNamespace(device="cpu"), None, Noisy(), images, digits[1], partial=None)
    assert found["largest_difference"] > 0 and found["accuracy"] == 0


def test_the_longer_run_begins_elsewhere_and_every_model_is_a_substitute(made):
    rung, longer = ladder.rungs(made, "mmc-10")["multi_targeted"], ladder.checks(made, "mmc-10")["longer"]
    assert longer.settings == rung.settings | {"steps": 2 * rung.settings["steps"], "draw": 1}
    assert measure._seed(made, longer) != measure._seed(made, rung)
    assert list(ladder.transfer(made)) == made.verdict.models


def test_a_transfer_that_fools_counts_in_the_worst_case(made, monkeypatch):
    before, real = ladder_exhibits.strongest(made, "at-un-mmc-10"), ladder_exhibits.evaluation
    assert before.any()

    def all_fooled(profile, spec):
        found = real(profile, spec)
        if spec.attack != "transfer_pgd" or spec.model == "at-un-mmc-10":
            return found
        none = experiment.pack(np.zeros(spec.images, bool))
        return {"targets": {name: one | {"correct": none} for name, one in found["targets"].items()}}

    monkeypatch.setattr(ladder_exhibits, "evaluation", all_fooled)
    assert not ladder_exhibits.strongest(made, "at-un-mmc-10").any()


def test_autoattack_that_had_no_image_left_is_no_number(made, monkeypatch):
    asked = made.model_copy(update={"verdict": made.verdict.model_copy(update={"autoattack": ["sce"], "autoattack_on": "survivors"})})
    for queries, there in ((0.0, False), (3.0, True)):
        monkeypatch.setattr(ladder_exhibits, "evaluation", lambda *_, queries=queries: {"queries": queries})
        assert ("autoattack" in ladder_exhibits.attacked(asked, "sce")) == there
    assert "autoattack" not in ladder_exhibits.attacked(asked, "mmc-10")
