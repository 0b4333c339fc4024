"""What an engineer found who took the workflow over: stale pages, jobs that use what they do not wait for, files believed half written."""

import dataclasses
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from artifact import __main__ as command_line
from artifact import cluster, experiment, jobs, plain, preflight, profiles, receipts, rehearsal, report, scaling
from artifact.compute import origin, probes, trained
from artifact.exhibits import exhibit, white_box
from artifact.exhibits.exhibit import Item
from artifact.experiment import ROOT
from artifact.measurements import ladder
from mmclib import data
from mmclib.data import NUM_CLASSES


def written(path, results, kind="evaluation", **more):
    receipts.write_receipt(path, {"identity": path.stem.rsplit("-", 1)[-1], "kind": kind, "results": results, "provenance": {}} | more)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_measure_only_what_their_jobs_wait_for(path):
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert not re.search(r"measure\.evaluate|ensure_model", code)


@pytest.mark.parametrize("name", ["cpu", "quick"])
def test_a_job_waits_for_every_model_that_it_measures(name):
    planned = jobs.plan(experiment.load_profile(name))
    trained_by = {path: job.receipt for job in planned if job.notebook == "02_training" for path in job.makes}
    for job in planned:
        if job.notebook in ("03_white_box", "07_verdict") and len(job.parameters["methods"]) == 1:
            folder = experiment.results_folder(job.profile) / "models"
            models = {path.parent.name for path in job.makes}
            needed = {made for path, made in trained_by.items() if path.parent == folder and path.stem.rpartition("-")[0] in models}
            assert needed and needed <= set(job.needs)


def test_a_rehearsal_has_a_job_for_each_of_the_real_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "ROOT", tmp_path)
    for name in ("quick", "cpu", "paper"):
        profile = experiment.load_profile(name)
        tables = [job.name for job in jobs.plan(profile) if ": " in job.name]
        small = [job.name for job in jobs.plan(rehearsal.rehearsal(profile, "cpu")) if ": " in job.name]
        assert len(small) >= len(tables)
        assert {one for job in tables for one in job.partition(": ")[2].split(", ")} <= {job.partition(": ")[2] for job in small}


class Ended:
    """A process that ends at once."""

    returncode = 0

    def poll(self):
        return 0

    terminate = wait = lambda *_: None


def test_what_is_made_again_is_waited_for_and_what_failed_spoils_what_needs_it(load, monkeypatch, capsys):
    profile, started = load(), []
    paths = [Path(profile.source).with_name(f"{name}-000000000000.json") for name in "abcd"]
    for path in paths:
        written(path, {}, "notebook")
    first, second, other, last = (jobs.Job(path.stem[0], "n", {}, (path,), needs) for path, needs in
                                  zip(paths, ((), (paths[0],), (), (paths[1], paths[2])), strict=True))

    def start(profile, job):
        started.append(job.name)
        ended = Ended()
        ended.returncode = int(job.name in failing)
        return ended
    monkeypatch.setattr(plain, "_start", start)
    monkeypatch.setattr(plain, "_log", lambda profile, job: ROOT / "README.md")
    failing = ()
    assert plain.side_by_side(profile, [last, second, first, other], 4) == []  # all are there already, and made again in their order
    assert started.index("a") < started.index("b") < started.index("d") and started.index("c") < started.index("d")
    started.clear()
    failing = ("b",)
    assert plain.side_by_side(profile, [last, second, first, other], 4) == ["b"]
    assert sorted(started) == ["a", "b", "c"] and "failed" in capsys.readouterr().out


def test_one_of_several_processes_makes_its_job_again_though_it_is_done(load, monkeypatch):
    profile, ran = load(), []
    monkeypatch.setattr(jobs, "to_do", lambda planned: [])
    monkeypatch.setattr(plain, "in_turn", lambda profile, todo: ran.extend(job.name for job in todo))
    monkeypatch.setattr(jobs.Job, "done", lambda job: True)
    command_line.main(["run", "--profile", profile.source, "--only", "white box", "--redo"])
    assert ran == ["white box"]
    monkeypatch.setattr(plain.processes, "start", lambda command, **_: command)
    assert "--redo" in plain._start(profile, jobs.find(profile, "white box"))


