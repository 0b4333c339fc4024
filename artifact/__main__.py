"""The command line: `python -m artifact COMMAND`, or `mmc-artifact COMMAND` where it is installed (--help says which there are)."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys

from artifact import cluster, commands, processes, status
from artifact.experiment import ROOT, pin_folders
from mmclib import __version__


def _at_least_one(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"it must be a whole number of at least 1, got {text}")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < 1e9:  # thirty years: a timer takes no more
            return number
    raise argparse.ArgumentTypeError(f"it must be a number of seconds above 0 and below a billion, got {text}")


class _Version(argparse.Action):
    """Prints version and commit; git is asked only then."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(version())
        parser.exit()


def version() -> str:
    """The version and, in a clone, the commit and whether tracked files were changed since."""
    if not (ROOT / ".git").exists():
        return f"mmc-artifact {__version__}, commit not known: this is no clone"
    changed = "--dirty=, with changes that are not committed"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--abbrev=10", changed]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return f"mmc-artifact {__version__}, commit not known: there is no git here"
    return f"mmc-artifact {__version__}, commit {done.stdout.strip() if done.returncode == 0 else 'not known: git does not say'}"


def _parser() -> argparse.ArgumentParser:
    name = "mmc-artifact"
    parser = argparse.ArgumentParser(
        prog=name if os.path.basename(sys.argv[0]) == name else "python -m artifact",
        description="Every figure and table of the paper, from training to the page. An interrupted command goes on when given again.",
        epilog="Folders: MMC_DATA names the data sets' (data/), MMC_RESULTS the receipts' (results/), MMC_CHECKPOINTS the weights' "
               "(checkpoints/).")
    parser.add_argument("--version", action=_Version, nargs=0, help="print version and commit")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, name, text, more=""):
        sub = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
        sub.set_defaults(function=function)
        return sub

    def profiled(sub, required=False):
        known = ", ".join(sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))) or "a profile of the clone"
        sub.add_argument("--profile", required=required, metavar="NAME",
                         help=f"what to train and attack: {known}, or a YAML file's path" + ("" if required else f" ({commands.USUAL})"))
        return sub

    sub = profiled(command(commands.reproduce, "reproduce", "every figure and table of a profile, by Snakemake and papermill",
                           "What is done already is found again. Ends with the verdict and the page's address."))
    sub.add_argument("--jobs", type=_at_least_one, metavar="N",
                     help="jobs at the same time (default: as cores and memory allow, on CUDA one a GPU; 100 on SLURM)")
    sub.add_argument("--executor", choices=cluster.EXECUTORS, default="local", help="where jobs run: on this machine (local) or by SLURM")
    sub = profiled(command(commands.run, "run", "the same jobs with PyTorch's stack alone: no Snakemake or Jupyter",
                           "For machines that have neither, and for slices of time."))
    sub.add_argument("--only", action="append", metavar="PATTERN",
                     help="jobs whose name matches, such as 'train *'; may be given several times (all)")
    sub.add_argument("--time-budget", type=_seconds, metavar="S", help="stop after so many seconds with the state saved (never)")
    sub.add_argument("--jobs", type=_at_least_one, default=1, metavar="N",
                     help="jobs at the same time, as processes that share the device (1)")
    sub.add_argument("--redo", action="store_true", help="run the jobs asked for again where they are done; evaluations are looked up")
    sub.add_argument("--dry-run", action="store_true", help="list the jobs and what they would take")
    sub.add_argument("--rehearse", action="store_true", help="run every job in miniature, under the name PROFILE-rehearsal")
    sub = profiled(command(commands.one_job, "job", "one job, by papermill (what the Snakefile calls)"), required=True)
    sub.add_argument("name", help="the job's whole name, as run --dry-run lists it")
    profiled(command(commands.figures, "figures", "draw all figures and tables from the receipts that exist; computes nothing"))
    sub = profiled(command(commands.release, "release", "write trained models to released/ with a card each"), required=True)
    sub.add_argument("models", nargs="+", metavar="MODEL", help="models of the profile, such as mmc-10")
    sub = profiled(command(commands.adversarial, "adversarial",
                           "craft adversarial images on released models, into released/adversarial/"), required=True)
    sub.add_argument("models", nargs="+", metavar="MODEL", help="models of the profile that were released, such as mmc-10")
    sub.add_argument("--images", type=_at_least_one, default=1000, metavar="N", help="the first N test images (1000)")
    sub = command(commands.check_adversarial, "check-adversarial",
                  "verify a released model's adversarial images: ball, labels, accuracy")
    sub.add_argument("name", help="a released model, such as cpu-mmc-10")
    profiled(command(commands.report, "report",
                     "Snakemake's report of a finished profile: one HTML file with every exhibit and how it was made"))
    sub = command(commands.crate, "crate", "write receipts, tables and figures as a Workflow Run RO-Crate, for archives and other tools")
    sub.add_argument("profile", help="the profile whose receipts are written, such as quick")
    sub.add_argument("destination", help="a new folder, or a new file that ends in .zip")
    command(commands.record, "record", "write the tables of README, RESULTS and the other texts, and the cards of released/, from receipts")
    sub = command(commands.download, "download", "fetch data sets through torchvision into MMC_DATA (default data/)")
    sub.add_argument("names", nargs="+", choices=["mnist", "cifar10", "cifar100"], metavar="DATASET", help="mnist, cifar10, cifar100")
    return parser


def _open_streams() -> None:
    """Give closed standard streams /dev/null: the next file opened would take their place, and what children print would land in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main(arguments=None) -> int:
    _open_streams()
    options = _parser().parse_args(arguments)
    if not (ROOT / "profiles").is_dir():
        print("error: this is the installed package; profiles, notebooks and receipts are in a clone of the repository: give "
              "`python -m artifact ...` there (the library, `import mmclib`, needs none)", file=sys.stderr)
        return 1
    # What is printed and read is UTF-8 in any locale: tables hold an epsilon. Each line leaves at once: in a file, where Python would keep
    # them back, an error would stand above what was said before it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    pin_folders()
    if started_by := os.environ.pop("MMC_PARENT", None):  # the make or Snakemake that may be gone before this process has loaded
        if not started_by.isdecimal():
            print(f"error: MMC_PARENT is for make and Snakemake to set, to a process's number; got {started_by!r}", file=sys.stderr)
            return 2
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
    except (KeyboardInterrupt, processes.Stopped) as error:
        if status.folder() is None:  # else the command that started this one says it
            print("\nstopped; what is done stays done, and the same command goes on", file=sys.stderr)
        return 128 + getattr(error, "number", signal.SIGINT)


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
