"""Profiles refuse what they should with a sentence; identities move exactly with what they depend on; receipts are whole or absent."""

import dataclasses
import json
import shutil

import pytest
import yaml

from artifact import estimates, experiment, jobs, profiles, rehearsal, runners
from artifact.compute import trained
from artifact.measurements import ladder, white_box
from mmclib.data import NUM_CLASSES

DEMO = yaml.safe_load((experiment.ROOT / "profiles" / "demo.yaml").read_text())


def profile_with(tmp_path, change):
    settings = json.loads(json.dumps(DEMO))
    change(settings)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return experiment.load_profile(str(path))


@pytest.mark.parametrize("name", ["demo", "quick", "paper"])
def test_profiles_of_the_project_are_valid(name):
    profile = experiment.load_profile(name)
    assert jobs.plan(profile)[-1].name == "report"


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.update(epocs=3), ["unknown key 'epocs'", "allowed here", "white_box"]),
    (lambda s: s["training"]["digits"].update(epocs=3), ["unknown key 'training.digits.epocs'", "epochs"]),
    (lambda s: s["training"]["digits"].update(epochs="many"), ["training.digits.epochs", "integer", "'many'"]),
    (lambda s: s["training"]["digits"].update(epochs=0), ["training.digits.epochs", "greater than or equal to 1"]),
    (lambda s: s["training"]["digits"].update(momentum=1.5), ["training.digits.momentum", "less than 1"]),
    (lambda s: s["training"]["digits-deep"].update(milestones=[26, 20]), ["milestones must rise", "[26, 20]"]),
    (lambda s: s["training"]["digits"].update(feature_dim=4), ["need feature_dim >= 9", "is 4"]),
    (lambda s: s["training"]["digits"].update(dataset="imagenet"), ["training.digits.dataset", "'cifar10'"]),
    (lambda s: s["training"]["digits"].pop("epochs"), ["'training.digits.epochs' is missing"]),
    (lambda s: s["models"]["sce"].update(training="svhn"), ["models.sce.training is 'svhn'", "known: digits"]),
    (lambda s: s["models"]["mmc-10"].update(radius=-1), ["models.mmc-10.radius", "greater than 0", "-1"]),
    (lambda s: s["white_box"]["models"].append("mmc-7"), ["white_box.models names 'mmc-7'", "known models"]),
    (lambda s: s["white_box"].update(epsilons=["8/0", 0.2]), ["white_box.epsilons.0", "'8/0'"]),
])
def test_a_bad_profile_is_refused_with_file_key_and_remedy(tmp_path, change, says):
    with pytest.raises(ValueError) as error:
        profile_with(tmp_path, change)
    assert all(part in str(error.value) for part in ["changed.yaml", *says]), str(error.value)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ValueError, match="no profile 'full'; known: .*demo, paper, quick"):
        experiment.load_profile("full")


