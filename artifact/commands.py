"""What each command does: reproduce, run, figures, release and the others; each takes its parsed options and returns an exit status."""

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from artifact import cluster, estimates, jobs, kernel, machine, plain, preflight, processes, runners, status, terminal
from artifact.experiment import ROOT, Profile, load_profile, read_receipt, results_folder

USUAL = "demo"  # the profile where none is named
LARGER = "paper"


def choose_profile(named: str | None) -> tuple[Profile, str]:
    """The profile to run and why: the one named, else demo, with what the larger one would take on this machine."""
    if named is not None:
        return load_profile(named), "named"
    if (device := preflight.cuda_device() if preflight.may_have_a_device() else None) is None:
        return load_profile(USUAL), f"no PROFILE named; {LARGER}, the whole paper, needs a CUDA device, which this machine lacks"
    larger = load_profile(LARGER)
    # of all jobs: no receipt of it is read for a sentence
    takes = estimates.describe(estimates.estimate(jobs.plan(larger), machine.workers(larger)))
    return load_profile(USUAL), f"no PROFILE named; PROFILE={LARGER}, the whole paper, takes about {takes} on this machine's {device}"


def announce(profile: Profile, why: str, todo: list, parallel: int, asked: str = "all jobs") -> None:
    print(f"profile {profile.name} ({why}): {profile.title}")
    takes = f", {parallel} at a time: about {estimates.describe(estimates.estimate(todo, parallel))}" if todo else ""
    planned = len(jobs.plan(profile))
    print(f"{len(todo)} of {planned} jobs to do{takes}", flush=True)
    if not todo and planned:
        print(f"nothing was computed: the receipts of {asked} are in {os.path.relpath(results_folder(profile))}; "
              "to make them again, let MMC_RESULTS and MMC_CHECKPOINTS name new folders")


def summarise(profile: Profile) -> None:
    show_ending(read_receipt(jobs.find(profile, "report").receipt)["results"]["items"], profile)


def show_ending(items: list[dict], profile: Profile) -> None:
    """The verdict's claims in a line each, how many figures and tables there are, and the page's address."""
    from artifact import report
    from artifact.exhibits.exhibit import Missing
    print()
    try:
        for claim, row in report.make("Verdict", profile).on_one_line().iterrows():
            _say(f"{claim}: {row['verdict']} ({row['measured']})")
    except Missing:  # what is missing is said below
        pass
    missing = [item for item in items if item["files"] == report.NOT_MADE]
    for item in missing:
        if item["says"] != report.not_planned(profile):
            _say(f"{item['name']} is not made yet: {item['says']}")
    lacking = f"; {len(missing)} not made: {', '.join(item['name'] for item in missing)}" if missing else ""
    _say(f"{len(items) - len(missing)} figures and tables made{lacking}")
    print(f"all on one page: {(ROOT / 'figures' / profile.name / 'index.html').as_uri()}")


def _say(text: str) -> None:
    # On a terminal a line is a line; the whole of it is on the page.
    print(terminal.cut(text, shutil.get_terminal_size().columns) if sys.stdout.isatty() else text)


def snakemake(profile: Profile, todo: list, parallel: int, targets: tuple = (), executor: str = "local") -> list[str]:
    """The command that makes the jobs to do, or only those behind `targets` (receipts)."""
    # A receipt is whole or not there, so an interrupted run needs no repair: no lock to break, unfinished jobs go on. Snakemake asks for
    # outputs alone; a job whose own receipt is there while one that it stands for is not has to be named.
    if braced := [path for job in todo for path in (*job.needs, *job.outputs) if set("{}") & set(str(path))]:
        raise ValueError(f"there is a brace in {braced[0]}, and Snakemake takes braces for wildcards; name another folder "
                         "(MMC_RESULTS), or make the same by: python -m artifact run")
    forced = ["--forcerun", *(jobs.rule_name(job) for job in todo)] if todo else []
    return [sys.executable, "-m", "snakemake", *forced, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(ROOT),
            *cluster.options(executor, profile, parallel), "--config", _asked_for(profile),
            "--nolock", "--rerun-incomplete", "--keep-incomplete", "--rerun-triggers", "input", "--keep-going",
            *(["--", *map(str, targets)] if targets else [])]


