"""A profile of one's own: the paper's numbers stand beside its settings alone, and sentences and figures name what is there."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from artifact import experiment, methods
from artifact.compute import measure, trained
from artifact.exhibits import black_box, exhibit, training, variants, white_box
from artifact.exhibits import ladder as ladder_exhibits
from artifact.exhibits import white_box as white_box_exhibits
from artifact.experiment import ROOT
from artifact.measurements import ladder
from tests.artifact.tiny import TINY

CPU = (ROOT / "profiles" / "cpu.yaml").read_text()


def white(**changes):
    return lambda settings: settings["white_box"].update(changes)


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


def both_goals(loss):
    return {f"at-{goal}": {"training": "digits", "loss": loss, "adversarial": goal} for goal in ("targeted", "untargeted")}


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


def test_table_5_judges_sce_and_mmc_alone(load, monkeypatch):
    def deep(settings):
        settings["training"]["deep"] = settings["training"]["digits"] | {"epochs": 5}
        settings["models"] |= {"center": {"training": "digits", "loss": "center"}, "deep-center": {"training": "deep", "loss": "center"},
                               "deep-mmc": {"training": "deep", "loss": "mmc"}}
        settings["depth"] = {"networks": {"small": ["center", "mmc-10"], "large": ["deep-center", "deep-mmc"]}}

    profile = load(deep)
    monkeypatch.setattr(variants, "correct", lambda *_: pd.Series([True, False]).to_numpy())
    assert variants._table_5_says(profile, profile.depth.networks, None).startswith("Of SCE not both networks are here, so the paper's")


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


def test_a_digits_table_shows_no_number_of_the_papers(monkeypatch):
    demo = experiment.load_profile("demo")
    monkeypatch.setattr(white_box, "evaluation", lambda *_: {"accuracy": 0.5, "interval": [0.4, 0.6]})
    monkeypatch.setattr(white_box, "difference", lambda *_: exhibit.Difference(0.0, 0.0, 0.0))
    monkeypatch.setattr(white_box, "correct", lambda *_: np.ones(4, bool))
    monkeypatch.setattr(white_box, "clean_of_all", lambda *_: {"all": {"accuracy": 50.0, "low": 40.0, "high": 60.0}})
    item = white_box.table_1(demo)
    assert not item.beside_the_paper and item.values["paper"].isna().all()
    values = white_box.table_1(experiment.load_profile("quick")).values.set_index("column")
    assert values.loc["all", "paper"].notna().any() and values.loc["clean", "paper"].isna().all(), "the paper's is of all test images"


def test_cells_that_an_undefended_model_would_reproduce_are_counted(monkeypatch):
    paper = experiment.load_profile("paper")
    monkeypatch.setattr(white_box, "evaluation", lambda *_: {"accuracy": 0.0, "interval": [0.0, 0.1]})
    monkeypatch.setattr(white_box, "difference", lambda *_: exhibit.Difference(0.0, 0.0, 0.0))
    monkeypatch.setattr(white_box, "correct", lambda *_: np.zeros(4, bool))
    monkeypatch.setattr(white_box, "clean_of_all", lambda *_: {"all": {"accuracy": 90.0, "low": 89.0, "high": 91.0}})
    item = white_box.table_1(paper)
    attacked = item.values[~item.values["column"].isin(["all", "clean"])]
    count = int(attacked["verdict"].isin(["reproduced", "near"]).sum())
    assert count > 0 and f"of those reproduced or near {count} would be so with an accuracy of 0" in item.says


def test_a_profile_without_a_curve_draws_none(load):
    with pytest.raises(exhibit.NotPlanned, match="no curve_epsilons"):
        white_box.curve(load(lambda s: s["white_box"].pop("curve_epsilons")))


def test_a_model_of_ones_own_has_a_row_beside_the_papers():
    profile = experiment.load_profile("demo")
    own = profile.models["mmc-10"].model_copy(update={"radius": 20.0})
    profile = profile.model_copy(update={"models": profile.models | {"my row": own}})
    rows = exhibit.paper_table("table1.csv").reindex([methods.paper_label(profile, model) for model in ("sce", "my row")])
    assert list(rows.index) == ["SCE", "MMC-20"] and rows.loc["MMC-20"].isna().all() and rows.index.name == "method"
    notebook = (ROOT / "notebooks" / "03_white_box.ipynb").read_text(encoding="utf-8")
    assert "reindex([paper_label" in notebook and ".loc[[name_of" not in notebook


def test_a_dollar_in_a_title_is_a_dollar():
    profile = experiment.load_profile("demo").model_copy(update={"title": "a $\\foo$ b"})
    data = pd.DataFrame({"model": ["sce"] * 2, "epsilon": [0.0, 0.1], "accuracy": [90.0, 10.0], "low": [85.0, 5.0], "high": [95.0, 15.0]})
    figure = white_box_exhibits.draw_curve(data, {"sce": methods.look(profile, "sce")}, exhibit.figure_title(profile, "text"))
    figure.draw_without_rendering()


def test_remedies_name_a_profile_as_it_was_asked_for(load):
    profile = load(lambda settings: settings.pop("train_on_the_spot"), name="two words")
    with pytest.raises(FileNotFoundError) as missing:
        trained.ensure_model(profile, "sce")
    assert f"--profile '{profile.source}' --only 'train sce'" in str(missing.value)
