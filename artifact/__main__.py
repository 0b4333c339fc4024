"""The command line: `python -m artifact reproduce | run | job | figures | release | record | download` (see --help of each)."""

import argparse
import fnmatch
import json
import os
import re
import signal
import subprocess
import sys

from artifact import jobs, plain, processes
from artifact.experiment import ROOT, Profile, load_profile, pin_folders, read_receipt


def choose_profile(named: str | None) -> tuple[Profile, str]:
    """The profile to run and why: the one named, else paper where there is CUDA and demo where not."""
    if named is not None:
        return load_profile(named), "named"
    import torch
    if torch.cuda.is_available():
        return load_profile("paper"), f"no PROFILE named, and this machine has {torch.cuda.get_device_name()}"
    return load_profile("demo"), "no PROFILE named, and this machine has no CUDA device; PROFILE=paper is the whole paper"


def announce(profile: Profile, why: str, todo: list, parallel: int) -> None:
    print(f"profile {profile.name} ({why}): {profile.title}")
    takes = f", {parallel} at a time: about {jobs.describe(jobs.estimate(todo, parallel))}" if todo else ""
    print(f"{len(todo)} of {len(jobs.plan(profile))} jobs to do{takes}", flush=True)


def summarise(profile: Profile) -> None:
    print()
    show_items(read_receipt(jobs.find(profile, "report").receipt)["results"]["items"], profile)


def show_items(items: list[dict], profile: Profile) -> None:
    for item in items:
        print(f"{item['name']:<11} {item['files']}\n{'':<11} {item['says']}")
    print(f"\nall of them on one page: figures/{profile.name}/index.html")


def snakemake(profile: Profile, todo: list, parallel: int, targets: tuple = ()) -> list[str]:
    """The command that makes the jobs to do, or only those behind `targets` (receipts)."""
    # A receipt is whole or not there, so an interrupted run needs no repair: no lock to break, unfinished jobs go on. Snakemake asks for
    # outputs alone; a job whose own receipt is there while one that it stands for is not has to be named.
    if braced := [path for job in todo for path in (*job.needs, *job.outputs) if set("{}") & set(str(path))]:
        raise ValueError(f"there is a brace in {braced[0]}, and Snakemake takes braces for wildcards; name another folder "
                         "(MMC_RESULTS), or make the same by: python -m artifact run")
    forced = ["--forcerun", *(jobs.rule_name(job) for job in todo)] if todo else []
    return [sys.executable, "-m", "snakemake", *forced, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(ROOT),
            "--cores", str(parallel * profile.threads), "--config", f"profile={json.dumps(profile.source)}",
            "--quiet", "all", "--nolock", "--rerun-incomplete", "--keep-incomplete", "--rerun-triggers", "input", "--keep-going",
            "--resources", "gpu=1", *(["--", *map(str, targets)] if targets else [])]