def _asked_for(profile: Profile) -> str:
    return f"profile={json.dumps(profile.source, ensure_ascii=False)}"  # Snakemake reads it as YAML, but undoes no escapes


def refusal(command: list[str]) -> str:
    """Snakemake's own reason for running nothing, in one line: it plans once more, aloud. Empty where it finds no fault in the plan."""
    aloud = [*command[:3], "--dry-run", *("progress" if word == "all" else word for word in command[3:])]
    planned = subprocess.run(aloud, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    if planned.returncode == 0:
        return ""
    lines = [line.strip() for line in planned.stdout.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    return " ".join(lines[begins[-1] if begins else -1:])


def sweep() -> None:
    """Remove what killed runs left: connection files of kernels, and Snakemake's marks of unfinished jobs, but for those on a cluster."""
    kernel.sweep()
    for mark in (ROOT / ".snakemake" / "incomplete").rglob("*"):
        try:
            if mark.is_file() and not json.loads(mark.read_text(encoding="utf-8"))["external_jobid"]:
                mark.unlink(missing_ok=True)  # a receipt says whether a job is done; with the mark it would be done again
        except (OSError, ValueError, KeyError, TypeError):  # another's, or half written: as harmless as before
            continue


def reproduce(options) -> int:
    profile, why = choose_profile(options.profile)
    sweep()
    todo = jobs.to_do(jobs.plan(profile))
    on_slurm = options.executor == "slurm"
    if on_slurm:
        cluster.require_slurm(profile)
    parallel = options.jobs or (cluster.SLURM_JOBS if on_slurm else machine.workers(profile))
    if profile.device == "cuda" and not on_slurm:  # a job takes a GPU
        parallel = min(parallel, machine.workers(profile))
    announce(profile, why, todo, parallel)
    if todo:
        preflight.check(profile, todo, parallel=parallel, device=not on_slurm)  # whoever submits needs no GPU
        command = snakemake(profile, todo, parallel, executor=options.executor)
        if profile.device == "cuda" and not on_slurm:
            cluster.name_gpus()
        with terminal.following(jobs.plan(profile), todo, parallel):
            code = processes.run(command, cwd=ROOT)
        if code and jobs.to_do(jobs.plan(profile)):
            if not on_slurm and (reason := refusal(command)):  # there Snakemake's own lines are shown
                raise RuntimeError(f"Snakemake ran nothing: {reason}")
            print(f"\nnot everything was made; finished jobs are kept. The notebooks of the failed jobs are under logs/{profile.name}/; "
                  "fix the errors that they show and run the same command again", file=sys.stderr)
            return code
    summarise(profile)
    return 0


def run(options) -> int:
    profile, why = choose_profile(options.profile)
    if options.rehearse:
        from artifact.rehearsal import rehearsal
        profile = rehearsal(profile, profile.device if profile.device == "cpu" or preflight.cuda_device() else "cpu")
    planned = jobs.plan(profile)
    patterns = options.only or ["*"]
    for pattern in patterns:
        if not any(_matches(job, pattern) for job in planned):
            raise ValueError(f"no job of profile {profile.name!r} matches {pattern!r}; it has: {jobs.listed(planned)}")
    asked = [job for job in planned if any(_matches(job, pattern) for pattern in patterns)]
    todo = [jobs.shortened(job, job.missing()) for job in asked] if options.redo else jobs.to_do(asked)
    announce(profile, why, todo, options.jobs, "all jobs" if len(asked) == len(planned) else "the jobs asked for")
    if options.dry_run:
        for job in todo:
            print(f"{estimates.describe(job.seconds):>9}  {job.name}")
        return 0
    sweep()
    if status.folder() is None:  # else the command that started this one has looked
        preflight.check(profile, todo, parallel=options.jobs)
    failed, in_time = [], True
    try:
        with processes.stoppable(options.time_budget), terminal.following(asked, todo, options.jobs):
            if options.jobs > 1:
                failed = plain.side_by_side(profile, todo, options.jobs)
            else:
                plain.in_turn(profile, todo)
    except processes.Stopped as stopped:
        if stopped.number != signal.SIGALRM:
            raise
        in_time = False
    left = [jobs.brief(job.name) for job in todo if not job.done()]
    if failed:
        print(f"failed: {', '.join(failed)}; what is done stays done", file=sys.stderr)
        return 1
    if left:
        if not in_time:
            print(f"the time budget ended with {len(left)} jobs to do, the next one is {left[0]!r}; the same command goes on")
        else:
            print(f"{len(left)} jobs need others that were not asked for; without --only they are made first", file=sys.stderr)
            return 1
    elif asked[-1].notebook == "08_report" and not options.rehearse and status.folder() is None:
        summarise(profile)
    return 0


def _matches(job: jobs.Job, pattern: str) -> bool:
    return fnmatch.fnmatchcase(job.name, pattern) or job.name == pattern


def one_job(options) -> int:
    profile = load_profile(options.profile)
    job = jobs.find(profile, options.name)
    gpu = cluster.take_gpu() if cluster.resources(profile, job)["gpu"] else None  # noqa: F841  (held until this process ends)
    runners.run_timed(profile, job, runners.run_notebook)
    return 0


def figures(options) -> int:
    from artifact import report
    profile = load_profile(options.profile or USUAL)
    show_ending([written.summary() for written in report.write_all(profile)], profile)
    return 0


def release(options) -> int:
    from artifact import release
    for path in release.release_all(options.profile, options.models):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 2**20:.1f} MiB, with {path.with_suffix('.md').name}")
    return 0


def adversarial(options) -> int:
    from artifact.adversarial import write
    for model in options.models:
        print(os.path.relpath(write(load_profile(options.profile), model, options.images)))
    return 0


def check_adversarial(options) -> int:
    from artifact.adversarial import check
    found = check(options.name)
    print(f"{options.name}: {found.correct} of {found.images} images are still classified rightly ({found.correct / found.images:.1%}), "
          f"no pixel is changed by more than {found.epsilon}/255: as claimed")
    return 0


def report(options) -> int:
    profile = load_profile(options.profile or USUAL)
    jobs.exhibits(profile)  # in one sentence, what is missing
    path, log = ROOT / "figures" / profile.name / "report.html", ROOT / "logs" / profile.name / "report.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:  # it warns of every file that another machine made
        code = processes.run([sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(ROOT),
                              "--nolock", "--config", _asked_for(profile), "exhibits=1", "--report", str(path)],
                             cwd=ROOT, stdout=file, stderr=file)
    if code:
        raise RuntimeError(f"Snakemake could not write its report; what it said is in {os.path.relpath(log)}")
    print(os.path.relpath(path))
    return 0


def crate(options) -> int:
    from artifact.crate import write
    print(os.path.relpath(write(load_profile(options.profile), options.destination)))
    return 0


def record(options) -> int:
    from artifact import record as writer
    from artifact import release
    for path in writer.FILES:
        path.write_text(writer.update(path), encoding="utf-8")
        print(f"{path.name}: every number between its markers is a receipt's")
    cards = release.cards()
    for path, text in cards.items():
        path.write_text(text, encoding="utf-8")
    print(f"released: {len(cards)} cards")
    return 0


def download(options) -> int:
    from mmclib import data
    for name in options.names:
        print(f"{name}: {data.download(name)}")
    return 0
