"""Kills at random moments of every process that a run has, two runs at once, and a run without git: what is left must be whole.

It works in a copy of the project whose notebooks make what the real ones make and leave out what they teach, so that a run takes
seconds. SIGKILL falls on make, the command, Snakemake, its job, the job's kernel, or the plain runner, in turn; the same command, started
again, must end with the receipts of an undisturbed run.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from artifact import experiment, jobs, receipts
from tests.artifact.tiny import TINY, told

ROLES = ("kernel", "snakemake", "plain runner", "job", "reproduce", "make")
FRAME = ("from pathlib import Path\nfrom artifact import experiment, jobs, receipts\n"
         "from artifact.measurements import white_box\nP = experiment.load_profile(profile)\n")
NOTHING = "receipts.write_receipt(Path(output), {'identity': Path(output).stem.rsplit('-', 1)[-1], 'kind': 'notebook', " \
          "'results': {'items': []}, 'provenance': {}})\n"
MINIATURES = {
    "01_theory": NOTHING,
    "02_training": "from artifact.compute import trained\nfrom mmclib.training import trainer\n\ntrainer.CHECKPOINT_SECONDS = 0.1\n"
                   "trained.train(P, model, progress=False)",
    "03_white_box": "from artifact.compute import measure\n\nfor method in methods:\n    for spec in white_box.measurements(P, method):\n"
                    "        measure.evaluate(P, spec)\n" + NOTHING,
    "04_black_box": NOTHING,
    "08_report": "page = jobs.find(P, 'report').outputs[1]\npage.parent.mkdir(parents=True, exist_ok=True)\npage.touch()\n" + NOTHING,
}
SECONDS_TO_END = 60.0  # after a kill, for what is left of its tree


@dataclass
class Count:
    """Of one kind of injury: how many, and how many times a finished thing was lost, a fault was not named, a number was wrong."""

    tried: int = 0
    lost: int = 0
    unnamed: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
    of: Counter = field(default_factory=Counter)  # by what was killed

    def note(self, what: str, text: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        self.notes.append(f"{what}: {text}")

    def right(self) -> bool:
        return not (self.lost or self.unnamed or self.wrong)

    def says(self) -> str:
        of = f" ({', '.join(f'{role} {count}' for role, count in self.of.items())})" if self.of else ""
        return f"{self.tried} tried{of}, {self.lost} lost, {self.unnamed} unnamed, {self.wrong} silent wrong"


def project(folder: Path) -> Path:
    """A copy of the project with miniature notebooks and a profile of seconds, tiny.yaml, in a folder whose name no shell should read."""
    copy = folder / "it's a $(touch here) project"
    for name in ("artifact", "mmclib", "paper", "profiles"):
        shutil.copytree(experiment.ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "Snakefile", "README.md"):
        shutil.copy(experiment.ROOT / name, copy / name)
    (copy / "notebooks").mkdir()
    for name, body in MINIATURES.items():
        cells = json.loads((experiment.ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        given = next(cell for cell in cells["cells"] if "parameters" in cell["metadata"].get("tags", ()))
        work = {"cell_type": "code", "execution_count": None, "id": "work", "metadata": {}, "outputs": [],
                "source": FRAME + body}
        cells["cells"] = [given | {"outputs": []}, work]
        (copy / "notebooks" / f"{name}.ipynb").write_text(json.dumps(cells), encoding="utf-8")
    settings = yaml.safe_load(TINY) | {"train_on_the_spot": False, "batch_size": 16}
    settings["training"]["digits"]["epochs"] = 12
    settings["models"].pop("sce")
    settings["white_box"]["models"].remove("sce")
    (copy / "tiny.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return copy


@dataclass
class Place:
    """A results folder of its own beside the copied project, and the commands that fill it."""

    project: Path
    name: str

    @property
    def root(self) -> Path:
        return self.project.parent / self.name

    @property
    def results(self) -> Path:
        return self.root / "results" / "tiny"

    def seed(self, reference: "Place") -> None:
        """Take over what the undisturbed run made in the jobs that compute nothing, so that a run is a training, a table and a report."""
        for path in [*reference.results.glob("notebooks/01_*.json"), *reference.results.glob("notebooks/04_*.json")]:
            (self.results / "notebooks").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.results / "notebooks")

    def start(self, role: str = "reproduce", log: str = "log.txt", **variables: str) -> subprocess.Popen:
        profile = str(self.project / "tiny.yaml")
        command = {"plain runner": [sys.executable, "-m", "artifact", "run", "--profile", profile],
                   "make": ["make", "reproduce", f"PROFILE={profile.replace('$', '$$')}"]}.get(
                       role, [sys.executable, "-m", "artifact", "reproduce", "--profile", profile])
        (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        own = {"MMC_RESULTS": str(self.root / "results"), "MMC_CHECKPOINTS": str(self.root / "checkpoints"), "OMP_NUM_THREADS": "1",
               "PYTHONPATH": str(self.project), "TMPDIR": str(self.root / "tmp"), "PYTHONDONTWRITEBYTECODE": "",
               "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX") or str(self.project.parent / "compiled"),
               "CONDA_DEFAULT_ENV": "mmc", "CONDA_PREFIX": sys.prefix}  # make then takes this interpreter
        with open(self.root / log, "w", encoding="utf-8") as file:
            return subprocess.Popen(command, cwd=self.project, env=os.environ | own | variables, stdout=file, stderr=subprocess.STDOUT)

    def said(self, log: str = "log.txt") -> str:
        return (self.root / log).read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict[int, str]:
        """The processes that work here, by what they are."""
        found = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                if pid != os.getpid() and f"MMC_RESULTS={self.root / 'results'}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = _role(Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"))
            except OSError:
                continue
        return found

    def receipts(self) -> dict[Path, bytes]:
        """What each receipt holds: with its seconds and its day, so that one made a second time is another."""
        # Not when it was written: Snakemake touches what a job found done by another run.
        return {path: path.read_bytes() for path in self.results.rglob("*.json") if not path.name.startswith(".")}

    def outcomes(self) -> dict[str, dict]:
        """What the models' and evaluations' receipts hold, but for clock times."""
        kept = {}
        for path in self.receipts():
            receipt = receipts.read_receipt(path)
            receipt["results"] = {key: value for key, value in receipt["results"].items() if key != "seconds"}
            if receipt["kind"] != "notebook":
                kept[path.name] = told(receipt)
        return kept

    def states(self) -> dict[str, float]:
        """How far each training is: the number of its newest state, without end where its receipt is there."""
        far = {path.name: max((int(state.name.split("-")[1]) for state in path.glob("state-*.safetensors")), default=0)
               for path in (self.root / "checkpoints" / "tiny").glob("*")}
        return far | {path.stem: float("inf") for path in (self.results / "models").glob("*.json")}


def _role(command: list[str]) -> str:
    if Path(command[0]).name == "make":
        return "make"
    if command[1:2] != ["-m"]:
        return "another"
    return {"artifact.kernel": "kernel", "snakemake": "snakemake"}.get(
        command[2], {"run": "plain runner"}.get(command[3], command[3]) if command[2] == "artifact" else "another")


def wait_for_the_end(place: Place, seconds: float = SECONDS_TO_END) -> list[str]:
    """Wait until no process works in the place; those that still do are ended and named."""
    ends = time.monotonic() + seconds
    while (left := place.processes()) and time.monotonic() < ends:
        time.sleep(0.2)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return sorted(left.values())


def undisturbed(place: Place) -> float:
    """Run to the end, in one process, and return the seconds that it took."""
    began = time.monotonic()
    if place.start("plain runner").wait():
        raise RuntimeError(f"the undisturbed run failed:\n{place.said()}")
    return time.monotonic() - began


def kill(place: Place, role: str, longest: float, chance: random.Random) -> int | None:
    """Start a command and kill one process of the role at a random moment of its life; its status, or None where it ended before."""
    process, moment = place.start(role), None
    while process.poll() is None:
        alive = [pid for pid, name in place.processes().items() if name == role]
        now = time.monotonic()
        if alive and moment is None:
            moment = now + chance.uniform(0, longest)
        elif moment is not None and now >= moment:
            if alive:
                os.kill(chance.choice(alive), signal.SIGKILL)
                return process.wait()
            moment = None  # that one ended before; the next of its kind
        time.sleep(0.25)
    return None


def kills(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Kill until `count` kills have fallen; up to four on the way of one folder to its end, which is then compared."""
    reference = Place(project(folder), "undisturbed")
    disturb(reference, undisturbed(reference), count, chance, found)