def refusal(command: list[str]) -> str:
    """Snakemake's own reason for running nothing, in one line: it plans once more, aloud. Empty where it finds no fault in the plan."""
    aloud = [*command[:3], "--dry-run", *("progress" if word == "all" else word for word in command[3:])]
    planned = subprocess.run(aloud, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    if planned.returncode == 0:
        return ""
    lines = [line.strip() for line in planned.stdout.splitlines() if line.strip()]
    begins = [number for number, line in enumerate(lines) if re.match(r"\w*(Error|Exception)\b", line)]
    return " ".join(lines[begins[-1] if begins else -1:])


def reproduce(options) -> int:
    profile, why = choose_profile(options.profile)
    todo = jobs.to_do(jobs.plan(profile))
    parallel = options.jobs or jobs.workers(profile)
    announce(profile, why, todo, parallel)
    if todo:
        preflight(profile, todo)
        command = snakemake(profile, todo, parallel)
        code = processes.run(command, cwd=ROOT)
        if code and jobs.to_do(jobs.plan(profile)):
            if reason := refusal(command):
                raise RuntimeError(f"Snakemake ran nothing: {reason}")
            print(f"\nnot everything was made; what is done stays done. The failed jobs' notebooks are under logs/{profile.name}/; "
                  "mend what they name and run the same command again", file=sys.stderr)
            return code
    summarise(profile)
    return 0


def preflight(profile: Profile, todo: list) -> None:
    """Ask for the device and the data sets before the first job does; raises as the job would."""
    if all(job.notebook in ("01_theory", "08_report") for job in todo):
        return
    from artifact.compute import trained
    from mmclib import data
    trained.start(profile)
    for name in dict.fromkeys(profile.dataset(model) for model in profile.models):
        data.load(name, "test")


def run(options) -> int:
    profile, why = choose_profile(options.profile)
    if options.rehearse:
        import torch

        from artifact.rehearsal import rehearsal
        profile = rehearsal(profile, "cuda" if torch.cuda.is_available() else "cpu")
    planned = jobs.plan(profile)
    asked = [job for job in planned if fnmatch.fnmatchcase(job.name, options.only) or job.name == options.only]
    if not asked:
        raise ValueError(f"no job of profile {profile.name!r} matches {options.only!r}; known: {', '.join(job.name for job in planned)}")
    todo = jobs.to_do(asked)
    announce(profile, why, todo, options.jobs)
    if options.dry_run:
        for job in todo:
            print(f"{jobs.describe(job.seconds):>9}  {job.name}")
        return 0
    preflight(profile, todo)
    failed, in_time = [], True
    try:
        with processes.stoppable(options.time_budget):
            if options.jobs > 1:
                failed = plain.side_by_side(profile, todo, options.jobs)
            else:
                plain.in_turn(profile, todo)
    except processes.Stopped as stopped:
        if stopped.number != signal.SIGALRM:
            raise
        in_time = False
    left = [job.name for job in todo if not job.done()]
    if failed:
        print(f"failed: {', '.join(failed)}; what is done stays done", file=sys.stderr)
        return 1
    if left:
        if not in_time:
            print(f"the time budget ended with {len(left)} jobs to do, the next one is {left[0]!r}; the same command goes on")
        else:
            print(f"{len(left)} jobs need others that were not asked for; without --only they are made first")
    return 0


def one_job(options) -> int:
    profile = load_profile(options.profile)
    jobs.run_timed(profile, jobs.find(profile, options.name), jobs.run_notebook)
    return 0


def figures(options) -> int:
    from artifact import report
    profile, _ = choose_profile(options.profile)
    show_items([written.summary() for written in report.write_all(profile)], profile)
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


def record(options) -> int:
    from artifact import record as writer
    if not (ROOT / "README.md").is_file():
        raise ValueError("the README is in a clone of the repository, not in the installed package; run this command in a clone")
    for path in writer.FILES:
        path.write_text(writer.update(path), encoding="utf-8")
        print(f"{path.name}: every number between its markers is a receipt's")
    return 0


def download(options) -> int:
    from mmclib import data
    for name in options.names:
        print(f"{name}: {data.download(name)}")
    return 0


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, got {text}")
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"it must be a number of seconds above 0, got {text}")
    return number


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="artifact", description="Regenerate the paper's figures and tables.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, name, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        return sub

    sub = command(reproduce, "reproduce", "every figure and table of a profile, by Snakemake and papermill")
    sub.add_argument("--profile")
    sub.add_argument("--jobs", type=_at_least_one, help="jobs at the same time (default: as the cores allow)")
    sub = command(run, "run", "the same jobs with PyTorch's stack alone: no Snakemake, Jupyter or network")
    sub.add_argument("--profile")
    sub.add_argument("--only", default="*", metavar="PATTERN", help="jobs whose name matches, such as 'train *'")
    sub.add_argument("--time-budget", type=_seconds, metavar="S", help="stop after so many seconds with the state saved")
    sub.add_argument("--jobs", type=_at_least_one, default=1, metavar="N",
                     help="jobs at the same time, as processes that share the device (1)")
    sub.add_argument("--dry-run", action="store_true", help="list the jobs and what they would take")
    sub.add_argument("--rehearse", action="store_true", help="run every job in miniature, under the name PROFILE-rehearsal")
    sub = command(one_job, "job", "one job, by papermill (what the Snakefile calls)")
    sub.add_argument("name")
    sub.add_argument("--profile", required=True)
    sub = command(figures, "figures", "draw all figures and tables from the receipts that exist; computes nothing")
    sub.add_argument("--profile")
    sub = command(release, "release", "write trained models to released/ with a card each")
    sub.add_argument("models", nargs="+")
    sub.add_argument("--profile", required=True)
    sub = command(adversarial, "adversarial", "craft adversarial images on released models, into released/adversarial/")
    sub.add_argument("models", nargs="+")
    sub.add_argument("--profile", required=True)
    sub.add_argument("--images", type=int, default=1000, metavar="N", help="the first N test images (1000)")
    sub = command(check_adversarial, "check-adversarial", "verify a released model's adversarial images: ball, labels, accuracy")
    sub.add_argument("name", help="a released model, such as cpu-mmc-10")
    command(record, "record", "write the tables of README, RESULTS and BENCHMARKS from receipts")
    sub = command(download, "download", "fetch data sets through torchvision into MMC_DATA (default data/)")
    sub.add_argument("names", nargs="+", choices=["mnist", "cifar10", "cifar100"], metavar="mnist|cifar10|cifar100")
    options = parser.parse_args(arguments)
    # What is printed and read is UTF-8 in any locale: tables hold an epsilon.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    pin_folders()
    if started_by := os.environ.pop("MMC_PARENT", None):  # the make or Snakemake that may be gone before this process has loaded
        processes.end_with_parent(parent=int(started_by))
    try:
        with processes.stoppable():
            code = options.function(options)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, MemoryError) as error:
        if os.environ.get("MMC_TRACEBACK"):
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 1
    except processes.Stopped as error:
        print("\nstopped; what is done stays done, and the same command goes on", file=sys.stderr)
        return 128 + error.number


EXPECTED = (ValueError, RuntimeError, FloatingPointError, ModuleNotFoundError)


def _sentence(error: Exception) -> str:
    # What was raised on purpose says itself; of the rest, the system's own errors name their file, and others are named with the way to
    # see more.
    if isinstance(error, OSError):
        if error.filename is None or error.strerror is None:
            return str(error)
        return f"{error.filename}: {error.strerror}" + (f" ({error.filename2})" if error.filename2 else "")
    if isinstance(error, MemoryError):
        return str(error) or "the memory ran out; run fewer jobs at the same time (--jobs 1), or a smaller batch_size"
    if type(error) in EXPECTED:
        return str(error)
    return f"{type(error).__name__}: {error} (set MMC_TRACEBACK=1 to see where)"


if __name__ == "__main__":
    sys.exit(main())
