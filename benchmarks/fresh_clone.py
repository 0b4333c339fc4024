"""What a stranger waits for: the README's commands, one after the other in a fresh clone of the last commit, timed.

    python benchmarks/fresh_clone.py [--folder NEW] [--only setup,reproduce] [--out FILE.json]

Run it beside nothing else. The clone takes from this environment only where the data sets are (MMC_DATA), and that only for the step that
needs one; what `make setup` takes depends on the network, and on whether uv has the packages already.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import finish, processor

ROOT = Path(__file__).resolve().parent.parent
STEPS = {
    "setup": ("make setup", "make setup"),
    "reproduce": ("make reproduce", "make reproduce"),
    "again": ("make reproduce, once more", "make reproduce"),
    "figures": ("make figures PROFILE=cpu", "make figures PROFILE=cpu"),
    "example": ("the README's network of one's own", ".venv/bin/python {example}"),
    "check": ("check-adversarial cpu-mmc-10", ".venv/bin/python -m artifact check-adversarial cpu-mmc-10"),
    "units": ("make test, unit tests (without data sets)", "OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist worksteal tests"),
    "nbval": ("make test, notebooks", "OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q --nbval --nbval-current-env notebooks"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", help="where the clone is made and stays (default: a folder that goes when this ends)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(STEPS), help=f"of {','.join(STEPS)}, in this order")
    parser.add_argument("--out", metavar="FILE.json", help="also keep the numbers, versions and hardware there")
    options = parser.parse_args()
    if unknown := set(options.only) - set(STEPS):
        parser.error(f"there is no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(options.folder or Path(temporary, "clone")).resolve()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        example = Path(temporary, "example.py")
        example.write_text(re.findall(r"```python\n(.*?)```", (clone / "README.md").read_text(), flags=re.DOTALL)[0])
        steps = [{"step": STEPS[name][0]} | timed(name, STEPS[name][1].format(example=example), clone) for name in options.only]
        commit = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    result = {"benchmark": "fresh clone", "machine": processor(), "cores": cores, "commit": commit, "steps": steps,
              "largest_process_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}
    finish(result, markdown(result), options.out)
    return 0 if all(step["exit"] == 0 for step in steps) else 1


def timed(name, command, clone):
    """Run one step in the clone; its seconds by the clock and of processor time, its exit status, and the last line that it printed."""
    ours = ("MMC_", "OMP_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "PYTEST_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    if name == "check" and "MMC_DATA" in os.environ:
        environment["MMC_DATA"] = os.environ["MMC_DATA"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(["bash", "-c", command], cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
    print(f"{name}: {seconds:.0f} s, exit {done.returncode}; {last}", flush=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
    return {"seconds": seconds, "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "exit": done.returncode, "last_line": last.replace(str(clone), "CLONE")}


def markdown(result):
    lines = [f"A fresh clone of {result['commit'][:7]} on {result['machine']}, {result['cores']} cores, beside nothing else", "",
             "| command | by the clock | of processor time |", "|---|---:|---:|"]
    lines += [f"| {step['step']} | {span(step['seconds'])} | {span(step['processor_seconds'])} |" + (" FAILED" if step["exit"] else "")
              for step in result["steps"]]
    return "\n".join([*lines, "", f"The largest process held {result['largest_process_gib']:.1f} GiB; with two jobs there are two such."])


def span(seconds):
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


if __name__ == "__main__":
    sys.exit(main())