def test_broken_yaml_is_a_sentence(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("models: [")
    with pytest.raises(ValueError, match="broken.yaml is not valid YAML"):
        experiment.load_profile(str(path))


def test_fractions_and_exponents_are_numbers(tmp_path):
    profile = profile_with(tmp_path, lambda s: s["training"]["digits"].update(epsilon="8/255", other_rate="1e-4"))
    assert profile.training["digits"].epsilon == 8 / 255 and profile.training["digits"].other_rate == 1e-4


def names_of_new_jobs(tmp_path, change):
    before = {job.receipt.name for job in jobs.plan(profile_with(tmp_path, lambda s: None))}
    return {job.name for job in jobs.plan(profile_with(tmp_path, change)) if job.receipt.name not in before}


def changed_models(tmp_path, change):
    before, after = profile_with(tmp_path, lambda s: None), profile_with(tmp_path, change)
    return {model for model in before.models if experiment.model_identity(before, model) != experiment.model_identity(after, model)}


def test_a_changed_value_remakes_exactly_what_depends_on_it(tmp_path):
    def other_seed(settings):
        settings["models"]["lgm"].update(seed=1)
    assert changed_models(tmp_path, other_seed) == {"lgm"}
    only_one = names_of_new_jobs(tmp_path, other_seed)
    # The verdict's transfer attacks are tried on every model, so their shard changes with any of them.
    assert all("lgm" in name or name.startswith("verdict: sce") for name in only_one - {"white box", "verdict", "report"}), only_one
    assert len([name for name in only_one if name.startswith("train")]) == 1 and not any(name.startswith("black box") for name in only_one)
    attack = names_of_new_jobs(tmp_path, lambda s: s["white_box"].update(restarts=7))
    assert not any(name.startswith("train") for name in attack) and any(name.startswith("white box: sce") for name in attack)

    def other_steps(settings):
        settings["training"]["digits-at"].update(steps=3)
    assert changed_models(tmp_path, other_steps) == {model for model in DEMO["models"] if model.startswith("at-")}
    assert {name for name in names_of_new_jobs(tmp_path, other_steps) if name.startswith("train")}
    assert names_of_new_jobs(tmp_path, lambda s: s["training"]["digits"].update(rate=1)) == set()
    assert names_of_new_jobs(tmp_path, lambda s: s["band"].update(near=9) if "band" in s else s.update(band={"near": 9.0})) == set()


def test_short_trainings_share_a_kernel_and_long_ones_do_not():
    demo, paper = (experiment.load_profile(name) for name in ("demo", "paper"))
    assert len([job for job in jobs.plan(demo) if job.notebook == "02_training"]) < len(demo.models) / 3
    trained = [job.name for job in jobs.plan(paper) if job.notebook == "02_training"]
    assert trained == [f"train {model}" for model in paper.models]


def test_models_are_shared_out_evenly_and_in_order():
    work = {"a": 300_000.0, "b": 200_000.0, "c": 150_000.0, "d": 350_000.0, "e": 1.0}
    assert jobs._shares(work, 400_000) == [["a"], ["b", "c"], ["d", "e"]]
    assert jobs._shares({"a": 1.0, "b": 2.0}, 400_000) == [["a", "b"]]
    assert jobs._shares({"a": 5e6, "b": 5e6}, 400_000) == [["a"], ["b"]]
    # The demo's trainings, which all else waits for, are two jobs: one left a core idle for more than a minute.
    assert sum(job.notebook == "02_training" for job in jobs.plan(experiment.load_profile("demo"))) == 2


def test_the_most_urgent_job_heads_the_longest_chain():
    planned = jobs.plan(experiment.load_profile("demo"))
    urgent = estimates.urgency(planned)
    report = planned[-1]
    assert urgent[report.receipt] == report.seconds == min(urgent.values())
    for job in planned:
        assert all(urgent[need] > urgent[job.receipt] for need in job.needs)
    assert max(planned, key=lambda job: urgent[job.receipt]).notebook == "02_training"


def test_a_rehearsal_has_the_same_jobs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    for name in ("quick", "cpu", "paper"):
        real = experiment.load_profile(name)
        toy = rehearsal.rehearsal(real, "cpu")
        assert (toy.name, toy.comparable, toy.device) == (f"{name}-rehearsal", False, "cpu")
        assert {job.notebook for job in jobs.plan(toy)} == {job.notebook for job in jobs.plan(real)}
        assert set(toy.models) == set(real.models)
        assert all(training.epochs == 1 and training.train_images == 200 for training in toy.training.values())
        assert sum(job.seconds for job in jobs.plan(toy)) < min(1200, sum(job.seconds for job in jobs.plan(real)))


def test_every_job_has_a_notebook_with_its_parameters():
    for name in ("demo", "quick", "paper"):
        for job in jobs.plan(experiment.load_profile(name)):
            runners.check_parameters(experiment.ROOT / "notebooks" / f"{job.notebook}.ipynb", job.parameters)


@pytest.mark.parametrize(("given", "says"), [
    ({"modell": "sce"}, "02_training.ipynb has no parameter 'modell'; it has: profile, model, also, output"),
    ({"model": 3}, "parameter 'model' must be str like its default 'mmc-10', got int 3"),
    ({"also": True}, "parameter 'also' must be list like its default [], got bool True"),
])
def test_a_wrong_parameter_is_refused_before_anything_runs(given, says):
    with pytest.raises(ValueError, match="notebook|parameter") as error:
        runners.check_parameters(experiment.ROOT / "notebooks" / "02_training.ipynb", given)
    assert says in str(error.value)


def test_table_1_has_the_papers_columns_and_each_evaluation_once():
    profile = experiment.load_profile("demo")
    header = (experiment.ROOT / "paper" / "table1.csv").read_text().splitlines()[2].split(",")
    assert sorted(white_box.table_1(profile, "sce")) == sorted(header[1:])
    specs = white_box.measurements(profile, "mmc-10")
    assert len({spec.path(profile) for spec in specs}) == len(specs)
    assert white_box.table_1(profile, "mmc-10")["pgd50_un_8"].settings["objective"] == "untargeted_1"
    assert white_box.table_1(profile, "lgm")["pgd50_tar_8"].settings["objective"] == "cross_entropy"


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s["white_box"].update(images=5000), ["white_box.images is 5000", "digits (sce) has 500"]),
    (lambda s: s["plane"].update(features=501), ["plane.features is 501", "has 500"]),
    (lambda s: s["training"]["digits"].update(train_images=2000), ["training.digits.train_images is 2000", "has 1297"]),
    (lambda s: s["white_box"].update(models=[]), ["white_box.models", "at least 1"]),
    (lambda s: s["white_box"]["models"].append("sce"), ["white_box.models names 'sce' twice"]),
    (lambda s: s["white_box"].update(convergence_steps=[]), ["white_box.convergence_steps", "at least 1"]),
    (lambda s: s["white_box"].update(convergence_steps=[1]), ["must rise", "[1]"]),
    (lambda s: s["white_box"].update(epsilons=[0.2, 0.1]), ["epsilons must rise"]),
    (lambda s: s["white_box"].update(step_size=float("inf")), ["white_box.step_size", "finite"]),
    (lambda s: s["white_box"].update(step_size="1e400"), ["white_box.step_size"]),
    (lambda s: s["white_box"].update(step_size="1e9999999"), ["white_box.step_size"]),
    (lambda s: s.update({7: 1}), ["key '7' is no word"]),
    *[(lambda s, key=key: s["models"].update({key: {"training": "digits", "loss": "sce"}}), ["is no name of a model"])
      for key in ("../../../x", "/abs", "a b", "a/b", "{x}", "$(x)", "", ".hidden", "ä", "x" * 101)],
])
def test_what_could_only_fail_late_is_refused_when_it_is_read(tmp_path, change, says):
    with pytest.raises(ValueError) as error:
        profile_with(tmp_path, change)
    assert all(part in str(error.value) for part in ["changed.yaml", *says]), str(error.value)


