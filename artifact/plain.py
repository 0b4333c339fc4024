"""The jobs without Snakemake: one after another in this process, or side by side in several that share a device."""

import os
import subprocess
import sys
import time

from artifact import jobs, processes, runners
from artifact.experiment import ROOT, Profile


def in_turn(profile: Profile, todo: list[jobs.Job]) -> None:
    """Run the jobs in this process, but for those that need what is not made and was not asked for."""
    for job in todo:
        if all(need.exists() for need in job.needs):
            runners.run_timed(profile, job, runners.run_plain)


def side_by_side(profile: Profile, todo: list[jobs.Job], parallel: int) -> list[str]:
    """Run the jobs `parallel` at a time, each in a process of its own that ends with this one; return the names of those that failed.

    For a device that one small network leaves idle. What a job prints goes to logs/<profile>/<job>.txt.
    """
    waiting, running, failed, spoilt = list(todo), {}, [], set()
    try:
        while waiting or running:
            # What is there may be about to be made again, and a job that failed leaves what was there before.
            open_needs = spoilt | {job.receipt for job in (*waiting, *running.values())}
            ready = [job for job in waiting if all(need.exists() and need not in open_needs for need in job.needs)]
            for job in ready[:parallel - len(running)]:
                waiting.remove(job)
                running[_start(profile, job)] = job
                print(f"{jobs.brief(job.name)} ...", flush=True)
            if not running:
                break  # what is left needs a job that failed or was not asked for
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                if process.returncode or not job.done():
                    failed.append(jobs.brief(job.name))
                    spoilt.add(job.receipt)
                print(f"{jobs.brief(job.name)}: {_ending(profile, job, process.returncode)}", flush=True)
            time.sleep(0.2)
    finally:
        with processes.stop_flag():  # whatever else comes waits for this
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(processes.SECONDS_TO_STOP)
                except subprocess.TimeoutExpired:
                    process.kill()
    return failed


def _log(profile, job):
    return runners.log_path(profile, job).with_suffix(".txt")


def _start(profile, job) -> subprocess.Popen:
    log = _log(profile, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        return processes.start([sys.executable, "-m", "artifact", "run", "--profile", profile.source, "--only", job.name,
                                "--redo"], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def _ending(profile, job, code) -> str:
    if code == 0 and job.done():
        return "done"
    log = _log(profile, job)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed ({os.path.relpath(log, ROOT)}): {said[-1] if said else f'exit status {code}'}"
