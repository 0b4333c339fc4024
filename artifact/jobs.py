"""The jobs of a profile, each one notebook run with typed parameters: what they need and make, and what is done."""

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from artifact import receipts
from artifact.experiment import ROOT, Profile, identity, model_identity, model_receipt_path, notebook_code, read_receipt, results_folder
from artifact.measurements import black_box, general_purpose, ladder, variants, white_box
from artifact.measurements.measurement import stands
from artifact.profiles import SIZES

TRAINING = "02_training"
SECONDS_TO_START = 8  # a kernel and its imports
# Of one image each, as a profile's job_gradients: trainings wait for nothing and all else waits for them, so a kernel is worth it sooner.
TRAINING_GRADIENTS = 180_000
# The jobs that attack: their names, their notebooks, and the rooms that say which models and measurements these are about.
TABLES = (("white box", "03_white_box", white_box), ("black box", "04_black_box", black_box),
          ("general purpose", "05_general_purpose", general_purpose), ("cifar100", "06_cifar100", variants),
          ("verdict", "07_verdict", ladder))


@dataclass(frozen=True)
class Job:
    """One notebook run; `outputs` are what it is done by, the receipt first; `needs` are other jobs' receipts.

    `makes` are the receipts of the models or evaluations that its own receipt stands for, each with the seconds that it should take.
    """

    name: str
    notebook: str
    parameters: dict
    outputs: tuple[Path, ...]
    needs: tuple[Path, ...] = ()
    seconds: float = field(default=0, compare=False)  # estimate
    makes: dict[Path, float] = field(default_factory=dict, compare=False)
    profile: Profile | None = field(default=None, compare=False, repr=False)

    @property
    def receipt(self) -> Path:
        return self.outputs[0]

    def missing(self) -> list[Path]:
        """What is not there, or would be made otherwise now: of other weights, with a package that was missing.

        ValueError names a damaged receipt.
        """
        return [path for path in dict.fromkeys([*self.outputs, *self.makes]) if not self._there(path)]

    def _there(self, path: Path) -> bool:
        if path.suffix == ".html":
            return _drawn(path, self.receipt, self.profile)
        if path.suffix != ".json" or not path.exists():
            return path.exists()
        receipt = read_receipt(path)
        if receipt["kind"] == "notebook":  # its cells, or the evaluations that its claims are of, may have changed since
            results = receipt["results"]
            # a training's own notebook needs its weights, which may be gone: what it showed of them stays
            same = self.notebook == TRAINING or results.get("code") == notebook_code(self.notebook)
            return same and results.get("of") in (None, receipts.together(self.makes))
        return receipt["kind"] != "evaluation" or self.profile is None or stands(self.profile, receipt)

    def done(self) -> bool:
        return not self.missing()


def plan(profile: Profile) -> list[Job]:
    """All jobs of a profile, each after those that it needs, a model's evaluations as soon as what they need is trained."""
    jobs = [_job(profile, "theory", "01_theory", identity("theory"), seconds=40)]
    trained, trainings = _training_jobs(profile)
    jobs += trainings
    for name, notebook, room in TABLES:
        if models := room.models(profile):
            jobs += _table_jobs(profile, trained, name, notebook, models, room.measurements)
    made = [job.receipt for job in jobs]
    page = ROOT / "figures" / profile.name / "index.html"
    report = _job(profile, "report", "08_report", identity("report", of=[path.name for path in made]), needs=made, seconds=20)
    jobs.append(replace(report, outputs=(report.receipt, page)))
    # Every hour of a long record ends with numbers: a job's place is that of the last training that it needs.
    rank: dict[Path, int] = {}
    for number, job in enumerate(jobs):
        training = job.notebook == TRAINING
        rank[job.receipt] = number if training else max((rank[need] for need in job.needs), default=-1)
    return sorted(jobs, key=lambda job: rank[job.receipt])  # stable: among equals those that are needed come first