@pytest.mark.parametrize(("text", "says"), [
    ("title: a\ntitle: b", "key 'title' is there twice"), ("models: {a: 1, a: 2}", "key 'a' is there twice"),
    ("train_images: 0200", "write '0200' as a plain decimal number"), ("seed: 0x10", "'0x10'"), ("seed: 1_000", "'1_000'"),
    ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)), "stand for more"),
    ("a: &a [*a]", "holds itself"), ("? [a]\n: 1", "a key must be a word"), ("[" * 5000, "valid YAML"), ("x: 1\n" * 60_000, "larger than"),
])
def test_yaml_that_misleads_is_refused(tmp_path, text, says):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        experiment.load_profile(str(path))
    assert "odd.yaml" in str(error.value) and says in str(error.value) and len(str(error.value)) < 500


def test_a_profile_in_another_encoding_or_a_folder_is_a_sentence(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes("title: ü".encode("utf-16"))
    with pytest.raises(ValueError, match="odd.yaml is not valid YAML"):
        experiment.load_profile(str(path))
    for name in ("", str(tmp_path / "absent.yaml"), "../profiles"):
        with pytest.raises(ValueError, match="there is no profile"):
            experiment.load_profile(name)


def test_relative_profiles_and_folders_are_pinned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text((experiment.ROOT / "profiles" / "demo.yaml").read_text())
    profile = experiment.load_profile("mine.yaml")
    assert profile.source == str(tmp_path / "mine.yaml")
    monkeypatch.setenv("MMC_RESULTS", "res")
    monkeypatch.setenv("MMC_CHECKPOINTS", "")
    assert experiment.results_folder(profile) == tmp_path / "res" / "mine"
    assert experiment.checkpoint_folder(profile, "sce").is_relative_to(experiment.ROOT / "checkpoints")
    experiment.pin_folders()
    monkeypatch.chdir("/")
    assert experiment.results_folder(profile) == tmp_path / "res" / "mine"


def test_a_job_is_done_when_all_that_it_stands_for_is_there(tmp_path, monkeypatch):
    shutil.copytree(experiment.ROOT / "results" / "quick", tmp_path / "quick")
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    profile = experiment.load_profile("quick")
    planned = jobs.plan(profile)
    assert not [job.name for job in jobs.to_do(planned) if job.notebook != "08_report"]
    evaluation = next(iter(white_box.table_1(profile, "sce").values())).path(profile)
    whole = evaluation.read_bytes()
    evaluation.write_bytes(b"")
    with pytest.raises(ValueError, match="delete it and run the same command again"):
        jobs.to_do(planned)
    evaluation.unlink()
    assert {job.notebook for job in jobs.to_do(planned)} == {"03_white_box", "08_report"}
    evaluation.write_bytes(whole)
    experiment.model_receipt_path(profile, "sce").unlink()
    again = jobs.to_do(planned)
    assert [job.name for job in again if job.notebook == "02_training"] == ["train sce"] and again[-1].name == "report"


def test_what_is_left_counts_each_receipt_once_and_shortens_jobs(tmp_path, monkeypatch):
    profile = experiment.load_profile("quick")
    assert estimates.left(profile) == (0, 0)
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    planned = jobs.plan(profile)
    whole = {path: max(job.makes.get(path, 0) for job in planned) for job in planned for path in job.makes}
    assert estimates.left(profile) == (len(whole), pytest.approx(sum(whole.values())))
    assert [job.seconds for job in jobs.to_do(planned)] == [job.seconds for job in planned]
    job = max((job for job in planned if len(job.makes) > 1), key=lambda job: job.seconds)
    path = max(job.makes, key=job.makes.get)
    source = experiment.ROOT / "results" / "quick" / path.relative_to(tmp_path / "quick")
    for needed in (source, *(experiment.ROOT / "results" / "quick" / "models").iterdir()):
        target = tmp_path / "quick" / needed.relative_to(experiment.ROOT / "results" / "quick")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(needed, target)
    there = next(other for other in jobs.to_do(planned) if other.name == job.name)
    assert there.seconds == pytest.approx(job.seconds - job.makes[path]) and job.makes[path] > 0
    # All trainings and one evaluation are made: the other evaluations are left, at the pace of that one.
    took = experiment.read_receipt(path)["provenance"]
    evaluations = {made: seconds for made, seconds in whole.items() if made.parent.name != "models"}
    pace = took["seconds"] * took["threads"] / whole[path]
    assert estimates.left(profile) == (len(evaluations) - 1, pytest.approx((sum(evaluations.values()) - whole[path]) * pace))


def test_an_installed_package_without_its_clone_says_so(tmp_path, monkeypatch):
    from artifact import loading
    monkeypatch.setattr(loading, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="run this command in a clone"):
        experiment.load_profile("demo")


@pytest.mark.parametrize("name", ["demo", "quick", "cpu", "paper"])
def test_a_recipe_is_what_the_profile_says(name):
    profile = experiment.load_profile(name)
    for model, spec in profile.models.items():
        made, network = trained.recipe(profile, model), profile.training[spec.training]
        told = {field.name: getattr(network, field.name) for field in dataclasses.fields(made) if field.name != "adversarial"}
        assert {key: getattr(made, key) for key in told} == told | {"milestones": tuple(network.milestones)}, model
        assert made.adversarial is None or made.adversarial.guard == network.guard


def test_two_tables_of_classes_agree():
    assert profiles.CLASSES == NUM_CLASSES


def test_a_training_step_is_timed_at_the_training_batch():
    for name in ("demo", "quick", "cpu", "paper"):
        profile = experiment.load_profile(name)
        spec = ladder.step_time(profile, "mmc-10", "sce")
        assert spec.settings["batch_size"] == trained.recipe(profile, "mmc-10").batch_size
