"""What a job asks a cluster for, the GPUs of one machine, and the simulation of more nodes. A real SLURM: test_slurm.py."""

import os
import re
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from artifact import __main__ as command_line
from artifact import cluster, commands, experiment, jobs, scaling
from artifact.experiment import ROOT
from tests.artifact.tiny import TINY

TAKE = """
import os, sys, time
from artifact import cluster
held = cluster.take_gpu()
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return experiment.load_profile(str(path))


def test_what_a_job_asks_for_is_the_profiles_and_no_identity_depends_on_it(tiny, tmp_path):
    job = jobs.find(tiny, "theory")
    assert cluster.resources(tiny, job) == {"gpu": 0, "mem_mb": 4096, "runtime": 30}
    path = Path(tiny.source)
    path.write_text(TINY + "cluster: {memory_gb: 1.5, hours: 0.25, partition: gpu, account: lab-7}\ndevice: cuda\n")
    asking = experiment.load_profile(str(path))
    assert cluster.resources(asking, job) == {
        "gpu": 1, "mem_mb": 1536, "runtime": 15, "slurm_partition": "gpu", "slurm_account": "lab-7"}
    assert [job.receipt for job in jobs.plan(asking)] == [job.receipt for job in jobs.plan(tiny)]
    long = replace(job, seconds=5 * 3600)
    assert cluster.resources(tiny, long)["runtime"] == 15 * 60
    assert cluster.resources(tiny, replace(job, seconds=1e6))["runtime"] == 24 * 60
    path.write_text(TINY + "cluster: {partition: 'gpu; rm'}\n")
    with pytest.raises(ValueError, match="cluster.partition"):
        experiment.load_profile(str(path))


def test_snakemake_may_use_as_many_gpus_as_there_are(tiny, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    device = tiny.model_copy(update={"device": "cuda"})
    command = commands.snakemake(device, [], 8)
    assert command[command.index("--resources") + 1] == "gpu=4"
    cluster.name_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a1, GPU-b2")
    assert cluster.gpus() == ["GPU-a1", "GPU-b2"]


def test_two_jobs_never_take_the_same_gpu_and_a_third_waits_until_one_is_killed(tmp_path):
    def start(**variables):
        environment = {key: value for key, value in os.environ.items() if key not in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")}
        return subprocess.Popen([sys.executable, "-c", TAKE], cwd=experiment.ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                env=environment | {"TMPDIR": str(tmp_path)} | variables)

    started = [start(CUDA_VISIBLE_DEVICES="0,1"), start(CUDA_VISIBLE_DEVICES="0,1")]
    assert sorted(job.stdout.readline() for job in started) == ["0\n", "1\n"]
    third, chosen, unnamed = start(CUDA_VISIBLE_DEVICES="0,1"), start(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7"), start()
    assert chosen.stdout.readline() == "0\n"  # SLURM chose it, and numbers a job's devices from 0
    assert unnamed.stdout.readline() == "None\n"
    assert select.select([third.stdout], [], [], 2.0)[0] == [] and third.poll() is None  # it waits
    freed = started[0]
    freed.kill()
    freed.wait()
    assert third.stdout.readline() in ("0\n", "1\n")
    for job in (started[1], third, chosen, unnamed):
        job.communicate("")
        assert job.returncode == 0


def test_slurm_is_asked_for_only_where_it_can_be(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert command_line.main(["reproduce", "--profile", tiny.source, "--executor", "slurm"]) == 1
    assert re.search("needs Snakemake's plugin; install it with: .*pip install ", capsys.readouterr().err)
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)
    assert command_line.main(["reproduce", "--profile", tiny.source, "--executor", "slurm"]) == 1
    assert "needs sbatch, squeue, scontrol, sinfo, not found here" in capsys.readouterr().err
    for name in ("sbatch", "squeue", "scontrol", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho idle\n")
        (tmp_path / name).chmod(0o755)
    cluster.require_slurm(tiny)
    odd = tmp_path / "it's.yaml"
    odd.write_text(TINY)
    with pytest.raises(ValueError, match="paths; .* holds \"'\": rename it"):
        cluster.require_slurm(experiment.load_profile(str(odd)))


def test_slurm_submits_again_what_ran_out_of_time_or_was_preempted(tiny, monkeypatch):
    monkeypatch.setattr(cluster, "_has_accounting", lambda: False)
    command = commands.snakemake(tiny, [], 3, executor="slurm")
    for name, value in (("--executor", "slurm"), ("--jobs", "3"), ("--retries", "5"), ("--slurm-status-command", "squeue")):
        assert command[command.index(name) + 1] == value
    assert "--slurm-requeue" in command and "--cores" not in command


def _job(name, seconds, *needs):
    return jobs.Job(name, "n", {}, (Path(name),), tuple(map(Path, needs)), seconds)


def test_the_simulation_by_hand():
    planned = [_job("train a", 10), _job("train b", 4), _job("white box: a", 2, "train a"), _job("white box: b", 3, "train b"),
               _job("report", 1, "white box: a", "white box: b")]
    seconds = {job.receipt: job.seconds for job in planned}
    assert scaling.critical_path(planned, seconds) == (13, ["train a", "white box: a", "report"])
    assert scaling.simulate(planned, seconds, 1) == (20, 1)
    assert scaling.simulate(planned, seconds, 2) == (13, 2)
    assert scaling.simulate(planned, seconds, 64) == (13, 2)
    assert scaling.simulate(planned[2:], seconds, 1) == (6, 1)  # what is there already is waited for by nobody


@pytest.mark.parametrize("name", ["cpu", "paper"])
def test_no_number_of_nodes_beats_the_bounds(name):
    profile = experiment.load_profile(name)
    planned = jobs.plan(profile)
    seconds, _ = scaling.durations(planned)
    total, (longest, _) = sum(seconds.values()), scaling.critical_path(planned, seconds)
    walls = [scaling.simulate(planned, seconds, nodes)[0] for nodes in (1, 2, 8, 64, 1000)]
    assert walls[0] == pytest.approx(total) and walls[-1] == pytest.approx(longest)
    for nodes, wall in zip((1, 2, 8, 64, 1000), walls, strict=True):  # Graham's bound for any order of a list
        assert max(longest, total / nodes) - 1e-6 <= wall <= total / nodes + longest + 1e-6


def test_durations_by_hand(tmp_path, monkeypatch):
    train, old, new = tmp_path / "models" / "a.json", tmp_path / "old.json", tmp_path / "new.json"
    receipts = {old: {"provenance": {"seconds": 30}}}
    old.touch()
    monkeypatch.setattr(scaling, "read_receipt", receipts.get)
    monkeypatch.setattr(jobs, "SECONDS_TO_START", 2)
    planned = [replace(_job("train a", 9), makes={train: 7.0}), replace(_job("both", 7), makes={old: 10.0, new: 5.0}),
               replace(_job("one", 12), makes={old: 10.0}), replace(_job("gathers", 2), makes={old: 0.0, new: 0.0})]
    seconds, measured = scaling.durations(planned)
    # Evaluations take three times their rate; no training says what trainings take; work is done by the first job that has it.
    assert list(seconds.values()) == [9, 2 + 30 + 15, 12, 2] and measured == set()
    new.touch()
    receipts[new] = {"provenance": {"seconds": 6}}
    seconds, measured = scaling.durations(planned)
    assert list(seconds.values()) == [9, 2 + 30 + 6, 12, 2] and measured == {Path("both")}
    gathers = replace(planned[-1], outputs=(tmp_path / "gathers.json",))  # done, and a start alone, since others made what it shows
    gathers.receipt.touch()
    seconds, measured = scaling.durations([*planned[:-1], gathers])
    assert seconds[gathers.receipt] == 2 and measured == {Path("both"), gathers.receipt}
    new.unlink()
    assert gathers.receipt not in scaling.durations([*planned[:-1], gathers])[1]


def test_the_measured_point_by_hand(tmp_path, monkeypatch):
    made = {"a": (0, 100), "b": (0, 60), "c": (62, 120), "d": (500, 540)}  # c after b in one process, d hours later
    paths = {}
    for name, (start, end) in made.items():
        path, finished = tmp_path / f"{name}.json", f"2026-01-01T00:{end // 60:02}:{end % 60:02}Z"
        path.touch()
        paths[path] = {"provenance": {"seconds": end - start, "finished": finished}}
    monkeypatch.setattr(scaling, "read_receipt", paths.get)
    monkeypatch.setattr(jobs, "SECONDS_TO_START", 2)
    planned = [replace(_job(name, 1), makes={tmp_path / f"{name}.json": 1.0}) for name in made]
    point = scaling.observed(planned)
    assert (point.receipts, point.at_once) == (4, 2)
    assert point.ran == pytest.approx(160, abs=8) and point.fewer == pytest.approx(60, abs=8)
    assert point.simulated == scaling.simulate(planned, {job.receipt: 2 + made[job.name][1] - made[job.name][0] for job in planned}, 2)[0]
    assert scaling.observed([_job("e", 1)]) is None


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


def test_both_sides_of_the_measured_point_take_the_last_process_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.touch()
    made = {"provenance": {"seconds": 100, "finished": "2026-01-01T00:10:00Z"}, "results": {"seconds": 500}}  # 400 before a kill
    monkeypatch.setattr(scaling, "read_receipt", lambda _: made)
    monkeypatch.setattr(jobs, "SECONDS_TO_START", 2)
    point = scaling.observed([jobs.Job("a", "n", {}, (path,), makes={path: 1.0})])
    assert point.simulated == 102 and point.ran == pytest.approx(100, abs=4)
