"""Jobs without Snakemake: their order, side by side in processes, stopped by the clock or a signal, and what a failure leaves."""

import signal
import sys
import time

import pytest

from artifact import __main__ as command_line
from artifact import commands, experiment, jobs, plain, processes, runners
from artifact.compute import trained
from tests.artifact.tiny import TINY, told


@pytest.fixture()
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMC_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MMC_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setattr(runners, "log_path", lambda profile, job: tmp_path / f"{job.name}.ipynb")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("train_on_the_spot: true", "train_on_the_spot: false"))
    return experiment.load_profile(str(path))


def outcomes(profile):
    """What every receipt of the profile holds, without how long it took."""
    receipts = {path.name: told(experiment.read_receipt(path)) for path in experiment.results_folder(profile).rglob("*.json")}
    return {name: {key: value for key, value in receipt["results"].items() if key != "seconds"} for name, receipt in receipts.items()}


@pytest.mark.parametrize("name", ["demo", "quick", "paper"])
def test_what_a_job_needs_comes_before_it_and_evaluations_follow_their_training(name):
    ordered = jobs.plan(experiment.load_profile(name))
    assert (ordered[0].name, ordered[-1].name) == ("theory", "report")
    place = {job.receipt: number for number, job in enumerate(ordered)}
    assert all(place[need] < place[job.receipt] for job in ordered for need in job.needs)
    for before, job in zip(ordered, ordered[1:], strict=False):  # a training starts only when nothing made possible waits
        if job.name.startswith("train "):
            made = {earlier.receipt for earlier in ordered[:place[job.receipt]]}
            assert not [late.name for late in ordered[place[job.receipt]:] if late.needs and set(late.needs) <= made], before.name


def test_side_by_side_makes_the_receipts_of_one_after_another(tiny, capsys):
    todo = [job for job in jobs.plan(tiny) if job.name.startswith(("train", "white box"))]
    assert [job.name for job in todo] == ["train sce", "train mmc-10", "white box"]
    assert plain.side_by_side(tiny, todo, parallel=2) == []
    assert all(job.done() for job in todo) and "white box: done" in capsys.readouterr().out
    parallel = outcomes(tiny)
    assert sum("correct" in result for result in parallel.values()) > 20
    for path in experiment.results_folder(tiny).rglob("*.json"):
        path.unlink()
    plain.in_turn(tiny, todo)
    assert outcomes(tiny) == parallel


def test_a_failed_job_is_named_with_its_reason_and_what_needs_it_waits(tiny, capsys, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # where it is set, a log's lines cannot change places
    for model in ("sce", "mmc-10"):
        trained.train(tiny, model, progress=False)
    (experiment.checkpoint_folder(tiny, "mmc-10") / "model.safetensors").unlink()
    todo = [job for job in jobs.plan(tiny) if job.name.startswith("white box")] + [jobs.find(tiny, "report")]
    failed = plain.side_by_side(tiny, todo, parallel=2)
    said = capsys.readouterr().out
    assert failed == ["white box"], said
    assert "failed" in said and "the weights of 'mmc-10' are needed" in said and "delete" in said
    assert not jobs.find(tiny, "report").done()


@pytest.mark.parametrize("asked", ["white box", "train mmc-10"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_the_clock_stops_a_job_and_starts_no_further_one(tiny, monkeypatch, capsys, asked, parallel):
    started = []

    def slow(profile, job):
        started.append(job.name)
        time.sleep(30)

    sleeper = [sys.executable, "-c", "import time; time.sleep(30)"]
    monkeypatch.setattr(runners, "run_plain", slow)
    monkeypatch.setattr(plain, "_start", lambda profile, job: started.append(job.name) or processes.start(sleeper))
    monkeypatch.setattr(commands.preflight, "check", lambda *_, **__: None)
    began = time.monotonic()
    arguments = ["run", "--profile", tiny.source, "--only", asked, "--time-budget", "0.5", "--jobs", str(parallel)]
    for model in ("sce", "mmc-10"):
        (path := experiment.model_receipt_path(tiny, model)).parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # what a job needs is there; nobody reads it here
    monkeypatch.setattr(jobs, "to_do", lambda planned: planned)
    monkeypatch.setattr(jobs.Job, "done", lambda self: False)
    assert command_line.main(arguments) == 0
    assert started == [asked] and time.monotonic() - began < 20
    assert f"the time budget ended with 1 jobs to do, the next one is {asked!r}" in capsys.readouterr().out


def test_one_request_to_stop_may_come_twice_and_a_second_one_does_not_wait(monkeypatch):
    with pytest.raises(processes.Stopped) as stopped, processes.stoppable():
        with processes.stop_flag() as stop:
            assert not stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            assert stop()
    assert stopped.value.number == signal.SIGTERM
    monkeypatch.setattr(processes, "SECONDS_OF_ONE_REQUEST", 0.0)
    reached = []
    with pytest.raises(KeyboardInterrupt), processes.stop_flag():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1]


def test_a_clock_that_nobody_heard_rings_again(monkeypatch):
    class Deaf:
        def __del__(self):
            time.sleep(0.1)  # what is raised in here is dropped

    monkeypatch.setattr(processes, "SECONDS_TO_REPEAT", 0.2)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with pytest.raises(processes.Stopped), processes.stoppable(0.05):
        deaf = Deaf()
        del deaf
        time.sleep(10)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.stoppable(), processes.stop_flag() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
