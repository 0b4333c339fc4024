"""How long a profile takes on more nodes: a simulation over its jobs and their needs, with the seconds that receipts measured."""

import heapq
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from artifact import estimates, jobs, receipts
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
    urgent = estimates.urgency(planned)
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


def durations(planned: list[Job]) -> tuple[dict[Path, float], set[Path]]:
    """Seconds of each job by receipt, and which are measured: those whose models or evaluations all have receipts.

    What has none takes its estimate, at the pace of what has.
    """
    rated = estimates.rated(planned)
    took = {path: _seconds(path) for path in rated if path.exists()}
    each, seconds, measured, claimed = took | estimates.at_pace(rated, took), {}, set(), set()
    for job in planned:
        own = [path for path in job.makes if path not in claimed]  # a notebook that gathers its shards' work does none of it again
        claimed.update(own)
        if own:
            seconds[job.receipt] = jobs.SECONDS_TO_START + sum(each[path] for path in own)
            done = all(path in took for path in own)
        else:  # what it shows is made already, or it makes nothing that others need
            done = job.receipt.exists() and all(path in took for path in job.makes)
            seconds[job.receipt] = jobs.SECONDS_TO_START + _seconds(job.receipt) if done and not job.makes else job.seconds
        if done:
            measured.add(job.receipt)
    return seconds, measured


def _seconds(path: Path) -> float:
    return receipts.seconds(read_receipt(path))


@dataclass(frozen=True)
class Observed:
    """What the clocks of trainings' and evaluations' receipts say, in seconds; hours in which nothing ran do not count."""

    receipts: int
    at_once: int  # the most that were under way at the same time
    ran: float  # while any was under way
    fewer: float  # of these, while fewer were than at most
    simulated: float  # the same work on `at_once` nodes
    unseen: float  # what went before in work that was interrupted and went on: no clock of it is known


def observed(planned: list[Job]) -> Observed | None:
    """The measured point, from the receipts alone; None where there are none."""
    spans, seconds, claimed, unseen = [], {}, set(), 0.0
    for job in planned:
        own = [path for path in job.makes if path.exists() and path not in claimed]
        claimed.update(own)
        for path in own:
            receipt = read_receipt(path)
            made, unseen = receipt["provenance"], unseen + receipts.seconds(receipt) - receipt["provenance"]["seconds"]
            end = datetime.fromisoformat(made["finished"]).timestamp()
            spans.append((end - made["seconds"], end))
        if own:
            # Of work that was interrupted and went on both sides know the last process alone: the clock of the others is not known.
            seconds[job.receipt] = jobs.SECONDS_TO_START + sum(read_receipt(path)["provenance"]["seconds"] for path in own)
    if not spans:
        return None
    # Within CLOCK of its end a receipt counts as ended: the next one of the same process has begun.
    events = sorted([(start + CLOCK, 1) for start, end in spans if end - start > 2 * CLOCK]
                    + [(end, -1) for start, end in spans if end - start > 2 * CLOCK])
    within, now, before = {}, 0, events[0][0] if events else 0.0
    for moment, change in events:
        # The start of the next job's process belongs to the run.
        level = max(now, 1) if moment - before <= 2 * jobs.SECONDS_TO_START else now
        within[level] = within.get(level, 0.0) + moment - before
        now, before = now + change, moment
    most = max(within, default=1)
    ran = sum(length for level, length in within.items() if level)
    simulated, _ = simulate([job for job in planned if job.receipt in seconds], seconds, most)
    return Observed(len(spans), most, ran, ran - within.get(most, 0.0), simulated, unseen)


def page(profile: Profile) -> str:
    """A profile's table of wall times with what bounds them, and the measured point, as Markdown."""
    planned = jobs.plan(profile)
    seconds, measured = durations(planned)
    total, (longest, chain) = sum(seconds.values()), critical_path(planned, seconds)
    _, width = simulate(planned, seconds, len(planned))
    real = [job for job in planned if job.makes and job.receipt in measured]
    of = sum(bool(job.makes) for job in planned)
    others = ", the others by estimates scaled to these" * (len(real) < of)
    basis = (f"{len(real)} of {of} jobs that train or evaluate by their receipts{others}" if real else
             f"none of {of} jobs that train or evaluate has its receipts: all are estimates by `rate` of `profiles/{profile.name}.yaml`")
    lines = [f"**Profile `{profile.name}`**, {len(planned)} jobs, {estimates.describe(total)} of work ({basis}).", "",
             "| nodes | wall time (simulated) | speed-up | a node is busy |", "|---:|---:|---:|---:|"]
    walls = [simulate(planned, seconds, nodes)[0] for nodes in NODES]
    lines += [f"| {nodes} | {estimates.describe(wall)} | {total / wall:.1f} | {total / wall / nodes:.0%} |"
              for nodes, wall in zip(NODES, walls, strict=True)]
    lines += ["", f"At most {width} jobs are ready at the same time: more nodes than that have no work. What bounds the wall time is the "
              f"longest chain, {estimates.describe(longest)}: {' → '.join(chain)}."]
    if point := observed(planned):
        lines += ["", f"Measured: according to the times in its {point.receipts} receipts, work was under way for {point.ran / 60:.0f} "
                  f"min, at most {point.at_once} jobs at once, and fewer than that for {point.fewer / 60:.0f} min. The simulation, which "
                  f"leaves no node idle while a job is ready, gives {point.simulated / 60:.0f} min for the same work on {point.at_once} "
                  "nodes. Both use the seconds in the receipts, so this tests the order, the waiting and the starts, not the seconds"
                  + (f"; of work that was interrupted and went on both know the last process alone, which leaves "
                     f"{estimates.describe(point.unseen)} out." if point.unseen > 60 else ".")]
    return "\n".join(lines)
