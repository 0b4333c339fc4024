"""Profiles refuse what they should with a sentence; identities move exactly with what they depend on; receipts are whole or absent."""

import json
import subprocess
import sys

import pytest
import yaml

from artifact import experiment, items, jobs, rehearsal

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
    (lambda s: s["training"]["digits"].update(milestones=[26, 20]), ["milestones must rise", "[26, 20]"]),
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
    with pytest.raises(ValueError, match="no profile 'full'; known: cpu, demo, paper, quick"):
        experiment.load_profile("full")


def test_broken_yaml_is_a_sentence(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("models: [")
    with pytest.raises(ValueError, match="broken.yaml is not valid YAML"):
        experiment.load_profile(str(path))


def test_fractions_and_exponents_are_numbers(tmp_path):
    profile = profile_with(tmp_path, lambda s: s["training"]["digits"].update(epsilon="8/255", weight_decay="1e-4"))
    assert profile.training["digits"].epsilon == 8 / 255 and profile.training["digits"].weight_decay == 1e-4


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
    assert jobs._shares(work) == [["a"], ["b", "c"], ["d", "e"]]
    assert jobs._shares({"a": 1.0, "b": 2.0}) == [["a", "b"]]
    assert jobs._shares({"a": 5e6, "b": 5e6}) == [["a"], ["b"]]


def test_the_most_urgent_job_heads_the_longest_chain():
    planned = jobs.plan(experiment.load_profile("demo"))
    urgent = jobs.urgency(planned)
    report = planned[-1]
    assert urgent[report.receipt] == report.seconds == min(urgent.values())
    for job in planned:
        assert all(urgent[need] > urgent[job.receipt] for need in job.needs)
    assert max(planned, key=lambda job: urgent[job.receipt]).notebook == "02_training"


def test_a_rehearsal_has_the_same_jobs_in_miniature(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    for name in ("quick", "paper"):
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
            jobs.check_parameters(experiment.ROOT / "notebooks" / f"{job.notebook}.ipynb", job.parameters)


@pytest.mark.parametrize(("given", "says"), [
    ({"modell": "sce"}, "02_training.ipynb has no parameter 'modell'; it has: profile, model, also, time_budget, output"),
    ({"model": 3}, "parameter 'model' must be str like its default 'mmc-10', got int 3"),
    ({"time_budget": "60"}, "parameter 'time_budget' must be float like its default 0.0, got str '60'"),
    ({"time_budget": True}, "parameter 'time_budget' must be float like its default 0.0, got bool True"),
])
def test_a_wrong_parameter_is_refused_before_anything_runs(given, says):
    with pytest.raises(ValueError, match="notebook|parameter") as error:
        jobs.check_parameters(experiment.ROOT / "notebooks" / "02_training.ipynb", given)
    assert says in str(error.value)


def test_table_1_has_the_papers_columns_and_each_evaluation_once():
    profile = experiment.load_profile("demo")
    header = (experiment.ROOT / "paper" / "table1.csv").read_text().splitlines()[2].split(",")
    assert sorted(items.table_1(profile, "sce")) == sorted(header[1:])
    specs = items.white_box(profile, "mmc-10")
    assert len({spec.path(profile) for spec in specs}) == len(specs)
    assert items.table_1(profile, "mmc-10")["pgd50_un_8"].settings["objective"] == "untargeted_1"
    assert items.table_1(profile, "lgm")["pgd50_tar_8"].settings["objective"] == "cross_entropy"


def test_receipts_are_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "receipt.json"
    experiment.write_receipt(path, {"a": 1})
    with pytest.raises(ValueError):
        experiment.write_receipt(path, {"a": float("nan")})
    assert experiment.read_receipt(path) == {"a": 1}
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match="is damaged .* delete it"):
        experiment.read_receipt(path)


def test_the_command_line_says_what_is_wrong_in_one_line():
    done = subprocess.run([sys.executable, "-m", "artifact", "run", "--profile", "nope"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: there is no profile 'nope'") and done.stderr.count("\n") == 1
    done = subprocess.run([sys.executable, "-m", "artifact", "job", "train nobody", "--profile", "demo"], capture_output=True, text=True)
    assert done.returncode == 1 and "has no job 'train nobody'; known: theory" in done.stderr
