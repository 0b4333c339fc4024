"""Before the first job: every way of running says what is missing in one list of sentences, and starts nothing."""

import os
from collections import namedtuple

import pytest

from artifact import __main__ as command_line
from artifact import commands, estimates, experiment, jobs, machine, plain, preflight, processes
from mmclib import data
from tests.artifact.tiny import TINY

WAYS = {"reproduce": ["reproduce"], "run": ["run"], "run side by side": ["run", "--jobs", "2"]}


@pytest.fixture(autouse=True)
def nothing_starts(tmp_path, monkeypatch):
    """Folders of its own, no device, and a list of what was started instead of starting it."""
    for variable in ("MMC_RESULTS", "MMC_CHECKPOINTS", "MMC_DATA"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(preflight, "cuda_device", lambda: None)
    started = []
    monkeypatch.setattr(processes, "run", lambda command, **_: started.append("snakemake") or 1)
    monkeypatch.setattr(plain, "in_turn", lambda *_: started.append("in turn"))
    monkeypatch.setattr(plain, "side_by_side", lambda *_: started.append("side by side") or [])
    return started


@pytest.fixture()
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return experiment.load_profile(str(path))


def said(capsys, *arguments):
    code = command_line.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("way", WAYS)
def test_without_the_device_no_job_starts(way, nothing_starts, monkeypatch, capsys):
    code, _, err = said(capsys, *WAYS[way], "--profile", "paper")
    assert code == 1 and err == "error: profile 'paper' needs a CUDA device and this machine has none; PROFILE=demo runs anywhere\n"
    assert not nothing_starts


@pytest.mark.parametrize("way", WAYS)
def test_a_profile_that_is_not_valid_starts_no_job(way, tmp_path, nothing_starts, capsys):
    (tmp_path / "wrong.yaml").write_text(TINY.replace("epochs: 4", "epochs: some"))
    code, _, err = said(capsys, *WAYS[way], "--profile", str(tmp_path / "wrong.yaml"))
    assert code == 1 and "training.digits.epochs" in err and "Traceback" not in err and not nothing_starts


def test_device_and_disk_are_said_at_once_and_nothing_is_fetched(monkeypatch):
    paper = experiment.load_profile("paper")
    monkeypatch.setattr(data, "download", lambda name: pytest.fail("fetched although the rest is not there"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "free")(2**20))
    with pytest.raises(ValueError) as error:
        preflight.check(paper, jobs.plan(paper))
    sentences = str(error.value).splitlines()
    assert len(sentences) == 2 and "needs a CUDA device" in sentences[0] and "MiB are free" in sentences[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_data_set_is_fetched_before_the_first_job(way, tmp_path, nothing_starts, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(data, "download", lambda name: fetched.append((name, list(nothing_starts))) or str(tmp_path))
    monkeypatch.setattr(commands, "summarise", lambda profile: None)
    (tmp_path / "real.yaml").write_text(TINY.replace("dataset: digits", "dataset: mnist"))
    code, out, _ = said(capsys, *WAYS[way], "--profile", str(tmp_path / "real.yaml"))
    assert fetched == [("mnist", [])] and len(nothing_starts) == 1 and "mnist is missing: fetching it" in out


def test_a_data_set_that_cannot_be_fetched_is_a_sentence_and_no_job(tmp_path, nothing_starts, monkeypatch, capsys):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(data, "_dataset_class", lambda name: offline)
    monkeypatch.setattr(preflight, "data_faults", lambda names: (names, []))
    (tmp_path / "real.yaml").write_text(TINY.replace("dataset: digits", "dataset: cifar10"))
    code, _, err = said(capsys, "run", "--profile", str(tmp_path / "real.yaml"))
    assert code == 1 and "cifar10 could not be downloaded (no route to host)" in err and "MMC_DATA" in err and not nothing_starts


def test_missing_and_damaged_data_sets_are_told_apart(tmp_path, monkeypatch):
    def load(name, split):
        raise {"mnist": FileNotFoundError("mnist is not there"), "cifar10": ValueError("cifar10 is damaged")}[name]

    monkeypatch.setattr(data, "load", load)
    assert preflight.data_faults(["mnist", "cifar10"]) == (["mnist"], ["cifar10 is damaged"])


def test_only_the_data_sets_that_the_jobs_use_are_asked_for():
    paper = experiment.load_profile("paper")
    assert preflight.data_sets(paper, jobs.plan(paper)) == ["cifar10", "cifar100", "mnist"]
    assert preflight.data_sets(paper, [jobs.find(paper, "train cifar100-sce")]) == ["cifar100"]
    assert preflight.data_sets(paper, [jobs.find(paper, "theory"), jobs.find(paper, "report")]) == []
    verdict = [job for job in jobs.plan(paper) if job.name.startswith("verdict")]
    assert preflight.data_sets(paper, verdict) == ["cifar10"]
    demo = experiment.load_profile("demo")
    assert preflight.data_sets(demo, jobs.plan(demo)) == []


def test_disks_are_asked_for_what_the_jobs_write(tiny, tmp_path, monkeypatch):
    todo = jobs.plan(tiny)
    assert preflight.disk_faults(tiny, todo) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("usage", "free")(2 * 2**20))
    full, = preflight.disk_faults(tiny, todo)
    assert full.startswith("2 MiB are free where") and f"the {len(todo)} jobs to do write about" in full and "MMC_CHECKPOINTS" in full
    (tmp_path / "MMC_RESULTS").write_text("a file where a folder should be")
    blocked = preflight.disk_faults(tiny, todo)
    assert any(sentence.endswith("let MMC_RESULTS name a folder that can") and "cannot be written to" in sentence for sentence in blocked)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tiny, tmp_path):
    tmp_path.joinpath("MMC_RESULTS").mkdir(mode=0o500)
    assert any("MMC_RESULTS" in sentence for sentence in preflight.disk_faults(tiny, jobs.plan(tiny)))


def test_with_a_device_and_no_profile_named_the_larger_one_is_told_and_the_demo_taken(monkeypatch):
    profile, why = commands.choose_profile(None)
    assert profile.name == "demo" and "needs a CUDA device, which this machine lacks" in why
    monkeypatch.setattr(preflight, "may_have_a_device", lambda: True)
    monkeypatch.setattr(preflight, "cuda_device", lambda: "NVIDIA H100")
    monkeypatch.setattr(machine, "workers", lambda profile: 1)
    profile, why = commands.choose_profile(None)
    paper = experiment.load_profile("paper")
    hours = estimates.estimate(jobs.plan(paper), 1) / 3600
    assert profile.name == "demo"
    assert f"PROFILE=paper, the whole paper, takes about {hours:.1f} h on this machine's NVIDIA H100" in why
    assert commands.choose_profile("paper")[0].name == "paper"
