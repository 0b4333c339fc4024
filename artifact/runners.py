"""The two ways to run a job: its notebook through papermill, or its code cells in this process."""

import ast
import json
import re
import sys
import time
from pathlib import Path

from artifact import status
from artifact.estimates import describe
from artifact.experiment import ROOT, Profile
from artifact.jobs import Job, brief, rule_name


def notebook_parameters(path: Path) -> dict:
    """The names and default values in a notebook's one cell tagged `parameters`."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{path.name} must have exactly one cell tagged 'parameters', it has {len(cells)}")
    defaults = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)):
            raise ValueError(f"{path.name}: the parameters cell may hold only `name = literal`, found {ast.unparse(statement)!r}")
        defaults[statement.targets[0].id] = ast.literal_eval(statement.value)
    return defaults


def check_parameters(path: Path, given: dict) -> None:
    """Refuse, before anything runs, a parameter that the notebook does not have or a value of another type than its default's."""
    defaults = notebook_parameters(path)
    for name, value in given.items():
        if name not in defaults:
            raise ValueError(f"{path.name} has no parameter {name!r}; it has: {', '.join(defaults)}")
        wanted = type(defaults[name])
        if not (type(value) is wanted or (wanted is float and type(value) is int)):
            raise ValueError(f"{path.name}: parameter {name!r} must be {wanted.__name__} like its default {defaults[name]!r}, "
                             f"got {type(value).__name__} {value!r}")


def log_path(profile: Profile, job: Job) -> Path:
    name = re.sub("[^A-Za-z0-9_.-]+", "-", job.name)
    if len(name) > 80:  # a file system has an end, and two names of many models may begin alike
        name = f"{name[:67]}-{job.receipt.stem[-12:]}"
    return ROOT / "logs" / profile.name / f"{name}.ipynb"


def run_notebook(profile: Profile, job: Job) -> None:
    """Run a job through papermill; the executed notebook stays under logs/ also when a cell fails.

    Raises RuntimeError with the failing cell's error, or when the notebook ended without its receipt.
    """
    # Reading a notebook loads jsonschema, and that the grammar of a format no notebook uses: 2 s of each job, so it is not found.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from artifact import kernel

    source, log = ROOT / "notebooks" / f"{job.notebook}.ipynb", log_path(profile, job)
    check_parameters(source, job.parameters)
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(str(source), str(log), job.parameters, kernel_name="python3", cwd=str(ROOT), progress_bar=False,
                                   extra_arguments=["--log-level=50"], kernel_manager_class=kernel.manager())
    except DeadKernelError:
        raise RuntimeError(f"{brief(job.name)}: the kernel of {source.name} was killed; where the memory ran out, run fewer jobs at the "
                           f"same time (--jobs 1). What was saved stays; the executed notebook is {log.relative_to(ROOT)}") from None
    except PapermillExecutionError as error:
        trace = re.sub("\x1b\\[[0-9;]*m", "", "\n".join(error.traceback[-2:]))  # without a terminal's colours
        raise RuntimeError(f"{brief(job.name)}: cell {error.cell_index} of {source.name} failed\n{trace}\n"
                           f"the executed notebook is {log.relative_to(ROOT)}") from None
    _require_receipt(job, f"see {log.relative_to(ROOT)}")


def run_plain(profile: Profile, job: Job) -> None:
    """Run a job's code cells in this process, for machines that have neither papermill nor Jupyter: the same receipts."""
    import matplotlib
    matplotlib.use("Agg")

    source = ROOT / "notebooks" / f"{job.notebook}.ipynb"
    check_parameters(source, job.parameters)
    namespace = {"__name__": "__main__"}
    for index, cell in enumerate(json.loads(source.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{source.name}, cell {index}", "exec"), namespace)
            if "parameters" in cell["metadata"].get("tags", ()):
                namespace.update(job.parameters)
    if drawn := sys.modules.get("matplotlib.pyplot"):
        drawn.close("all")


def _require_receipt(job: Job, hint: str) -> None:
    if missing := job.missing():
        raise RuntimeError(f"{brief(job.name)}: the notebook ended without writing {missing[0]}; {hint}")


def run_timed(profile: Profile, job: Job, runner) -> None:
    """Run one job and say when it starts (where no living line shows it) and how it ended, in one line each."""
    began = time.perf_counter()
    with status.working(job.name, rule_name(job)) as done:
        if not status.living():
            print(f"{brief(job.name)} ...", flush=True)
        runner(profile, job)
        seconds = time.perf_counter() - began
        count = done(seconds)
    print(f"{brief(job.name)}: done in {describe(seconds)}{count}", flush=True)
