"""Jobs in plain Python, in slices of time that stop by themselves: one after another in this process, or side by side in several."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from artifact import jobs, processes
from artifact.experiment import ROOT, Profile, TimeBudgetEnded

LEAST = 1.0  # seconds of a slice: a job that has begun does something


def by_worth(planned: list[jobs.Job]) -> list[jobs.Job]:
    """The jobs, each model's evaluations as soon as what they need is trained: every slice of a long record ends with numbers."""
    rank: dict[Path, int] = {}
    for number, job in enumerate(planned):
        training = job.name.startswith("train ")
        rank[job.receipt] = number if training else max((rank[need] for need in job.needs), default=-1)
    return sorted(planned, key=lambda job: rank[job.receipt])  # stable: among equals the plan's order, which puts needs first


def in_turn(profile: Profile, todo: list[jobs.Job], ends: float | None) -> None:
    """Run the jobs in this process until `ends` (of time.monotonic), in which case the one under way keeps its state."""
    for job in todo:
        if ends and time.monotonic() > ends:
            return
        try:
            if not job.name.startswith("train "):
                with _alarm(job, ends):
                    jobs.run_timed(profile, job, jobs.run_plain)
                continue
            if ends:  # a training stops itself, between two batches
                job.parameters["time_budget"] = max(LEAST, ends - time.monotonic())
            jobs.run_timed(profile, job, jobs.run_plain)
        except TimeBudgetEnded as ended:
            print(ended)
            return


@contextmanager
def _alarm(job: jobs.Job, ends: float | None):
    # An evaluation may be broken off anywhere: its finished batches and receipts are on disk, whole.
    def stop(*_):
        raise TimeBudgetEnded(f"{job.name} stopped; the batches that it finished are saved")

    if ends is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(LEAST, ends - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def side_by_side(profile: Profile, todo: list[jobs.Job], ends: float | None, parallel: int) -> list[str]:
    """Run the jobs `parallel` at a time, each in a process of its own; return the names of those that failed.

    For a device that one small network leaves idle. What a job prints goes to logs/<profile>/<job>.txt.
    """
    waiting, running, failed = list(todo), {}, []
    try:
        while waiting or running:
            if ends and time.monotonic() > ends:
                waiting.clear()  # those under way end by themselves
            ready = [job for job in waiting if all(need.exists() for need in job.needs)]
            for job in ready[:parallel - len(running)]:
                waiting.remove(job)
                running[_start(profile, job, ends)] = job
                print(f"{job.name} ...", flush=True)
            if not running:
                break  # what is left needs a job that failed or was not asked for
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                if process.returncode:
                    failed.append(job.name)
                print(f"{job.name}: {_ending(profile, job, process.returncode)}", flush=True)
            time.sleep(0.2)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(processes.SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
    return failed


def _log(profile, job) -> Path:
    return jobs.log_path(profile, job).with_suffix(".txt")


def _start(profile, job, ends) -> subprocess.Popen:
    command = [sys.executable, "-m", "artifact", "run", "--profile", profile.source, "--only", job.name]
    if ends:
        command += ["--time-budget", str(max(LEAST, ends - time.monotonic()))]
    log = _log(profile, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        return processes.start(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def _ending(profile, job, code) -> str:
    if job.done():
        return "done"
    if not code:
        return "stopped by the time budget, its state is saved"
    log = _log(profile, job)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed ({os.path.relpath(log, ROOT)}): {said[-1] if said else f'exit status {code}'}"