def disturb(reference: Place, whole: float, count: int, chance: random.Random, found: Count) -> None:
    """Kill as `kills` does, beside a finished undisturbed run that took `whole` seconds."""
    copy, expected = reference.project, reference.outcomes()
    roles, number = [role for role in ROLES if role != "make" or shutil.which("make")], 0
    while found.tried < count:
        place, number = Place(copy, f"disturbed {number}"), number + 1
        place.seed(reference)
        here = Counter()
        for _ in range(min(4, count - found.tried)):
            role = roles[found.tried % len(roles)]
            made, far = place.receipts(), place.states()
            if (status := kill(place, role, whole * (1 if role in ("kernel", "job", "plain runner") else 2), chance)) is None:
                whole *= 0.7  # the machine is faster than it was
                break
            found.tried += 1
            found.of[role] += 1
            here[role] += 1
            print(f"kill {found.tried} of {count}: {role}", flush=True)
            _look_back(found, place, role, status, made, far)
        made = place.receipts()
        if place.start(("reproduce", "plain runner")[number % 2]).wait() or "Traceback" in place.said():
            found.note("unnamed", f"the run after {dict(here)} failed:\n{place.said()}")
        _unchanged(found, place, made, "the last run")
        if place.outcomes() != expected:
            found.note("wrong", f"other receipts after {dict(here)}")
        if left := leftovers(place):
            found.note("unnamed", f"left over by {dict(here)}: {', '.join(map(str, left))}")
        shutil.rmtree(place.root)


