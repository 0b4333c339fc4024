"""How long a profile takes on more nodes: a simulation over its jobs and their needs, with the seconds that receipts measured."""

import heapq
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from artifact import jobs
from artifact.experiment import Profile, read_receipt
from artifact.jobs import Job

NODES = (1, 8, 64)
CLOCK = 2.0  # seconds by which a receipt's clock may be off: it is kept to the second


def simulate(planned: list[Job], seconds: dict[Path, float], nodes: int) -> tuple[float, int]:
    """Wall time in seconds, and the most jobs at the same time, where each node runs one job and takes the most urgent that is ready.

    `planned` is in order of need, `seconds` by receipt; a need that is not planned is there already. Urgency is Snakemake's priority here.
    """
    known = {job.receipt for job in planned}
    planned = [replace(job, seconds=seconds[job.receipt], needs=tuple(need for need in job.needs if need in known)) for job in planned]
    urgent = jobs.urgency(planned)
    waits = {job.receipt: len(job.needs) for job in planned}
    after = {receipt: [job.receipt for job in planned if receipt in job.needs] for receipt in known}
    ready = [(-urgent[receipt], str(receipt), receipt) for receipt, open_needs in waits.items() if not open_needs]
    heapq.heapify(ready)
    running, now, widest = [], 0.0, 0
    while ready or running:
        while ready and len(running) < nodes:
            _, text, receipt = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[receipt], text, receipt))
        widest = max(widest, len(running))
        now, _, done = heapq.heappop(running)
        for receipt in after[done]:
            waits[receipt] -= 1
            if not waits[receipt]:
                heapq.heappush(ready, (-urgent[receipt], str(receipt), receipt))
    return now, widest


def critical_path(planned: list[Job], seconds: dict[Path, float]) -> tuple[float, list[str]]:
    """The longest chain of jobs that need each other, in seconds and by name: no number of nodes is faster."""
    by_receipt, ends, before = {job.receipt: job for job in planned}, {}, {}
    for job in planned:
        before[job.receipt] = max((need for need in job.needs if need in by_receipt), key=ends.get, default=None)
        ends[job.receipt] = seconds[job.receipt] + (ends[before[job.receipt]] if before[job.receipt] else 0.0)
    last = max(ends, key=ends.get)
    chain, at = [], last
    while at:
        chain.insert(0, by_receipt[at].name)
        at = before[at]
    return ends[last], chain


def durations(profile: Profile, planned: list[Job]) -> tuple[dict[Path, float], set[Path]]:
    """Seconds of each job by receipt, and which are measured: those whose models or evaluations all have receipts.

    The others take their estimate, times what the measured ones of their kind (training or not) took over their estimates.
    """
    work, claimed = {}, set()
    for job in planned:
        own = [path for path in job.makes if path not in claimed]  # a notebook that gathers its shards' work does none of it again
        claimed.update(own)
        work[job.receipt] = own if own or job.makes else [job.receipt]
    measured = {job.receipt: jobs.SECONDS_TO_START + sum(map(_seconds, work[job.receipt])) for job in planned
                if work[job.receipt] and all(path.exists() for path in work[job.receipt])}
    ratio = {}
    for kind in (True, False):
        known = [job for job in planned if job.receipt in measured and job.makes and job.name.startswith("train ") == kind]
        ratio[kind] = sum(measured[job.receipt] for job in known) / sum(job.seconds for job in known) if known else 1.0
    scaled = {job.receipt: job.seconds * ratio[job.name.startswith("train ")] for job in planned if job.makes and work[job.receipt]}
    return {job.receipt: job.seconds for job in planned} | scaled | measured, set(measured)


def _seconds(path: Path) -> float:
    # A training that was interrupted: of the last process, and of all its epochs.
    made = read_receipt(path)["provenance"]
    return max([made.get("seconds") or 0.0, *made.get("epoch_seconds", [])])


def observed(profile: Profile, planned: list[Job]) -> tuple[int, int, float, float] | None:
    """The measured point, from the clocks of trainings' and evaluations' receipts alone; None where there are none.

    Returns their number, the most that were under way at the same time, the seconds in which any was, and the seconds that the
    simulation gives for the same work on so many nodes. Hours in which nothing ran count for neither.
    """
    spans, seconds, claimed = [], {}, set()
    for job in planned:
        own = [path for path in job.makes if path.exists() and path not in claimed]
        claimed.update(own)
        for path in own:
            made = read_receipt(path)["provenance"]
            end = datetime.fromisoformat(made["finished"]).timestamp()
            spans.append((end - made["seconds"], end))
        if own:
            seconds[job.receipt] = jobs.SECONDS_TO_START + sum(map(_seconds, own))
    if not spans:
        return None
    spans.sort()
    events = sorted([(start + CLOCK, 1) for start, end in spans if end - start > 2 * CLOCK]
                    + [(end, -1) for start, end in spans if end - start > 2 * CLOCK])
    at_once = most = 0
    for _, change in events:
        at_once += change
        most = max(most, at_once)
    ran, until = 0.0, spans[0][0]
    for start, end in spans:
        gap = start - until
        ran += max(0.0, end - max(start, until)) + (gap if 0 < gap <= 2 * jobs.SECONDS_TO_START else 0.0)  # a start belongs to the run
        until = max(until, end)
    most = max(1, most)
    return len(spans), most, ran, simulate([job for job in planned if job.receipt in seconds], seconds, most)[0]


def page(profile: Profile) -> str:
    """A profile's table of wall times with what bounds them, and the measured point, as Markdown."""
    planned = jobs.plan(profile)
    seconds, measured = durations(profile, planned)
    total, (longest, chain) = sum(seconds.values()), critical_path(planned, seconds)
    _, width = simulate(planned, seconds, len(planned))
    real = [job for job in planned if job.makes and job.receipt in measured]
    of = sum(bool(job.makes) for job in planned)
    basis = (f"{len(real)} of {of} jobs that train or evaluate by their receipts, the others by estimates scaled to these" if real else
             f"none of {of} jobs that train or evaluate has its receipts: all are estimates by `rate` of `profiles/{profile.name}.yaml`")
    lines = [f"**Profile `{profile.name}`**, {len(planned)} jobs, {jobs.describe(total)} of work ({basis}).", "",
             "| nodes | wall time (simulated) | speed-up | a node is busy |", "|---:|---:|---:|---:|"]
    walls = [simulate(planned, seconds, nodes)[0] for nodes in NODES]
    lines += [f"| {nodes} | {jobs.describe(wall)} | {total / wall:.1f} | {total / wall / nodes:.0%} |"
              for nodes, wall in zip(NODES, walls, strict=True)]
    lines += ["", f"At most {width} jobs are ready at the same time: more nodes than that have no work. What bounds the wall time is the "
              f"longest chain, {jobs.describe(longest)}: {' → '.join(chain)}."]
    if point := observed(profile, planned):
        receipts, most, ran, simulated = point
        lines += ["", f"Measured: by the clocks of its {receipts} receipts, at most {most} ran at the same time and something ran for "
                  f"{ran / 60:.1f} min; the simulation gives {simulated / 60:.1f} min for the same work on {most} nodes "
                  f"({100 * (simulated / ran - 1):+.1f} %). A job's seconds are the receipts' in both, so this is a test of the order, the "
                  f"waiting and the starts, not of the seconds."]
    return "\n".join(lines)
