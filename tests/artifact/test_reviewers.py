"""What an artifact's reviewers tried and found wanting, each as a test."""

import subprocess
import sys
import threading
import time

import pytest
import torch

from artifact import __main__ as command_line
from artifact import adversarial, commands, crate, experiment, jobs, plain, preflight, record, release, report, runners
from artifact.compute import trained
from artifact.exhibits.exhibit import Missing, NotPlanned
from artifact.receipts import write_receipt
from mmclib import zoo

ROOT = experiment.ROOT
RELEASED = pytest.mark.skipif("cpu-sce" not in zoo.released(), reason="cpu-sce is not released")


def drawn(profile):
    """Draw all and write the last job's receipt, as its notebook does; returns the job."""
    items = [written.summary() for written in report.write_all(profile)]
    job = jobs.find(profile, "report")
    write_receipt(job.receipt, {"identity": job.receipt.stem.rsplit("-", 1)[-1], "kind": "notebook", "results": {"items": items},
                                "provenance": {}})
    return job


def test_a_page_of_other_settings_is_drawn_again(load, tmp_path, monkeypatch):
    for module in (report, jobs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    first = load()
    for model in first.models:
        trained.train(first, model, progress=False)
    job = drawn(first)
    assert job.done()
    other = drawn(load(lambda settings: settings["white_box"].update(epsilons=[0.05, 0.3])))
    assert other.done() and not job.done(), "a value changed and changed back: the page is the other one's"
    job = drawn(load())
    assert job.done() and not other.done()
    for change in ({"title": "digits under another title"}, {"band": {"near": 9.0}}):
        shown = jobs.find(load(lambda settings, change=change: settings.update(change)), "report")
        assert shown.receipt == job.receipt and not shown.done(), change
    assert jobs.find(load(lambda settings: settings.update(device="cuda")), "report").done()
    next((tmp_path / "figures" / "tiny").glob("*.csv")).unlink()
    assert not job.done(), "a file that the report names is gone"


def test_the_verdicts_rules_are_part_of_what_a_page_shows(monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(ROOT / "results"))  # the committed page is the committed receipts', not another folder's
    quick = experiment.load_profile("quick")
    rules = quick.verdict.rules.model_copy(update={"clean_gap": 0.05})
    strict = quick.model_copy(update={"verdict": quick.verdict.model_copy(update={"rules": rules})})
    before, after = (next(job for job in jobs.plan(profile) if job.name == "report") for profile in (quick, strict))
    assert before.done() and before.receipt == after.receipt and not after.done()


def _pair(settings, **fields):
    settings["models"]["mmc-eq8"] = {"training": "digits", "loss": "mmc", **fields}
    settings["white_box"]["models"] = ["sce", "mmc-10", "mmc-eq8"]


VERDICT = {"models": ["sce", "mmc-10"], "images": 8}
SPSA = {"models": ["sce"], "images": 8, "epsilons": [0.1, 0.2], "table_3_model": "mmc-10"}


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: _pair(s, scale=0.5), "white_box.models names mmc-10 and mmc-eq8, which a table would call the same"),
    (lambda s: s.update(depth={"networks": {"one": ["sce"]}}), "depth.networks"),
    (lambda s: s.update(depth={"networks": {"one": ["sce", "mmc-10"], "two": ["sce"]}}), "one has 2 and the other 1"),
    (lambda s: s.update(depth={"networks": {"one": ["sce"], "two": ["mmc-10"]}}), "depth.networks compares 'sce' with 'mmc-10'"),
    (lambda s: s.update(spsa=SPSA), "spsa.table_3_model names 'mmc-10', which spsa.models does not"),
    (lambda s: s.update(verdict=VERDICT | {"models": ["sce"], "diagnosed": ["mmc-10"]}), "verdict.diagnosed names 'mmc-10'"),
    (lambda s: s.update(verdict=VERDICT | {"models": ["sce"], "autoattack": ["mmc-10"]}), "verdict.autoattack names 'mmc-10'"),
    (lambda s: s.update(verdict=VERDICT | {"matched": 8, "passes": 20}), "passes is 20; one step towards each wrong class takes 28"),
    (lambda s: s["models"]["sce"].update(radius=3.0), "radius is for losses with preset centers, this one is 'sce'"),
    (lambda s: s["training"]["digits"].update(widths=[8]), "widths is for architecture 'airbench' only, this one is 'small_convnet'"),
    (lambda s: s["training"]["digits"].update(other_rate=0.1), "other_rate is for optimizer 'muon' only, this one is 'sgd'"),
    (lambda s: s["training"]["digits"].update(schedule="linear"), "milestones is for schedule 'steps' only, this one is 'linear'"),
    (lambda s: s.update(band={"reproduced": 10.0, "near": 2.0}), "near must be at least reproduced = 10"),
])
def test_a_profile_that_could_only_fail_late_or_in_silence_is_refused(load, change, says):
    with pytest.raises(ValueError) as refused:
        load(change)
    assert says in str(refused.value)


