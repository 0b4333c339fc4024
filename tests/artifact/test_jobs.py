"""Jobs wait for what they use, are done when all they stand for is there, and keep out of each other's way."""

import threading
import time
from pathlib import Path

import pytest

from artifact import __main__ as command_line
from artifact import experiment, jobs, plain, receipts, rehearsal, runners
from artifact.compute import trained
from artifact.experiment import ROOT
from mmclib import zoo

RELEASED = pytest.mark.skipif("cpu-sce" not in zoo.released(), reason="cpu-sce is not released")


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


def written(path, results, kind="evaluation", **more):
    receipts.write_receipt(path, {"identity": path.stem.rsplit("-", 1)[-1], "kind": kind, "results": results, "provenance": {}} | more)


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
        written(path, {"code": ""}, "notebook")  # of no notebook that there is
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


def test_a_model_trained_alone_is_done_with_its_notebook(load):
    profile = experiment.load_profile("quick")
    job = next(job for job in jobs.plan(profile) if job.name == "train sce")
    assert [path.parent.name for path in job.outputs] == ["models", "notebooks"] and job.receipt.parent.name == "models"
    assert str(job.outputs[1]) == job.parameters["output"]


def test_each_job_has_a_log_of_its_own(load):
    profile = load(lambda settings: settings.update(models={"A": settings["models"]["sce"], "B": settings["models"]["mmc-10"]},
                                                    white_box=settings["white_box"] | {"models": ["A"], "convergence_models": []},
                                                    train_on_the_spot=False))
    logs = [runners.log_path(profile, job) for job in jobs.plan(profile)]
    assert len(set(logs)) == len(logs) and logs[1].name == "train-A.ipynb"


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
