"""How long jobs take: a profile's rates, the pace of this machine, the order that keeps its cores busy, and how a person says it."""

from pathlib import Path

from artifact import jobs, receipts
from artifact.experiment import Profile, read_receipt
from artifact.jobs import Job


def rated(planned: list[Job]) -> dict[Path, float]:
    """The seconds that each model and evaluation should take by the profile's rates, by receipt; a job that only gathers says zero."""
    seconds: dict[Path, float] = {}
    for job in planned:
        for path, should in job.makes.items():
            seconds[path] = max(seconds.get(path, 0.0), should)
    return seconds


def at_pace(seconds: dict[Path, float], took: dict[Path, float]) -> dict[Path, float]:
    """What was not made yet (is not in `took`), its rated seconds times what trainings (evaluations) took over theirs: a rate is one
    machine's."""
    scaled = {}
    for trainings in (True, False):
        mine = {path: should for path, should in seconds.items() if (path.parent.name == "models") == trainings}
        made = [path for path in mine if path in took]
        guessed = sum(mine[path] for path in made)
        pace = sum(took[path] for path in made) / guessed if guessed else 1.0
        scaled |= {path: should * pace for path, should in mine.items() if path not in took}
    return scaled


def left(profile: Profile) -> tuple[int, float]:
    """How many models and evaluations have no receipt yet, and the seconds of one core (CUDA: of the device) that they take."""
    planned = jobs.plan(profile)
    missing, seconds = {path for job in planned for path in job.missing()}, rated(planned)
    waiting = at_pace(seconds, {path: core_seconds(profile, read_receipt(path)) for path in seconds if path not in missing})
    return len(waiting), sum(waiting.values())


def core_seconds(profile: Profile, receipt: dict) -> float:
    """What a receipt took, in seconds of one core, or of the device where the profile's is not the CPU."""
    return receipts.seconds(receipt) * (receipt["provenance"]["threads"] if profile.device == "cpu" else 1)


def urgency(planned: list[Job]) -> dict[Path, float]:
    """By receipt, the seconds from a job's start to the end of all that waits for it: to begin with the largest keeps cores busy."""
    after = {job.receipt: 0.0 for job in planned}
    urgent = {}
    for job in reversed(planned):
        urgent[job.receipt] = job.seconds + after[job.receipt]
        for need in job.needs:
            after[need] = max(after[need], urgent[job.receipt])
    return urgent


def describe(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(jobs: list[Job], parallel: int) -> float:
    """Seconds that the jobs take at most on `parallel` workers, by the profile's own rates: the work divided, or the longest chain."""
    by_receipt, ends = {job.receipt: job for job in jobs}, {}
    for job in jobs:  # in order of need
        ends[job.receipt] = job.seconds + max((ends[need] for need in job.needs if need in by_receipt), default=0)
    return max(sum(job.seconds for job in jobs) / max(parallel, 1), max(ends.values(), default=0))