def page_mark(profile: Profile, report: Path) -> str:
    """What a page says of itself: the receipt of the report that drew it and the files beside it, what there was to draw then, and the
    settings that it was drawn by: titles, bands, the verdict's rules.
    """
    shown = profile.model_dump(mode="json", exclude={"source", "cluster", "device", "threads", "job_gradients"}, exclude_defaults=True)
    drawn = [path for job in plan(profile) for path in (*job.outputs, *job.makes) if path.suffix == ".json" and path != report]
    return identity("page", report=os.path.relpath(report, ROOT), profile=shown, receipts=receipts.together(drawn))


def _drawn(page: Path, report: Path, profile: Profile) -> bool:
    """Is the page this report's, with all files that the report names? There is one folder of figures, whatever was drawn there since."""
    if not (page.exists() and report.exists()):
        return page.exists()
    files = [file for item in read_receipt(report)["results"]["items"] for file in _files(item)]
    return page_mark(profile, report) in page.read_text(encoding="utf-8")[:2000] and all(file.exists() for file in files)


def _files(item: dict) -> list[Path]:
    """The files of an item in a report's receipt, where they are written as folder/{name, name}."""
    folder, brace, names = item["files"].partition("{")
    return [ROOT / folder / name for name in names.removesuffix("}").split(", ")] if brace else []


def drawn_files(profile: Profile) -> list[Path]:
    """The profile's page and the tables and figures on it; none where it shows other receipts, or none was drawn."""
    page = ROOT / "figures" / profile.name / "index.html"
    shown = page.read_text(encoding="utf-8") if page.exists() else ""
    if page_mark(profile, plan(profile)[-1].receipt) not in shown[:2000]:
        return []
    return [path for path in sorted(page.parent.iterdir()) if path == page or f'"{path.stem}.csv"' in shown]


@dataclass(frozen=True)
class Exhibit:
    """A drawn table or figure, as the last job's receipt names it."""

    name: str
    file: Path  # a figure's PNG, a table's CSV
    says: str
    category: str


def exhibits(profile: Profile) -> list[Exhibit]:
    """What the profile's last job drew; ValueError where that is not done, or a file is gone."""
    receipt = plan(profile)[-1].receipt
    if not receipt.exists():
        raise ValueError(f"profile {profile.name!r} is not finished, its tables and figures are not all drawn; "
                         f"make them with: make reproduce PROFILE={profile.argument}")
    drawn = []
    for item in read_receipt(receipt)["results"]["items"]:
        files = _files(item)
        for file in [file for file in files if file.suffix == (".png" if any(f.suffix == ".png" for f in files) else ".csv")]:
            if not file.exists():
                raise ValueError(f"{os.path.relpath(file, ROOT)} is missing; draw it with: make figures PROFILE={profile.argument}")
            paper = re.match(r"(Table|Figure) \d", item["name"])
            category = "Beyond the paper" if paper is None else f"{paper[1]}s of the paper"
            drawn.append(Exhibit(item["name"], file, item["says"], category))
    return drawn


def to_do(planned: list[Job]) -> list[Job]:
    """The jobs that are not done, and those that need one of them, their `seconds` those of what is left; ValueError that names a
    damaged receipt."""
    waiting, todo = set(), []
    for job in planned:
        missing = job.missing()
        if missing or waiting.intersection(job.needs):
            waiting.add(job.receipt)
            todo.append(shortened(job, missing))
    return todo


def shortened(job: Job, missing: list[Path]) -> Job:
    """The job, its `seconds` without those of what is made: it is looked up."""
    return replace(job, seconds=job.seconds - sum(job.makes[path] for path in job.makes if path not in missing))


def made(profile: Profile) -> list[Path]:
    """The receipts of the profile's models and evaluations that are there; a folder may hold others, of earlier settings."""
    return [path for path in dict.fromkeys(path for job in plan(profile) for path in job.makes) if path.exists()]


def brief(name: str) -> str:
    """A job's name on a line of the terminal or a log: `train sce +29` where it has thirty models."""
    first, *more = name.split(", ")
    return f"{first} +{len(more)}" if more else first


def rule_name(job: Job) -> str:
    """The job's name in the Snakefile."""
    return job.receipt.stem.replace("-", "_")