def test_a_report_without_what_it_needs_is_not_written(load, capsys):
    profile = load()
    job = jobs.find(profile, "report")
    plain.in_turn(profile, [job])
    assert not job.receipt.exists() and not job.outputs[-1].exists()
    assert command_line.main(["run", "--profile", profile.source, "--only", "report"]) == 1
    assert "1 jobs need others that were not asked for" in capsys.readouterr().err and not job.receipt.exists()


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


def test_numbers_on_the_command_line_are_asked_for_in_words(capsys):
    for option, value in (("--jobs", "x"), ("--jobs", "0"), ("--time-budget", "soon")):
        with pytest.raises(SystemExit):
            command_line.main(["run", option, value])
        said = capsys.readouterr().err
        assert "it must be a" in said and "invalid _" not in said


def test_a_crate_is_a_folder_or_a_zip_and_holds_what_its_receipts_drew(load, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="would become a folder"):
        crate.write(load(), tmp_path / "out.tar.gz")
    quick = experiment.load_profile("quick")
    monkeypatch.setenv("MMC_RESULTS", str(ROOT / "results"))
    drawn = {path.name for path in jobs.drawn_files(quick)}
    assert {"index.html", "table_1.csv", "table_1.tex", "figure_4.png"} <= drawn and "table_5.csv" not in drawn
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    assert jobs.drawn_files(quick) == []


