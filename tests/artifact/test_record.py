"""Every number that is shown has a receipt: the README's blocks, the committed figures, and the released models' cards."""

import hashlib
import json
import re

import pytest
import torch
import yaml

from artifact import experiment, jobs, record, release, report
from artifact.compute import trained
from artifact.exhibits.exhibit import Missing
from artifact.exhibits.ladder import strongest
from artifact.measurements import ladder, variants, white_box
from mmclib import checkpoints, evaluation, zoo

COMMITTED = [name for name in ("quick", "cpu", "paper") if (experiment.ROOT / "figures" / name).is_dir()]
NUMBER = re.compile(r"\d[\d,.]*\s?(%|×|times|points?|images?/s|hours|seconds)")
ROOT = experiment.ROOT
RELEASED = pytest.mark.skipif("cpu-sce" not in zoo.released(), reason="cpu-sce is not released")


@pytest.fixture(scope="module")
def cards():
    return release.cards()


@pytest.mark.parametrize("path", record.FILES, ids=lambda path: path.name)
def test_every_block_is_what_the_receipts_say(path):
    assert record.update(path) == path.read_text(), "run: python -m artifact record"


@pytest.mark.parametrize("path", record.FILES, ids=lambda path: path.name)
def test_nothing_is_measured_outside_the_blocks(path):
    text = re.sub(r"<!-- record: .*?<!-- end -->", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not NUMBER.findall(text), [match.group() for match in NUMBER.finditer(text)]


def test_the_readmes_own_model_runs_as_it_stands_and_prints_what_it_says(capsys):
    """Cross-entropy reports a robust model with vanished gradients; the margin tells the truth."""
    code = re.findall(r"```python\n(.*?)```", (experiment.ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    with pytest.warns(UserWarning, match="exactly zero"):
        exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    wrong, right = (line for line in lines if "accuracy" in line)
    shares = [[int(share) for share in re.findall(r"(\d+)%", line)] for line in (wrong, right)]
    assert wrong.startswith("cross_entropy") and right.startswith("margin")
    assert shares[0][0] >= 60 and shares[0][1] >= 50 and shares[1][0] <= 30 and shares[1][1] <= 5
    assert [line.endswith("gradients are masked") for line in lines[3:]] == [False, True, False, False, False, False]
    assert lines[-1].startswith("worst case") and float(lines[-1].split()[-1][:-1]) <= 20


def test_the_check_sees_a_number_without_a_receipt():
    assert NUMBER.search("keeps 43.5 % of it") and NUMBER.search("3.1 times faster") and not NUMBER.search("Tables 2 to 5")


@pytest.mark.parametrize("name", COMMITTED or [pytest.param("", marks=pytest.mark.skip("no profile's figures are committed"))])
def test_committed_tables_are_drawn_from_committed_receipts(name):
    profile, folder = experiment.load_profile(name), experiment.ROOT / "figures" / name
    drawn = set()
    for item_name in report.ITEMS:
        try:
            item = report.make(item_name, profile)
        except Missing:
            continue
        drawn.add(item.stem)
        if item.table is not None:
            assert (folder / f"{item.stem}.md").read_text() == report.markdown(item), item.name
        assert (folder / f"{item.stem}.csv").read_bytes() == item.values.to_csv(index=False).encode(), item.name
    assert {path.stem for path in folder.glob("*.csv")} <= drawn, "a table or figure without receipts"


@pytest.mark.parametrize("name", [name for name in COMMITTED if (experiment.ROOT / "results" / name).exists()])
def test_what_notebooks_claim_is_of_their_cells_as_they_are(name, monkeypatch):
    """A claim that entered a notebook after its receipt was made stood nowhere, and nothing missed it."""
    monkeypatch.setenv("MMC_RESULTS", str(experiment.ROOT / "results"))
    stale = [job.name for job in jobs.plan(experiment.load_profile(name)) if any(path.suffix == ".json" for path in job.missing())]
    assert not stale, f"run: python -m artifact run --profile {name}"


def printed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(output.get("data", {}).get("text/plain", output.get("text", []))) for cell in cells
                     for output in cell.get("outputs", []))


def test_the_report_notebook_shows_the_claims_of_the_others():
    """Its cells are left out by nbval, since a page of all tables is long: it once showed claims and numbers of days before."""
    shown = printed(ROOT / "notebooks" / "08_report.ipynb")
    refused = shown.partition("claims hold; these do not: ")[2].partition("\n")[0].removesuffix(".").split("; ")
    for path in sorted((ROOT / "notebooks").glob("0[1-7]_*.ipynb")):
        for verdict, text in re.findall(r"^(holds|DOES NOT HOLD): (.*)$", printed(path), flags=re.MULTILINE):
            names = [f"{path.name[:2]}: {text[:end.start()]}" for end in re.finditer(r"\. |$", text)]
            assert any(name in shown for name in names), text
            assert any(name in refused for name in names) == (verdict != "holds"), text


@pytest.mark.parametrize("name", zoo.released() or [pytest.param("", marks=pytest.mark.skip("no model is released"))])
def test_a_released_model_loads_and_its_card_names_its_file(name):
    card = json.loads((zoo.FOLDER / f"{name}.json").read_text())
    assert card["sha256"] == hashlib.sha256((zoo.FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()
    assert card["sha256"] in (zoo.FOLDER / f"{name}.md").read_text()
    model = zoo.load_released(name)
    channels = model.mean.shape
    assert not model.training and next(model.parameters()).dtype == torch.float32
    assert model(torch.rand(2, *channels)).isfinite().all()
    receipts = list((experiment.ROOT / "results").glob(f"*/models/{card['receipt']}"))
    assert receipts and experiment.read_receipt(receipts[0])["results"]["checkpoint_sha256"] == card["trained_checkpoint_sha256"]


@pytest.mark.parametrize("name", zoo.released() or [pytest.param("", marks=pytest.mark.skip("no model is released"))])
def test_a_clone_makes_the_checkpoint_again_from_the_released_model(name, tmp_path):
    card = json.loads((zoo.FOLDER / f"{name}.json").read_text())
    profile, model = name.split("-", 1)
    receipt = experiment.read_receipt(experiment.ROOT / "results" / profile / "models" / card["receipt"])
    file = tmp_path / "model.safetensors"
    trained._restore(experiment.load_profile(profile), model, receipt, file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == receipt["results"]["checkpoint_sha256"], "the very file, to the bit"
    file.unlink()
    receipt["results"]["checkpoint_sha256"] = 64 * "0"  # another training's
    trained._restore(experiment.load_profile(profile), model, receipt, file)
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize("name", zoo.released() or [pytest.param("", marks=pytest.mark.skip("no model is released"))])
def test_a_card_is_what_the_receipts_say(name, cards):
    path = zoo.FOLDER / f"{name}.md"
    text = path.read_text()
    assert cards[path] == text, "run: python -m artifact record"
    card = json.loads((zoo.FOLDER / f"{name}.json").read_text())
    metrics = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == card["test_accuracy"]
    profile, key = name.split("-", 1)
    profile = experiment.load_profile(profile)
    try:
        made = key in white_box.models(profile) or (key in ladder.models(profile) and strongest(profile, key) is not None)
        if not made and key in variants.models(profile):
            made = all(variants.variant(profile, key)[name].path(profile).exists() for name in ("untargeted_1", "untargeted_2"))
    except Missing:
        made = False
    if not made:
        assert len(metrics) == 1 and "attack" not in text.partition("made to be attacked")[2], "no attack on it is planned, or not all made"
        return
    attacked = [float(found) for found in re.findall(r"^\| [^|]+ \| ([\d.]+) % ", text, flags=re.MULTILINE)]
    assert attacked and attacked[-1] == min(attacked) == pytest.approx(100 * metrics[1]["value"]), "the worst case is the headline"


@pytest.mark.skipif("cpu-mmc-10" not in zoo.released(), reason="cpu-mmc-10 is not released")
def test_a_card_outlives_its_row(monkeypatch):
    """A profile goes on: a changed row leaves the card its own settings and no attack of another model, a row taken out leaves it alone."""
    cpu, path = experiment.load_profile("cpu"), zoo.FOLDER / "cpu-mmc-10.md"
    changed = cpu.models | {"mmc-10": cpu.models["mmc-10"].model_copy(update={"radius": 3.0})}
    monkeypatch.setattr(release, "load_profile", lambda name: cpu.model_copy(update={"models": changed}))
    monkeypatch.setattr(zoo, "released", lambda: ["cpu-mmc-10"])
    assert "C_MM = 10," in release.cards()[path] and "| attack" not in release.cards()[path]
    del changed["mmc-10"]
    assert release.cards() == {}


def test_a_model_is_released_and_loaded_with_the_same_predictions(tmp_path, monkeypatch):
    from mmclib import data, evaluation
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))
    demo = experiment.load_profile("demo")
    short = demo.training["digits"].model_copy(update={"epochs": 2})
    profile = demo.model_copy(update={"training": demo.training | {"digits": short}})
    path = release.release(profile, "mmc-10", tmp_path / "released")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "released")
    images, labels = data.load("digits", "test")
    model = trained.ensure_model(profile, "mmc-10")
    again = evaluation.accuracy(zoo.load_released(path.stem), images, labels)
    assert again.correct.equal(evaluation.accuracy(model.classifier, images, labels).correct)
    assert f"Test accuracy after the last epoch: {100 * again.accuracy:.2f} %" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize("name", ["cpu-at-un-sce", "cpu-at-un-mmc-10", "cpu-mmc-10"])
def test_a_released_model_answers_its_committed_images_as_counted(name):
    tensors, told = checkpoints.load_model_state(zoo.FOLDER / "adversarial" / f"{name}.safetensors")
    assert told["model_sha256"] == hashlib.sha256(zoo.released_path(name).read_bytes()).hexdigest()
    found = evaluation.accuracy(zoo.load_released(name), tensors["images"], tensors["labels"])
    assert abs(int(found.correct.sum()) - told["correct"]) <= 2  # another processor's rounding


@pytest.mark.parametrize(("text", "says"), [
    ("<!-- record: cpu -->\nold\n\n## A heading\n\n<!-- record: quick -->\n<!-- end -->\n", "without its end"),
    ("<!-- record: cpu -->\n## A heading\n<!-- record: quick -->\n<!-- end -->\n<!-- end -->\n", "without its end"),
    ("a text\n<!-- end -->\n", "without its block"),
    ("<!-- record: cpu/nonsense -->\n<!-- end -->\n", "there is no block 'cpu/nonsense'"),
    ("<!-- record: my-profile2/verdict -->\n<!-- end -->\n", "there is no profile 'my-profile2'"),
])
def test_a_record_block_that_is_none_loses_no_prose(tmp_path, text, says):
    page = tmp_path / "PAGE.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=says):
        record.update(page)


def test_a_release_may_train_on_the_spot(monkeypatch):
    monkeypatch.setattr(release, "release", lambda profile, key: torch.is_grad_enabled())
    assert release.release_all("demo", ["sce"]) == [True]


@RELEASED
def test_a_profiles_name_may_hold_a_dash(tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "my-cpu.yaml").write_text((ROOT / "profiles" / "cpu.yaml").read_text())
    (tmp_path / "my-cpu-sce.json").write_text((zoo.FOLDER / "cpu-sce.json").read_text())
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "load_profile", lambda name: experiment.load_profile(str(tmp_path / "profiles" / f"{name}.yaml")))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr(zoo, "released", lambda: ["my-cpu-sce"])
    assert list(release.cards()) == [tmp_path / "my-cpu-sce.md"]
