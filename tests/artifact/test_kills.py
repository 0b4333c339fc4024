"""Nothing finished is lost: Snakemake killed beside a receipt, file times in the future, a command ended with its whole tree."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from artifact import __main__ as command_line
from artifact import commands, experiment, jobs, kernel, processes, runners
from tests.artifact.tiny import TINY, told


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))
    path = tmp_path / "tiny's $(touch here) profile.yaml"
    path.write_text(TINY.replace("train_on_the_spot: true", "train_on_the_spot: false"))
    return experiment.load_profile(str(path))


def wait_for(what, seconds=300):
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.02)


def test_a_process_that_has_ended_does_not_live_though_nobody_has_asked_how():
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: not processes.lives(child.pid))  # a zombie until it is waited for: a container's first process may never do that
    os.kill(child.pid, 0)
    assert child.wait() == 0 and not processes.lives(child.pid) and processes.lives(os.getpid()) and processes.lives(1)


def mentions(text):
    """The processes whose environment holds a text."""
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdigit() and int(folder) != os.getpid():
            try:
                with open(f"/proc/{folder}/environ", "rb") as file:
                    if text.encode() in file.read():
                        found.append(int(folder))
            except OSError:
                continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_receipt_outlives_a_killed_snakemake_and_the_whole_tree_ends(tiny, tmp_path):
    job = jobs.find(tiny, "train sce")
    command = commands.snakemake(tiny, [job], 1, (job.receipt,))
    program = [sys.executable, "-c", "import sys; from artifact import processes; sys.exit(processes.run(sys.argv[1:]))", *command]
    running = subprocess.Popen(program, cwd=experiment.ROOT)
    wait_for(job.receipt.exists)
    running.kill()  # the parent alone, in the seconds between the receipt and the job's end
    running.wait()
    made = job.receipt.read_bytes(), job.receipt.stat().st_mtime_ns
    wait_for(lambda: not mentions(str(tmp_path)), 20)
    os.utime(job.receipt, (4_070_908_800, 4_070_908_800))  # 2099: a clock set back, an archive
    assert not job.done()  # its notebook has not said yet what it claims
    subprocess.run(commands.snakemake(tiny, [job], 1, (job.receipt,)), cwd=experiment.ROOT, check=False)
    assert job.done() and job.receipt.read_bytes() == made[0]
    assert not (experiment.ROOT / "here").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a process ends with its parent on Linux alone")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_their_parent(tmp_path, number):
    inner = f"import time, os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = f"""
import sys
from artifact import processes
try:
    with processes.stoppable():
        processes.run([sys.executable, "-c", {inner!r}])
except processes.Stopped as stopped:
    sys.exit(128 + stopped.number)
"""
    running = subprocess.Popen([sys.executable, "-c", outer], cwd=experiment.ROOT, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    running.send_signal(number)
    assert running.wait() == (-9 if number == signal.SIGKILL else 143)

    def gone():
        try:
            os.kill(child, 0)
            return open(f"/proc/{child}/stat").read().split()[2] == "Z"
        except OSError:
            return True
    wait_for(gone, 10)


def test_the_kernel_is_the_interpreter_that_runs_the_job(tiny, tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert kernel.manager()(kernel_name="python3").kernel_spec.argv[:3] == [sys.executable, "-m", "artifact.kernel"]


def test_a_killed_kernel_is_named_with_the_remedy(tiny, tmp_path, monkeypatch):
    parameters = {"cell_type": "code", "execution_count": None, "id": "p", "metadata": {"tags": ["parameters"]}, "outputs": [],
                  "source": "profile = 'demo'"}
    dies = parameters | {"id": "d", "metadata": {}, "source": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "dies.ipynb").write_text(json.dumps(
        {"cells": [parameters, dies], "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}))
    monkeypatch.setattr(runners, "ROOT", tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    left = tmp_path / f"mmc-kernel-{os.getuid()}-4194305.json"  # of a number that no process of Linux has
    left.touch()
    says = "^the job: the kernel of dies.ipynb was killed; where the memory ran out, .*logs/tiny.*/the-job.ipynb"
    with pytest.raises(RuntimeError, match=says):
        runners.run_notebook(tiny, jobs.Job("the job", "dies", {"profile": "x"}, (tmp_path / "never.json",)))
    assert not left.exists() and not list(tmp_path.glob("mmc-kernel-*"))


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    from artifact.compute import locks
    from mmclib import checkpoints
    receipt = tmp_path / "pgd-0123456789ab.json"
    for name in (f".{receipt.name}.77", ".pgd-0123456789ab.partial.77", ".pgd-another.json.77"):
        (tmp_path / name).touch()
    with locks.only_one(receipt):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".pgd-0123456789ab.lock", ".pgd-another.json.77"]
    states = tmp_path / "states"
    states.mkdir()
    for name in (f"state-000000001-{'0' * 16}.safetensors", f"state-000000002-{'0' * 16}.damaged", ".model.safetensors.77",
                 f".state-000000003-{'0' * 16}.safetensors.77", "model.safetensors"):
        (states / name).touch()
    checkpoints.remove_states(states)
    assert [path.name for path in states.iterdir()] == ["model.safetensors"]


def test_marks_of_killed_jobs_are_swept_but_for_those_on_a_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    marks = tmp_path / ".snakemake" / "incomplete"
    (marks / "@long").mkdir(parents=True)
    for name, number in (("here", None), ("@long/here", None), ("there", "4711")):
        (marks / name).write_text(json.dumps({"external_jobid": number}))
    (marks / "half").write_text("{")
    commands.sweep()
    assert sorted(path.name for path in marks.rglob("*") if path.is_file()) == ["half", "there"]


def test_what_snakemake_refuses_is_said_with_its_reason(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands.preflight, "check", lambda *_, **__: None)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "file"))
    assert command_line.main(["reproduce", "--profile", tiny.source]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Snakemake ran nothing: NotADirectoryError: ") and said.count("\n") == 1
    assert str(tmp_path / "file") in said
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "{a}"))
    assert command_line.main(["reproduce", "--profile", tiny.source]) == 1
    said = capsys.readouterr().err
    assert "Snakemake takes braces for wildcards; name another folder (MMC_RESULTS)" in said and said.count("\n") == 1


def test_a_killed_training_goes_on_to_the_same_receipt(tiny):
    # A state after every batch, each waiting to be looked at, so that the kill falls into the middle.
    program = (f"from artifact import experiment; from artifact.compute import trained; from mmclib.training import trainer;"
               f"trainer.CHECKPOINT_SECONDS = 0.0; trained.train(experiment.load_profile({tiny.source!r}), 'mmc-10', progress=False)")
    folder, receipt = experiment.checkpoint_folder(tiny, "mmc-10"), experiment.model_receipt_path(tiny, "mmc-10")
    kills = 0
    while not receipt.exists():
        before = {path.name for path in folder.glob("state-*")}
        running = subprocess.Popen([sys.executable, "-c", program])
        wait_for(lambda running=running, before=before:
                 running.poll() is not None or len({path.name for path in folder.glob("state-*")} - before) >= 2)
        if kills < 2:
            assert running.poll() is None and not receipt.exists()
            running.kill()
            kills += 1
        running.wait()
    interrupted = told(experiment.read_receipt(receipt))
    receipt.unlink()
    subprocess.run(["rm", "-r", str(folder)], check=True)
    from artifact.compute import trained
    assert told(trained.train(tiny, "mmc-10", progress=False).receipt) == interrupted