def test_clean_takes_a_profiles_file_for_its_name(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for folder in ("results", "figures"):
        (tmp_path / folder / "tiny2").mkdir(parents=True)
    done = subprocess.run(["make", "-s", "clean", "PROFILE=tiny2.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not (tmp_path / "results" / "tiny2").exists() and not (tmp_path / "figures" / "tiny2").exists()


@RELEASED
def test_jobs_that_miss_the_same_released_model_make_it_again_once(tmp_path, monkeypatch):
    cpu, load_released, made = experiment.load_profile("cpu"), zoo.load_released, []
    receipt = experiment.read_receipt(experiment.model_receipt_path(cpu, "sce"))

    def slowly(name):
        made.append(name)
        time.sleep(0.3)
        return load_released(name)

    monkeypatch.setattr(zoo, "load_released", slowly)
    threads = [threading.Thread(target=trained._restore, args=(cpu, "sce", receipt, tmp_path / "model.safetensors")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["cpu-sce"] and (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["a b ü/tiny two ü", "{x}/tiny"])
def test_snakemake_takes_a_profile_of_any_path(load, name):
    profile = load(name=name)
    todo = [job for job in jobs.plan(profile) if job.name.startswith("train")]
    command = commands.snakemake(profile, todo, 1, targets=(todo[0].receipt,))
    command.insert(command.index("--"), "--dry-run")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_may_train_on_the_spot(monkeypatch):
    monkeypatch.setattr(release, "release", lambda profile, key: torch.is_grad_enabled())
    assert release.release_all("demo", ["sce"]) == [True]


def test_what_was_asked_for_is_said_to_be_there(capsys):
    commands.announce(experiment.load_profile("cpu"), "named", [], 1, "the jobs asked for")
    assert "the receipts of the jobs asked for are in" in capsys.readouterr().out


def test_remedies_name_a_profile_as_it_was_asked_for(load):
    profile = load(lambda settings: settings.pop("train_on_the_spot"), name="two words")
    with pytest.raises(FileNotFoundError) as missing:
        trained.ensure_model(profile, "sce")
    assert f"--profile '{profile.source}' --only 'train sce'" in str(missing.value)


@pytest.mark.parametrize(("name", "item"), [("quick", "Verdict"), ("cpu", "Verdict"), ("cpu", "Equal passes")])
def test_what_is_planned_and_has_no_receipts_is_missing(name, item, tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path))
    with pytest.raises(Missing) as missing:
        report.make(item, experiment.load_profile(name))
    assert not isinstance(missing.value, NotPlanned), item


def test_a_folder_of_figures_that_cannot_be_is_named_before_the_first_job(load, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "ROOT", tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "tiny").touch()
    profile = load()
    faults = preflight.disk_faults(profile, jobs.plan(profile))
    assert len(faults) == 1 and str(tmp_path / "figures" / "tiny") in faults[0]


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.update(variants={"hierarchical": ["mmc-10"]}), "has no superclasses"),
    (lambda s: (s["training"].update(pairs=s["training"]["digits"] | {"dataset": "digit-pairs", "feature_dim": 128}),
                s["models"].update(pair={"training": "pairs", "loss": "sce"}),
                s.update(transfer={"models": ["sce", "pair"], "images": 8, "epsilons": [0.1, 0.2], "step_size": 0.05})), "of one data set"),
    (lambda s: s["models"].update({"mmc_10": s["models"]["mmc-10"]}), "differ in a dash alone"),
    (lambda s: s["white_box"].update(models=["sce"]), "convergence_models names 'mmc-10'"),
    (lambda s: s.update(name="another"), "unknown key 'name'"), (lambda s: s.update(source="there"), "unknown key 'source'"),
])
def test_a_profile_that_would_fail_late_is_refused(load, change, says):
    with pytest.raises(ValueError, match=says):
        load(change)


def test_each_job_has_a_log_of_its_own(load):
    profile = load(lambda settings: settings.update(models={"A": settings["models"]["sce"], "B": settings["models"]["mmc-10"]},
                                                    white_box=settings["white_box"] | {"models": ["A"], "convergence_models": []},
                                                    train_on_the_spot=False))
    logs = [runners.log_path(profile, job) for job in jobs.plan(profile)]
    assert len(set(logs)) == len(logs) and logs[1].name == "train-A.ipynb"


@RELEASED
def test_no_more_images_are_claimed_than_there_are():
    quick = experiment.load_profile("quick")
    model = next(name.removeprefix("quick-") for name in zoo.released() if name.startswith("quick-"))
    short = quick.model_copy(update={"training": {name: network.model_copy(update={"dataset": "digits"})
                                                  for name, network in quick.training.items()}})
    with pytest.raises(ValueError, match="so there are no 100000 to craft"):
        adversarial.write(short, model, 100_000)
    with pytest.raises(FileNotFoundError, match="cpu-lgm has no adversarial images yet; make them with: python -m artifact adversarial"):
        adversarial.check("cpu-lgm")


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


def test_odd_surroundings_are_a_sentence(monkeypatch, capsys):
    command = f"exec {sys.executable} -m artifact run --profile demo --dry-run"
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        assert subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=ROOT, capture_output=True).returncode == 0, closed
    monkeypatch.setenv("MMC_PARENT", "abc")
    assert command_line.main(["run", "--profile", "demo", "--dry-run"]) == 2
    assert "MMC_PARENT is for make and Snakemake" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["run", "--profile", "demo", "--time-budget", "1e30"])
    assert "below a billion" in capsys.readouterr().err
