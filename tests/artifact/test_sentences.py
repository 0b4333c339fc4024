"""What tables and claims say where the numbers lie at an edge: equal, missing, at a rule's limit, all or none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from artifact import experiment, jobs, methods, page, receipts, record, report
from artifact.exhibits import black_box, claims, distances, exhibit, glance, training, trust, white_box
from artifact.exhibits import variants as variants_exhibits
from artifact.exhibits.ladder import kept, ladder_item, strongest
from artifact.measurements import ladder, variants
from artifact.measurements import white_box as measured
from mmclib import losses
from mmclib.intervals import mean_interval

CAST = claims.Cast(0, "sce", "mmc-10", "at-un-sce", "at-un-mmc-10")


@pytest.fixture(scope="module")
def quick():
    return experiment.load_profile("quick")


def first(kept, count=1000):
    """The outcomes of `count` images of which the first `kept` are right."""
    return np.arange(count) < kept


def test_a_means_interval_is_students():
    values = np.array([0.1, 0.4, 0.2, 0.9])
    assert mean_interval(values.mean(), stats.sem(values), 4) == pytest.approx(stats.t.interval(0.95, 3, values.mean(), stats.sem(values)))
    with pytest.raises(ValueError, match="two values"):
        mean_interval(0.3, 0.0, 1)


def test_distortions_are_compared_image_by_image(quick, monkeypatch):
    def found(profile):
        every = [np.array(exhibit.evaluation(profile, measured.carlini_wagner(profile, model)["un"])["distortion"])
                 for model in ("mmc-10", "sce")]
        right = (every[0] > 0) & (every[1] > 0)  # the others are misclassified as they are: no attack was needed
        return [one[right] for one in every], every[1][every[1] > 0]

    cpu = experiment.load_profile("cpu")
    (ours, theirs), _ = found(cpu)
    assert len(ours) == 182
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    says = white_box.table_2_distortion(cpu).says
    assert f"(paired difference {np.mean(ours) - np.mean(theirs):+.3f} [{low:+.3f}, {high:+.3f}])" in says
    assert "less than SCE's" in says and high < 0, "what an interval of two independent means hid"
    # Four search steps reach the constant of one loss's scale and not of the other's.
    (ours, theirs), every = found(quick)
    item = white_box.table_2_distortion(quick)
    assert item.says.startswith(f"untargeted, MMC-10 {np.mean(ours):.3f} and SCE {np.mean(theirs):.3f} on the images that both are fooled "
                                "on, not compared: 4 search steps")
    row = item.values[(item.values["model"] == "sce") & (item.values["goal"] == "un")].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.95, len(every) - 1, np.mean(every), stats.sem(every)), abs=1e-5)
    assert row["mean_distortion"] == pytest.approx(np.mean(every), abs=1e-5) and row["moved"] == len(every) < quick.carlini_wagner.images
    one = [0.3] + [0.0] * 199
    monkeypatch.setattr(white_box, "evaluation", lambda *_: {"distortion": one, "success": 1.0})
    assert "MMC-10 and SCE are not compared: both are fooled on 1 of the images" in white_box.table_2_distortion(cpu).says


def test_one_distortion_has_no_interval_and_none_no_number():
    one = exhibit.distortion({"success": 0.5, "distortion": [0.3, 0.0]})  # what is not found comes back as it was
    none = exhibit.distortion({"success": 0.0, "distortion": [0.0, 0.0]})
    assert (one["low"], one["high"], none["low"], none["mean_distortion"]) == (None, None, None, None)
    assert (one["mean_distortion"], one["success"], none["success"]) == (0.3, 0.5, 0.0)
    spared = exhibit.distortion({"success": 0.75, "distortion": [0.3, 0.5, 0.0, 0.0]})  # one needed no attack, one was not found
    assert (spared["mean_distortion"], spared["success"], spared["moved"]) == (pytest.approx(0.4), pytest.approx(2 / 3), 2)


@pytest.mark.parametrize(("gap", "text"), [
    ((0.5, 0.004, 1.2), "+0.5 points [+0.004, +1.2]"), ((0.0, 0.0, 0.0), "0.0 points [0.0, 0.0]"),
    ((-0.01, -1.0, -0.04), "0.0 points [-1.0, -0.04]"), ((2.5, 0.1, 5.7, (5, 0)), "+2.5 points [+0.1, +5.7], 5 images against 0"),
    ((0.0, -1.9, 1.9, (0, 0)), "0.0 points [-1.9, +1.9]"), ((1.0, 0.2, 1.8, (14, 6)), "+1.0 points [+0.2, +1.8]"),
])
def test_an_intervals_end_is_0_only_where_it_is(gap, text):
    assert exhibit.with_difference(exhibit.Difference(*gap)) == text


def judged(monkeypatch, quick, judge, **kept):
    monkeypatch.setattr(claims, "strongest", lambda profile, model: kept[model.replace("-", "_")])
    monkeypatch.setattr(claims, "kept", lambda profile, spec: kept["paper"])
    monkeypatch.setattr(claims, "clean", lambda profile, model, images: kept[model.replace("-", "_")])
    return judge(quick, quick.verdict.rules, CAST)


def test_training_that_makes_mmc_worse_is_not_compatible(monkeypatch, quick):
    def level(at_mmc, at_sce, mmc):
        return judged(monkeypatch, quick, claims._claim_training, at_un_mmc_10=first(at_mmc), at_un_sce=first(at_sce), mmc_10=first(mmc))[2]
    assert [level(300, 200, 500), level(300, 200, 100), level(300, 299, 100), level(200, 300, 100)] == [2, 0, 1, 2]


def test_a_rules_limit_is_met_by_counts_not_by_rounding(monkeypatch, quick):
    assert quick.verdict.rules.attack_gap == 5 and quick.verdict.rules.clean_gap == 1
    for paper, left, level in ((221, 171, 0), (224, 174, 0), (225, 174, 1)):
        rule, text, found = judged(monkeypatch, quick, claims._claim_robust, paper=first(paper), mmc_10=first(left), sce=first(0))
        assert found == level and "untargeted" in rule and "under its targeted one" in text, (paper, left)
    for mine, level in ((979, 2), (980, 2), (981, 1), (1000, 0)):  # "less than 1 point", of 990
        assert judged(monkeypatch, quick, claims._claim_clean, mmc_10=first(mine), sce=first(990))[2] == level, mine


def test_depth_is_judged_where_both_losses_have_both_networks(monkeypatch):
    demo = experiment.load_profile("demo")
    networks = demo.depth.networks
    monkeypatch.setattr(variants, "table_5", lambda profile, model: {"pgd10_un_8": model, "margin": model})
    (_, shallow), (_, deep) = networks.items()
    kept = {shallow[0]: 500, deep[0]: 500, shallow[1]: 100, deep[1]: 300}
    monkeypatch.setattr(variants_exhibits, "correct", lambda profile, model: first(kept[model]))
    assert [demo.models[model].loss for model in shallow] == ["sce", "mmc"]

    def says(*models):
        return variants_exhibits._table_5_says(demo, networks, list(models) or None)
    assert says().startswith("As the paper claims, at 95 % under its own attack: MMC gains from depth, SCE does not significantly. ")
    assert says(shallow[0], deep[0]).startswith("Of MMC not both networks are here, so the paper's claim is not judged. From ")
    assert says(shallow[1], deep[1]).startswith("Of SCE not both networks are here")
    kept[deep[0]] = 700
    assert says().startswith("Against the claim of the paper, at 95 % under its own attack: MMC gains from depth, SCE gains. ")
    assert says(shallow[0]) == "not both networks are here"


def test_transfers_that_tie_are_all_named_and_one_model_has_none(monkeypatch, tmp_path):
    cpu = experiment.load_profile("cpu")
    least, other = ({"accuracy": share, "interval": [share, share]} for share in (0.001, 0.5))

    def results(*low):
        return lambda profile, spec: {"targets": {target: least if (spec.model, target) in low else other
                                                  for target in spec.settings["targets"]}}
    monkeypatch.setattr(black_box, "evaluation", results(("sce", "mmc-10")))
    assert "4 transfers are the strongest, which keep 0.1 %" in black_box.figure_4(cpu).says  # PGD and MIM, two epsilons
    one = cpu.model_copy(update={"transfer": cpu.transfer.model_copy(update={"epsilons": cpu.transfer.epsilons[:1]})})
    assert "PGD at ε = 8/255 from SCE to MMC-10 and " in black_box.figure_4(one).says
    alone = cpu.model_copy(update={"transfer": cpu.transfer.model_copy(update={"models": ["sce"]})})
    monkeypatch.setattr(black_box, "evaluation", results())
    with pytest.raises(exhibit.NotPlanned, match="no other to be tried on"):
        black_box.figure_4(alone)


def test_a_transfer_that_beats_the_white_box_is_told(monkeypatch):
    cpu = experiment.load_profile("cpu")
    left = {"sce": 0.4, "mmc-10": 0.6}  # of its own attack

    def results(transferred):
        def found(profile, spec):
            shares = {target: left.get(target, 0.0) if target == spec.model else transferred for target in spec.settings["targets"]}
            return {"targets": {target: {"accuracy": share, "interval": [share - 0.05, share + 0.05]} for target, share in shares.items()}}
        monkeypatch.setattr(black_box, "evaluation", found)
        return black_box.figure_4(cpu)
    assert "white-box" not in results(0.52).says  # lower, but within the intervals
    says = results(0.45).says
    assert "; on MMC-10 a transfer leaves less than the model's own white-box attack (MIM at ε = 8/255 from " in says
    assert "leaves MMC-10 45.0 % [40.0, 50.0], its own 60.0 % [55.0, 65.0])" in says
    values = results(0.1).values
    own, away = black_box.beaten_white_box(values)[0]
    assert own["target"] == own["substitute"] == away["target"] == "mmc-10" and away["accuracy"] == 10
    assert {pair[0]["target"] for pair in black_box.beaten_white_box(values)} == {"sce", "mmc-10"}
    assert black_box.beaten_white_box(values[values["substitute"] == "sce"]) == []  # a pair needs both


def test_the_papers_transfers_keep_the_papers_epsilons(quick):
    paper = black_box.paper_figure_4()
    assert sorted(set(paper["epsilon"])) == [8 / 256, 16 / 256]
    names = dict.fromkeys(paper["substitute"], "")
    ours = paper.assign(epsilon=paper["epsilon"] * 256 / 255)
    figure = black_box.draw_transfer(ours, {name: name for name in {*names, *paper["target"]}}, paper, "")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert sum("/255" in title for title in titles) == sum("/256" in title for title in titles) == 4


def test_the_curve_names_who_comes_next_with_the_paired_difference(quick):
    says = white_box.curve(quick).says
    assert says.startswith("under PGD-10 with the margin objective at ε = 8/255 ") and " keeps most, " in says and "; the next is " in says
    assert "(paired difference " in says


def test_a_resumed_work_took_what_all_its_processes_took(quick):
    made = experiment.read_receipt(experiment.model_receipt_path(quick, "at-un-sce"))
    assert made["provenance"]["seconds"] < made["provenance"]["epoch_seconds"][-1] == receipts.seconds(made)
    attack = {"provenance": {"seconds": 20.0}, "results": {"seconds": 300.0}}
    assert receipts.seconds(attack) == 300 and receipts.seconds({"provenance": {"seconds": 20.0}}) == 20


def test_claims_of_a_notebook_that_has_not_run_are_missed_aloud(quick, monkeypatch):
    whole = report.notebook_claims(quick)
    assert "Not run over all its models yet" not in whole.notes
    plan = jobs.plan(quick)
    away = {job.notebook: job.parameters["output"] for job in plan}["03_white_box"]
    nowhere = [replace(job, parameters=job.parameters | {"output": "/nowhere/03.json"} if job.parameters["output"] == away
                       else job.parameters) for job in plan]
    monkeypatch.setattr(jobs, "plan", lambda profile: nowhere)
    assert report.notebook_claims(quick).notes.endswith("Not run over all its models yet: 03.")


@pytest.fixture(scope="module")
def cpu():
    return experiment.load_profile("cpu")


def test_an_attack_is_evidence_by_all_images_of_the_verdict(cpu):
    """Of the 43 that the margin leaves of the first 100 others fool too few to tell; of all it leaves they fool more than 5 %."""
    found = trust.survivors(cpu, "at-un-sce").set_index(["rung", "indicator"])
    left = [exhibit.correct(cpu, spec) for spec in ladder.rungs(cpu, "at-un-sce").values()]
    margin, best = exhibit.correct(cpu, ladder.rungs(cpu, "at-un-sce")["untargeted_2"]), np.logical_and.reduce(left)
    row = found.loc[("untargeted_2", "beaten")]
    assert (row["survivors"], row["looked_at"]) == (margin.sum(), margin.sum())
    assert row["share"] == pytest.approx(100 * (margin & ~best).sum() / margin.sum()) and row["share"] > 5
    assert found.loc[("untargeted_2", "unstable_predictions"), "looked_at"] == margin[:cpu.verdict.indicators].sum()
    table = trust.indicators(cpu).table
    assert table.loc[methods.label(cpu, "at-un-sce"), methods.RUNGS["untargeted_2"]].startswith("no: another attack fools 5.4 %")


def test_the_least_distance_knows_the_attacks_at_equal_passes(cpu):
    for model in ("sce", "at-un-sce"):
        nearest, matched = distances.least(cpu, model), ladder.matched(cpu, model)
        for spec in matched.values():
            known = exhibit.evaluation(cpu, spec)["least"]
            assert all(value is None or nearest[place] <= value for place, value in enumerate(known))


def test_the_glance_has_the_papers_number_and_the_verdicts(cpu, quick):
    item = glance.glance(cpu)
    bars = item.values.dropna(subset="what").set_index(["model", "what"])
    assert bars.loc[("mmc-10", "worst"), "paper"] == 24.8 and bars.loc[("sce", "worst"), "paper"] == 3.6
    assert bars.loc[("at-un-sce", "worst"), "accuracy"] == pytest.approx(100 * strongest(cpu, "at-un-sce").mean())
    ratios = item.values.dropna(subset="training").set_index("training")
    first = ratios.loc["standard"]
    told = f"{first['features']:.2f} [{first['features low']:.2f}, {first['features high']:.2f}] times"
    assert f"feature margin is {told} SCE's" in distances.why(cpu).says and f"features {told} SCE's" in item.says
    assert first["images low"] < 1 < first["images high"] and first["unscaled high"] < 1 < first["features low"]
    assert item.says.startswith("for MMC-10 the paper prints 24.8 % under its attack; here MMC-10 keeps 22.1 %")
    item = glance.glance(quick)  # which measures no distances
    assert item.says.endswith("% in the worst case") and "Right:" not in item.notes and len(item.figure.axes) == 2
    with pytest.raises(exhibit.NotPlanned):
        glance.glance(cpu, ["sce"])


def test_the_glance_shows_the_pair_that_is_made_and_no_ratio_that_is_none(cpu, monkeypatch):
    whole = distances.images_and_features

    def none_right(profile, model):
        return whole(profile, model).assign(margin=-1.0 if model == "sce" else 1.0)
    monkeypatch.setattr(distances, "images_and_features", none_right)
    item = glance.glance(cpu)
    assert item.says.endswith("% in the worst case") and item.values["features"].notna().sum() == 1 and len(item.figure.axes) == 3

    def away(profile, model):
        if model.startswith("at-"):
            raise exhibit.Missing(f"fmn on {model}")
        return whole(profile, model)
    monkeypatch.setattr(distances, "images_and_features", away)
    item = glance.glance(cpu)
    assert item.notes.endswith("Not made yet: the other pair.") and set(item.values["model"].dropna()) == {"sce", "mmc-10"}
    monkeypatch.setattr(distances, "images_and_features", lambda profile, model: away(profile, "at-" + model))
    with pytest.raises(exhibit.Missing, match="fmn on at-mmc-10"):
        glance.glance(cpu)


def test_the_ladder_says_what_autoattack_adds_and_in_what_time(cpu, quick):
    notes = ladder_item(cpu).notes
    ours = [100 * np.logical_and.reduce([kept(cpu, spec) for name, spec in ladder.rungs(cpu, model).items() if name != "autoattack"]).mean()
            for model in cpu.verdict.autoattack]
    assert [f"where the others leave {one:.1f} %" in notes for one in ours] == [True, True] and "AutoAttack leaves AT_un" in notes
    hours = exhibit.evaluation(cpu, ladder.rungs(cpu, "at-un-sce")["autoattack"])["seconds"] / 3600
    assert f"in {hours:.1f} hours; every wrong class took" in notes
    assert "AutoAttack leaves" not in ladder_item(quick).notes, "there every wrong class left no image"


def test_a_ratio_of_distances_that_were_not_found_is_no_nan(cpu, monkeypatch):
    whole = distances.images_and_features

    def hardly_found(profile, model):
        frame = whole(profile, model)
        return frame.assign(linf=np.where(np.arange(len(frame)) % 15 < 7, np.inf, frame["linf"])) if model == "mmc-10" else frame
    monkeypatch.setattr(distances, "images_and_features", hardly_found)
    item = glance.glance(cpu)
    assert "nan" not in item.says and "∞] times" in item.says
    item.figure.draw_without_rendering()
    right = item.figure.axes[-1]
    assert right.get_xlim()[1] > max(patch.get_width() for patch in right.patches)


def test_the_probe_says_how_far_it_fell(cpu):
    item = training.probe(cpu)
    trained = {model: experiment.read_receipt(experiment.model_receipt_path(cpu, model)) for model in cpu.models
               if cpu.models[model].adversarial}
    histories = {model: [epoch["probe"] for epoch in receipt["results"]["history"]] for model, receipt in trained.items()}
    assert set(item.values["model"]) == set(histories) and len(histories) == 7
    fell = max(before - after for probes in histories.values() for before, after in zip(probes, probes[1:], strict=False))
    assert f"fell by at most {100 * fell:.1f} points, and the guard acts where it falls by more than 20" in item.says
    assert item.says.startswith("no epoch was thrown away")
    with pytest.raises(exhibit.NotPlanned):
        training.probe(cpu, ["sce"])


def test_an_epoch_that_the_guard_threw_away_is_counted_and_crossed(cpu, monkeypatch):
    history = [{"epoch": 1, "probe": 0.5, "collapsed": False}, {"epoch": 2, "probe": 0.01, "collapsed": True},
               {"epoch": 2, "probe": 0.52, "collapsed": False}]
    monkeypatch.setattr(training, "_receipt", lambda *_: {"results": {"history": history}})
    item = training.probe(cpu, ["at-un-sce"])
    assert item.says.startswith("1 epoch was thrown away; from one epoch to the next the probe fell by at most 49.0 points")
    crosses = [line for line in item.figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[2]]


def test_clean_accuracy_beside_the_papers_is_of_all_test_images(cpu):
    values = white_box.table_1(cpu).values.set_index(["method", "column"])
    receipt = experiment.read_receipt(experiment.model_receipt_path(cpu, "mmc-10"))
    assert values.loc[("MMC-10", "all"), "accuracy"] == pytest.approx(100 * receipt["results"]["test_accuracy"], abs=1e-3)
    assert values.loc[("MMC-10", "all"), "paper"] == "92.7"
    paper = experiment.load_profile("paper")
    assert paper.white_box.images == 10_000, "so its table needs one column for clean accuracy, not two"


def test_what_two_rows_are_trained_with_is_what_the_library_takes():
    center, mixture = losses.CenterLoss(10, 4), losses.LargeMarginGaussianMixture(10, 4)
    assert f"weight {center.weight:g}, centers' step {center.center_step:g} " in white_box.ROWS_OF_OTHERS["center"]
    assert f"margin {mixture.margin:g} and likelihood weight {mixture.likelihood:g} " in white_box.ROWS_OF_OTHERS["lgm"]


def test_receipts_of_code_that_no_commit_holds_are_counted(quick, cpu):
    made = [experiment.read_receipt(path)["provenance"] for path in jobs.made(quick)]
    count = sum(bool(one["uncommitted_changes"]) for one in made)
    assert count > 0 and f"{count} of the receipts were made with changes to the code that were not committed" in record.costs(quick)
    assert page.provenance(quick)["uncommitted"] == count
    assert "not committed" not in record.costs(cpu) and page.provenance(cpu)["uncommitted"] == 0