def _job(profile, name, notebook, key, *, needs=(), seconds=0.0, makes=None, **parameters) -> Job:
    receipt = results_folder(profile) / "notebooks" / f"{notebook}-{key}.json"
    parameters = {"profile": profile.source, "output": str(receipt), **parameters}
    return Job(name, notebook, parameters, (receipt,), tuple(needs), SECONDS_TO_START + seconds, makes or {}, profile)


def _training_jobs(profile) -> tuple[dict[str, Path], list[Job]]:
    # One job a model; where training takes seconds, several models share a kernel, whose start would cost more than their work.
    work = {model: _training_gradients(profile, model) for model in profile.models}
    groups = _shares(work, TRAINING_GRADIENTS) if profile.train_on_the_spot else [[model] for model in work]
    trained, jobs = {}, []
    for first, *also in groups:
        group = [first, *also]
        # The notebook's own receipt, with its claims; what needs a model trained alone waits for the model's, as it ever did.
        of = [model_identity(profile, model) for model in group]
        output = results_folder(profile) / "notebooks" / f"02_training-{identity('trainings', of=of) if also else of[0]}.json"
        receipt = output if also else model_receipt_path(profile, first)
        parameters = {"profile": profile.source, "model": first, "also": also, "output": str(output)}
        outputs = (receipt,) if also else (receipt, output)
        makes = {model_receipt_path(profile, model): work[model] / _rate(profile, model) for model in group}
        seconds = SECONDS_TO_START + sum(makes.values())
        jobs.append(Job(f"train {', '.join(group)}", TRAINING, parameters, outputs, (), seconds, makes, profile))
        trained |= dict.fromkeys(group, receipt)
    return trained, jobs


def _table_jobs(profile, trained, name, notebook, models, evaluations) -> list[Job]:
    # Shards of one or more models, each worth its kernel's start, and the same notebook once more over all models: it finds every
    # evaluation made and draws.
    specs = {model: evaluations(profile, model) for model in models}
    shards = []
    for group in _shares({model: sum(spec.gradients() for spec in specs[model]) for model in models}, profile.job_gradients):
        mine = [spec for model in group for spec in specs[model]]
        key = identity(name, of=[spec.identity(profile) for spec in mine])
        used = dict.fromkeys(model for spec in mine for model in spec.models())
        makes = {spec.path(profile): spec.gradients() / _rate(profile, spec.model) for spec in mine}
        shards.append(_job(profile, f"{name}: {', '.join(group)}", notebook, key, needs=dict.fromkeys(trained[model] for model in used),
                           seconds=sum(makes.values()), makes=makes, methods=group))
    if len(shards) == 1:  # nothing to gather
        return [replace(shards[0], name=name)]
    key = identity(name, of=[shard.receipt.name for shard in shards])
    makes = {path: 0.0 for shard in shards for path in shard.makes}  # found, not made
    return [*shards, _job(profile, name, notebook, key, needs=[shard.receipt for shard in shards], makes=makes, methods=list(models))]


def _shares(work: dict[str, float], least: float) -> list[list[str]]:
    """The models in their order, cut into groups of about equal work, none much below `least`."""
    share = sum(work.values()) / max(1, round(sum(work.values()) / least))
    groups, filled = [[]], 0.0
    for model, gradients in work.items():
        if groups[-1] and filled + gradients / 2 > share * len(groups):  # most of it lies beyond this group's end
            groups.append([])
        groups[-1].append(model)
        filled += gradients
    return groups


def _rate(profile: Profile, model: str) -> float:
    return profile.network(model).rate


def _training_gradients(profile: Profile, model: str) -> float:
    network = profile.network(model)
    images = network.train_images or SIZES[network.dataset]["train"]
    passes = 1 + (network.steps if profile.models[model].adversarial else 0)
    return images * network.epochs * passes


def find(profile: Profile, name: str) -> Job:
    jobs = {job.name: job for job in plan(profile)}
    if name not in jobs:
        raise ValueError(f"profile {profile.name!r} has no job {name!r}; it has: {listed(jobs.values())}")
    return jobs[name]


def listed(jobs) -> str:
    """The names of jobs in one line; names hold commas themselves."""
    return "; ".join(job.name for job in jobs)