def test_what_is_looked_up_takes_no_time(load):
    job = jobs.find(load(), "white box")
    assert jobs.shortened(job, list(job.makes)).seconds == job.seconds > jobs.SECONDS_TO_START
    assert jobs.shortened(job, []).seconds == pytest.approx(jobs.SECONDS_TO_START)


def test_claims_and_page_are_of_the_evaluations_that_are_there(load, tmp_path, monkeypatch):
    profile = load()
    one = next(job for job in jobs.plan(profile) if job.name == "white box")
    first, claims = tmp_path / "one-000000000001.json", tmp_path / "claims-000000000002.json"
    job = dataclasses.replace(one, outputs=(claims,), makes={first: 1.0}, profile=None)
    monkeypatch.setattr(receipts, "_verify", lambda receipt, path: None)
    written(first, {"accuracy": 0.5, "seconds": 3.0})
    written(claims, {"of": receipts.together([first])}, "notebook")
    assert job.done()
    written(first, {"accuracy": 0.5, "seconds": 4.0})
    assert job.done()  # the same, made again
    written(first, {"accuracy": 0.25, "seconds": 4.0})
    assert not job.done()
    written(claims, {}, "notebook")
    assert job.done()  # of an earlier version, which did not say
    marks = []
    for accuracy in (0.25, 0.125):
        written(first, {"accuracy": accuracy})
        monkeypatch.setattr(jobs, "plan", lambda _: [job])
        marks.append(jobs.page_mark(profile, tmp_path / "report.json"))
    assert marks[0] != marks[1]


def test_only_receipts_of_the_profile_as_it_is_count(load):
    profile = load()
    path = next(path for job in jobs.plan(profile) for path in job.makes)
    old = path.with_name("sce-000000000000.json")
    for place in (path, old):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("{}")
    assert jobs.made(profile) == [path]


def test_both_sides_of_the_measured_point_take_the_last_process_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.touch()
    made = {"provenance": {"seconds": 100, "finished": "2026-01-01T00:10:00Z"}, "results": {"seconds": 500}}  # 400 before a kill
    monkeypatch.setattr(scaling, "read_receipt", lambda _: made)
    monkeypatch.setattr(jobs, "SECONDS_TO_START", 2)
    point = scaling.observed([jobs.Job("a", "n", {}, (path,), makes={path: 1.0})])
    assert point.simulated == 102 and point.ran == pytest.approx(100, abs=4)


def test_a_model_trained_alone_is_done_with_its_notebook(load):
    profile = experiment.load_profile("quick")
    job = next(job for job in jobs.plan(profile) if job.name == "train sce")
    assert [path.parent.name for path in job.outputs] == ["models", "notebooks"] and job.receipt.parent.name == "models"
    assert str(job.outputs[1]) == job.parameters["output"]


TAKE = "import os, sys; from artifact import cluster; held = cluster.take_gpu(); print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); " \
       "sys.stdin.read()"


def test_jobs_of_one_slurm_allocation_share_its_gpus_out(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}
    started = [subprocess.Popen([sys.executable, "-c", TAKE], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                env=environment) for _ in range(3)]
    ready, _, _ = select.select([job.stdout for job in started], [], [], 60)
    taken = {job.stdout.readline().strip() for job in started if select.select([job.stdout], [], [], 3)[0] or job.stdout in ready}
    for job in started:
        job.kill()
        job.communicate()
    assert taken == {"0", "1"}


