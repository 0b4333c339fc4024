"""What somebody found who made a profile of their own: the paper's numbers beside other settings, sentences about models that are not
there, figures that cannot be drawn; and what a lecturer found who handed the clone to a class."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from artifact import experiment, jobs, machine, methods, page, report
from artifact.compute import locks, measure, trained
from artifact.exhibits import black_box, exhibit, training, variants, white_box
from artifact.exhibits import ladder as ladder_exhibits
from artifact.experiment import ROOT
from artifact.measurements import ladder
from tests.artifact.tiny import TINY

CPU = (ROOT / "profiles" / "cpu.yaml").read_text()


def white(**changes):
    return lambda settings: settings["white_box"].update(changes)


def both_goals(loss):
    return {f"at-{goal}": {"training": "digits", "loss": loss, "adversarial": goal} for goal in ("targeted", "untargeted")}


@pytest.mark.parametrize(("change", "there"), [
    (lambda settings: None, {"clean", "pgd10_tar_8", "pgd50_un_8", "pgd50_un_16"}),
    (white(epsilons=[4 / 255, 8 / 255]), {"clean"}),
    (white(epsilons=[8 / 255, 12 / 255]), {"clean", "pgd10_tar_8", "pgd50_un_8"}),
    (white(steps=[20, 50]), {"clean", "pgd50_un_8", "pgd50_un_16"}),
    (lambda settings: [training.update(dataset="cifar100") for training in settings["training"].values()], set()),
])
def test_the_papers_numbers_stand_beside_its_own_settings_alone(load, change, there):
    profile = load(change, text=CPU)
    columns = ("clean", "pgd10_tar_8", "pgd50_un_8", "pgd50_un_16")
    assert {column for column in columns if exhibit.papers_cell(profile, "mmc-10", column) is not None} == there
    drawn = ladder_exhibits._papers(profile, ["sce", "mmc-10"])
    assert drawn == ({"mmc-10": 24.8} if "pgd50_un_8" in there else {})


def test_a_rung_says_how_many_classes_it_tries(load):
    few = load(lambda settings: settings.update(verdict={"models": ["sce", "mmc-10"], "images": 8, "classes": 3}))
    assert methods.rungs(few)["multi_targeted"] == "margin, 3 of 9 wrong classes" in ladder.titles(few)
    assert methods.rungs(experiment.load_profile("cpu")) == methods.RUNGS


def test_how_a_row_was_trained_adversarially_is_said_as_it_was(load):
    def both(settings):
        settings["training"]["digits"].update(noise=2.0, steps=1, step_size=0.1)
        settings["models"] |= both_goals("sce")
        settings["white_box"]["models"] += ["at-targeted", "at-untargeted"]

    profile = load(both)
    for model in ("at-targeted", "at-untargeted"):
        steps, size, noisy = profile.crafting(model)
        attack = trained.recipe(profile, model).adversarial
        assert (attack.steps, attack.step_size, attack.noise > 0) == (steps, pytest.approx(size), noisy)
    assert methods.label(profile, "at-targeted") == "AT_tar2 (SCE)" and methods.label(profile, "at-untargeted") == "AT_un, N-FGSM (SCE)"
    note = white_box._how_trained(profile, profile.white_box.models)
    assert note == (" AT_tar rows: 2 steps of 0.05 at ε = 0.1. AT_un rows: 1 step of 0.1 from a start with noise of up to 0.2, "
                    "not projected (N-FGSM) at ε = 0.1.")
    assert white_box._how_trained(profile, ["sce"]) == ""
    assert "N-FGSM" in white_box._how_trained(experiment.load_profile("cpu"), ["at-un-sce", "at-un-mmc-10"])


def test_two_trainings_of_one_loss_have_two_names_in_a_figure(load):
    def both(settings):
        settings["models"] |= both_goals("mmc")
        settings["transfer"] = {"models": ["sce", "at-targeted", "at-untargeted"], "images": 4, "epsilons": [0.1, 0.2], "step_size": 0.05}

    profile = load(both)
    names = methods.shorts(profile, profile.transfer.models)
    assert names == {"sce": "SCE", "at-targeted": "AT_tar2 (MMC-10)", "at-untargeted": "AT_un2 (MMC-10)"}
    data = pd.DataFrame([{"attack": "PGD", "epsilon": 0.1, "substitute": one, "target": other, "accuracy": 50.0}
                         for one in names for other in names])
    assert black_box.draw_transfer(data, names, black_box.paper_figure_4(), "title") is not None
    assert methods.shorts(profile, ["sce", "at-targeted"]) == {"sce": "SCE", "at-targeted": "AT MMC-10"}


@pytest.mark.parametrize("change", [
    lambda settings: [model.update(seed=7) for model in settings["models"].values()],
    lambda settings: (settings.update(models={name: {"training": "digits", "loss": name} for name in ("center", "mmlda")}),
                      settings["white_box"].update(models=["center", "mmlda"], convergence_models=[])),
])
def test_sentences_name_the_models_that_are_there(load, change):
    profile = load(lambda settings: (change(settings), settings["white_box"].update(images=12)))
    for model in profile.white_box.models:
        for spec in white_box.white_box.table_1(profile, model).values():
            measure.evaluate(profile, spec)
    for item in (white_box.table_1(profile), training.figure_3a(profile)):
        assert any(methods.label(profile, model) in item.says for model in profile.white_box.models), item.says


EPSILONS = {"epsilons": [0.2, 0.1]}
SPSA = {"models": ["sce"], "images": 8, "epsilons": [0.1, 0.2], "table_3_model": "sce"}


def two_networks(settings):
    settings["training"]["other"] = settings["training"]["digits"] | {"epochs": 5}
    settings["models"]["mmc-10"]["training"] = "other"
    settings["verdict"] = {"models": ["sce", "mmc-10"], "images": 8}


def two_sizes(settings):
    settings["training"]["other"] = settings["training"]["digits"] | {"test_images": 100}
    settings["models"]["center"] = {"training": "other", "loss": "center"}
    settings["verdict"] = {"models": ["sce", "center"], "images": 8}


def flat(settings):
    settings["training"]["flat"] = settings["training"]["digits"] | {"feature_dim": 2}
    settings["models"]["flat"] = {"training": "flat", "loss": "center"}
    settings["plane"] = {"model": "flat", "features": 9}


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.update(spsa=SPSA | EPSILONS), "spsa: epsilons must rise"),
    (lambda s: s.update(spsa=SPSA | {"epsilons": [0.1, 0.1]}), "spsa: epsilons must rise"),
    (lambda s: s.update(spsa=SPSA | {"table_3_evaluations": [64, 32]}), "spsa: table_3_evaluations must rise"),
    (lambda s: s.update(transfer={"models": ["sce"], "images": 4, "step_size": 0.05} | EPSILONS), "transfer: epsilons must rise"),
    (two_networks, "verdict.models compares sce with mmc-10, whose trainings 'digits' and 'other' differ"),
    (two_sizes, "verdict.models are tested on different numbers of images (test_images: sce None, center 100)"),
    (flat, "plane.model is 'flat' of loss center; Figure 3b shows nearest centers"),
])
def test_what_could_only_mislead_is_refused(load, change, says):
    with pytest.raises(ValueError) as refused:
        load(change)
    assert says in str(refused.value)


def test_a_profile_elsewhere_does_not_take_a_built_in_ones_folders(tmp_path):
    path = tmp_path / "cpu.yaml"
    path.write_text(TINY)
    with pytest.raises(ValueError, match="cpu.yaml is called as the built-in profile 'cpu', in whose folders"):
        experiment.load_profile(str(path))
    path.rename(tmp_path / "mine.yaml")
    assert experiment.load_profile(str(tmp_path / "mine.yaml")).name == "mine"


def test_a_disk_that_does_not_tell_letters_apart_finds_no_other_profile(monkeypatch):
    monkeypatch.setattr(type(ROOT), "is_file", lambda path: True)  # as macOS says of profiles/CPU.yaml
    with pytest.raises(ValueError, match="there is no profile 'CPU'; known: cpu, demo"):
        experiment.load_profile("CPU")
    done = subprocess.run(["git", "ls-files", "--", ":(icase)results/CPU"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "results/cpu/" in done.stdout and ':(icase)$$folder/$$p"' in (ROOT / "Makefile").read_text()


def test_table_5_judges_sce_and_mmc_alone(load, monkeypatch):
    def deep(settings):
        settings["training"]["deep"] = settings["training"]["digits"] | {"epochs": 5}
        settings["models"] |= {"center": {"training": "digits", "loss": "center"}, "deep-center": {"training": "deep", "loss": "center"},
                               "deep-mmc": {"training": "deep", "loss": "mmc"}}
        settings["depth"] = {"networks": {"small": ["center", "mmc-10"], "large": ["deep-center", "deep-mmc"]}}

    profile = load(deep)
    monkeypatch.setattr(variants, "correct", lambda *_: pd.Series([True, False]).to_numpy())
    assert variants._table_5_says(profile, profile.depth.networks, None).startswith("Of SCE not both networks are here, so the paper's")


def test_jobs_at_a_time_fit_a_containers_cores_and_memory(load, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CONTAINER", tmp_path)
    monkeypatch.setattr(jobs.os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(jobs.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * 2**18}[name])
    profile = load()
    assert (machine.cores(), machine.memory(), machine.workers(profile)) == (64, 64 * 2**30, 42)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores() == 64
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert machine.cores() == machine.workers(profile) == 4
    (tmp_path / "memory.max").write_text(f"{4 * 2**30}\n")
    assert machine.workers(profile) == machine.processes() == 2
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine.workers(profile) == 1


def test_a_disk_without_locks_is_a_sentence(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")
    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="lies on a disk that grants no locks .No locks available.*MMC_RESULTS") as refused, locks.only_one(
            tmp_path / "receipt.json"):
        raise AssertionError("not reached")
    assert refused.value.filename is None  # so that the command says the sentence itself


def test_a_damaged_checkpoint_of_a_released_model_costs_no_receipt(load, monkeypatch):
    profile = load()
    trained.train(profile, "sce", progress=False)
    file = experiment.checkpoint_folder(profile, "sce") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="is damaged.*delete .*sce-.*json and train it again"):
        trained.ensure_model(profile, "sce")
    monkeypatch.setattr(trained.zoo, "released", lambda: ["tiny-sce"])
    with pytest.raises(ValueError, match="is damaged.*delete .*model.safetensors, and it is made again of the released model"):
        trained.ensure_model(profile, "sce")


def test_relative_folders_mean_the_same_in_a_notebook(tmp_path):
    makefile = (ROOT / "Makefile").read_text()
    absolute = makefile.partition("ABSOLUTE := ")[2].partition("\n")[0].replace("$$", "$")
    environment = os.environ | {"MMC_RESULTS": "my own", "MMC_CHECKPOINTS": "/else", "MMC_DATA": ""}
    script = f"{absolute}; echo \"$MMC_RESULTS|$MMC_CHECKPOINTS|$MMC_DATA\""
    said = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}/my own|/else|\n"
    recipes = [line for line in makefile.splitlines() if "jupyter lab" in line or "--nbval" in line]
    assert len(recipes) == 2 and all("$(ABSOLUTE); " in line for line in recipes)


def test_windows_is_told_before_anything_fails():
    script = "import os; os.name = 'nt'\ntry: import artifact\nexcept SystemExit as ended: print(ended)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "run it in WSL" in done.stdout


def test_an_exhibit_that_fails_is_named(load, tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("Index contains duplicate entries")
    monkeypatch.setattr(report, "make", fails)
    with pytest.raises(ValueError) as failed:
        report._write(load(), tmp_path, "Figure 4")
    assert failed.value.__notes__ == ["(while drawing Figure 4 of profile tiny)"]


def test_the_page_says_where_the_papers_numbers_stand_only_where_they_do(load, tmp_path):
    profile = load()
    plain = exhibit.Item("Table 9", "table_9", "Numbers", "a sentence", pd.DataFrame({"a": ["1"]}, index=["row"]),
                         pd.DataFrame({"a": [1]}))
    text = page.write(profile, tmp_path, [plain]).read_text()
    assert "so none is called\nreproduced or not.</p>" in text and "grey italics" not in text