def _look_back(found: Count, place: Place, role: str, status: int, made: dict, far: dict) -> None:
    # What must hold after any kill: the tree ends, finished things stay, trainings are no farther back, and who lives on says why it ends.
    if left := wait_for_the_end(place):
        found.note("unnamed", f"after the kill of {role} there ran on: {', '.join(left)}")
    said = place.said()
    silent = status > 0 and "error: " not in said and "not everything was made" not in said
    if "Traceback" in said or silent:
        found.note("unnamed", f"after the kill of {role} it said:\n{said}")
    _unchanged(found, place, made, f"the kill of {role}")
    now = place.states()
    for name in far:
        if now.get(name, 0) < far[name]:
            found.note("lost", f"{name} was at step {far[name]} and after the kill of {role} at {now.get(name, 0)}")


def _unchanged(found: Count, place: Place, made: dict, when: str) -> None:
    now = place.receipts()
    for path, content in made.items():
        if now.get(path) != content:
            found.note("lost", f"{path.name} was there before {when} and is {'written anew' if path in now else 'gone'}")


def leftovers(place: Place) -> list[Path]:
    """What a finished run should not leave: half-written files, states of finished trainings, marks of Snakemake, connection files."""
    patterns = (".*.json.[0-9]*", "*.partial*", "state-*", ".*.safetensors.*", "tmp/mmc-kernel-*")
    marks = (path for path in (place.project / ".snakemake" / "incomplete").rglob("*") if path.is_file())
    return [*(path for pattern in patterns for path in place.root.rglob(pattern)), *marks]


def twice(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Run two at once in one folder, out of step: both end well, with the receipts of one, and neither removes what the other made."""
    copy = project(folder)
    reference = Place(copy, "alone")
    whole = undisturbed(reference)
    for number in range(count):
        place, seen = Place(copy, f"twice {number}"), {}
        found.tried += 1
        place.seed(reference)
        running = [place.start(log="first.txt")]
        time.sleep(chance.uniform(0, 2 * whole))
        running.append(place.start(log="second.txt"))
        while any(process.poll() is None for process in running):
            now = place.receipts()
            for path, content in seen.items():
                if path not in now or "notebooks" not in path.parts and now[path] != content:
                    found.note("lost", f"{path.name} is {'written anew' if path in now else 'gone'}")
            seen |= now
            time.sleep(0.1)
        for log, process in zip(("first.txt", "second.txt"), running, strict=True):
            if process.returncode or "Traceback" in place.said(log):
                found.note("unnamed", f"of two at once one ended with {process.returncode}:\n{place.said(log)}")
        if place.outcomes() != reference.outcomes():
            found.note("wrong", "other receipts after two at once")
        shutil.rmtree(place.root)


def without_git(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Run where there is no git: every receipt is written, and its commit is not known."""
    copy = project(folder)
    for number in range(count):
        place = Place(copy, f"without git {number}")
        found.tried += 1
        if place.start("plain runner", PATH=str(folder / "nothing here")).wait() or "Traceback" in place.said():
            found.note("unnamed", place.said())
        made = {path.name: receipts.read_receipt(path) for path in place.receipts()}
        if missing := {path.name for job in planned(place) for path in (job.receipt, *job.makes)} - made.keys():
            found.note("lost", f"{', '.join(sorted(missing))}:\n{place.said()}")
        if any(receipt["provenance"].get("commit") for receipt in made.values()):
            found.note("wrong", "a commit that nobody can know")
        shutil.rmtree(place.root)


def planned(place: Place) -> list[jobs.Job]:
    """The jobs of the copied project's profile."""
    return jobs.plan(experiment.load_profile(str(place.project / "tiny.yaml")))