def test_a_drawn_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    values = pd.DataFrame({"model": ["sce"], "accuracy": [1.0]})
    item = Item("Table 9", "table_9", "Numbers", "says", values, values)
    assert report.write_item(tmp_path, item) == ["table_9.csv", "table_9.md", "table_9.tex"]
    before = (tmp_path / "table_9.md").read_bytes()

    def full(source, target):
        raise OSError("no space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        report.write_item(tmp_path, dataclasses.replace(item, title="Other numbers"))
    assert (tmp_path / "table_9.md").read_bytes() == before and len(list(tmp_path.iterdir())) == 3


SPSA = {"models": ["sce"], "images": 8, "epsilons": [0.1, 0.2], "table_3_model": "sce"}


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s.update(spsa=SPSA | {"evaluations": 3}), "multiple"),
    (lambda s: s.update(spsa=SPSA | {"table_3_evaluations": []}), "at least 1"),
    (lambda s: s.update(verdict={"models": ["sce", "mmc-10"], "images": 8, "queries": 5}), "multiple"),
    (lambda s: (s["training"]["digits"].update(test_images=20), s.update(verdict={"models": ["sce", "mmc-10"], "images": 30})),
     "verdict.images is 30, and sce is tested on 20"),
    (lambda s: s.update(comparable=True), "comparable is true, and the profile trains on a stand-in"),
    (lambda s: (s["training"].update(pairs=s["training"]["digits"] | {"dataset": "digit-pairs", "feature_dim": 128}),
                s["models"].update(pairs={"training": "pairs", "loss": "mmc"}), s["white_box"].update(models=["sce", "pairs"])),
     "white_box.models are of digit-pairs and digits"),
    (lambda s: (s["training"].update(flat=s["training"]["digits"] | {"feature_dim": 2}),
                s["models"].update(flat={"training": "flat", "loss": "sce"}), s.update(plane={"model": "flat", "features": 9})),
     "Figure 3b shows nearest centers"),
])
def test_a_profile_that_could_only_fail_late_is_refused(load, change, says):
    with pytest.raises(ValueError) as refused:
        load(change)
    assert all(part in str(refused.value) for part in says.split(" and "))


def test_a_profile_without_a_curve_draws_none(load):
    with pytest.raises(exhibit.NotPlanned, match="no curve_epsilons"):
        white_box.curve(load(lambda s: s["white_box"].pop("curve_epsilons")))


def test_weights_that_are_nowhere_are_missed_before_the_first_job(load):
    profile = load()
    todo = [job for job in jobs.plan(profile) if job.name == "white box"]
    assert preflight.checkpoint_faults(profile, todo) == []  # to be trained first
    path = experiment.model_receipt_path(profile, "sce")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    (fault,) = preflight.checkpoint_faults(profile, todo)
    assert "the weights of 'sce' are needed" in fault and "MMC_CHECKPOINTS" in fault and str(path) in fault
    file = experiment.checkpoint_folder(profile, "sce") / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    assert preflight.checkpoint_faults(profile, todo) == []
    cpu = experiment.load_profile("cpu")  # released: made again of that
    assert preflight.checkpoint_faults(cpu, [job for job in jobs.plan(cpu) if job.name == "verdict: sce"]) == []


def test_a_receipts_commit_is_that_of_the_code_that_ran(monkeypatch):
    origin._commit.cache_clear()
    before = origin._commit()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked again"))
    made = origin.provenance(experiment.load_profile("demo"), 1.0)
    assert {key: made[key] for key in before} == before


def test_two_tables_of_classes_agree():
    assert profiles.CLASSES == NUM_CLASSES


def test_a_training_step_is_timed_at_the_training_batch():
    for name in ("demo", "quick", "cpu", "paper"):
        profile = experiment.load_profile(name)
        spec = ladder.step_time(profile, "mmc-10", "sce")
        assert spec.settings["batch_size"] == trained.recipe(profile, "mmc-10").batch_size


def test_a_digits_table_shows_no_number_of_the_papers(monkeypatch):
    demo = experiment.load_profile("demo")
    monkeypatch.setattr(white_box, "evaluation", lambda *_: {"accuracy": 0.5, "interval": [0.4, 0.6]})
    monkeypatch.setattr(white_box, "difference", lambda *_: (0.0, 0.0, 0.0))
    monkeypatch.setattr(white_box, "correct", lambda *_: np.ones(4, bool))
    monkeypatch.setattr(white_box, "clean_of_all", lambda *_: {"all": {"accuracy": 50.0, "low": 40.0, "high": 60.0}})
    item = white_box.table_1(demo)
    assert not item.beside_the_paper and item.values["paper"].isna().all()
    values = white_box.table_1(experiment.load_profile("quick")).values.set_index("column")
    assert values.loc["all", "paper"].notna().any() and values.loc["clean", "paper"].isna().all(), "the paper's is of all test images"


def test_a_gradient_in_parts_is_the_gradient(mmc):
    images, labels = data.load("digits", "test")
    images = images.float() / 255
    parts = torch.arange(500).split(250)
    whole = torch.cat([probes._objective_gradient(mmc, images[part], labels[part], "untargeted_2")[1] for part in parts])
    assert torch.equal(probes._objective_gradient(mmc, images.repeat(2, 1, 1, 1), labels.repeat(2), "untargeted_2")[1][:500], whole)
    assert cluster.EXECUTORS[0] == "local"
