"""What must be there before the first job starts: the device, room on the disks, the data sets. What is not is a sentence with its remedy.

A profile that is not valid was refused when it was loaded (artifact.loading). Torch is loaded only where something needs it.
"""

import os
import shutil
import socket

from artifact import jobs
from artifact.experiment import ROOT, Profile, checkpoint_folder, model_receipt_path, results_folder
from artifact.profiles import STAND_INS

# Some of these is there where torch finds a device, as a rule: NVIDIA's driver, on a Jetson, in WSL, and AMD's.
DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg", "/dev/kfd")
DRAWING = ("01_theory", "08_report")  # need neither device nor data
MIB = 2**20
# A trained network's MiB on disk; a training under way keeps two states of weights, momentum, average and the guard's copy.
NETWORK_MIB = {"small_convnet": 0.5, "resnet": 1.5, "airbench": 8.0}
BLOCK_MIB = 1.1  # a further block in each of a resnet's stages
STATES = 8
JOB_MIB = 4  # an executed notebook, receipts, figures
FETCH_SECONDS = 30.0  # for an answer, before a data set's address is given up


def may_have_a_device() -> bool:
    """Is there a driver? For a remark alone: torch takes seconds to load, and some drivers are loaded by whoever asks first."""
    return any(map(os.path.exists, DRIVERS))


def cuda_device() -> str | None:
    """The name of this machine's CUDA device, None where it has none."""
    import torch
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def check(profile: Profile, todo: list[jobs.Job], *, parallel: int = 1, device: bool = True) -> None:
    """Raise ValueError with one sentence for each thing that the jobs need and that is not there; fetch data sets that are missing.

    `device` is False where the jobs run on other machines than this one. Data sets are looked at last: their checksums take seconds.
    """
    faults = (device_faults(profile, todo) if device else []) + checkpoint_faults(profile, todo) + disk_faults(profile, todo, parallel)
    missing, damaged = data_faults(data_sets(profile, todo)) if not faults else ([], [])
    if faults or damaged:
        raise ValueError("\n".join(faults + damaged))
    fetch(missing)


def device_faults(profile: Profile, todo: list[jobs.Job]) -> list[str]:
    """Is there the device that the profile computes on?"""
    if profile.device != "cuda" or all(job.notebook in DRAWING for job in todo) or cuda_device() is not None:
        return []
    return [f"profile {profile.name!r} needs a CUDA device and this machine has none; PROFILE=demo runs anywhere"]


def checkpoint_faults(profile: Profile, todo: list[jobs.Job]) -> list[str]:
    """Are the weights there of the trained models that the jobs attack, or released, so that they are made again of that?"""
    attacked = dict.fromkeys(path.parent.name for job in todo for path in job.missing()
                             if path in job.makes and path.parent.parent.name == "evaluations")
    faults = []
    for model in attacked:
        receipt, file = model_receipt_path(profile, model), checkpoint_folder(profile, model) / "model.safetensors"
        if receipt.exists() and not file.exists() and not (ROOT / "released" / f"{profile.name}-{model}.safetensors").exists():
            faults.append(f"the weights of {model!r} are needed for further evaluations and are not there ({file}); bring them "
                          f"(MMC_CHECKPOINTS names their folder), or delete {receipt} and the model is trained again")
    return faults


def disk_faults(profile: Profile, todo: list[jobs.Job], parallel: int = 1) -> list[str]:
    """Can results, checkpoints and logs be written, and is there room for them?"""
    faults, needs = [], {}
    trained = {model: _network_mib(profile, model) for job in todo for model in _trains(job)}
    folders = [("MMC_RESULTS", results_folder(profile), len(todo) * JOB_MIB),
               *(("", ROOT / name / profile.name, len(todo) * JOB_MIB) for name in ("logs", "figures"))]
    if trained:
        at_work = parallel * STATES * max(trained.values())
        folders.append(("MMC_CHECKPOINTS", checkpoint_folder(profile, next(iter(trained))), sum(trained.values()) + at_work))
    for variable, folder, mib in folders:
        there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        remedy = f"let {variable} name a folder that can" if variable else "clone the repository into a folder of your own"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            faults.append(f"{folder} cannot be written to, because of {there}; {remedy}")
        else:
            needs.setdefault(there.stat().st_dev, []).append((there, mib))
    for uses in needs.values():
        free, needed = shutil.disk_usage(uses[0][0]).free / MIB, sum(mib for _, mib in uses)
        if free < needed:
            faults.append(f"{free:.0f} MiB are free where {uses[0][0]} lies, and the {len(todo)} jobs to do write about {needed:.0f} MiB; "
                          "free some, or let MMC_RESULTS and MMC_CHECKPOINTS name folders on another disk")
    return faults


def _network_mib(profile: Profile, model: str) -> float:
    network = profile.network(model)
    return NETWORK_MIB[network.architecture] + (BLOCK_MIB * network.blocks if network.architecture == "resnet" else 0)


def _trains(job: jobs.Job) -> list[str]:
    return [job.parameters["model"], *job.parameters["also"]] if job.notebook == jobs.TRAINING else []


def data_sets(profile: Profile, todo: list[jobs.Job]) -> list[str]:
    """The data sets, but for those that come with scikit-learn, of the models that the jobs train or attack."""
    by_receipt = {job.receipt: job for job in jobs.plan(profile)}
    waiting, seen, found = [job for job in todo if job.notebook not in DRAWING], set(), {}
    while waiting:
        job = waiting.pop()
        if job.receipt in seen:
            continue
        seen.add(job.receipt)
        found |= dict.fromkeys(profile.dataset(model) for model in _trains(job))
        waiting += [by_receipt[need] for need in job.needs]
    return sorted(found.keys() - set(STAND_INS))


def data_faults(names: list[str]) -> tuple[list[str], list[str]]:
    """The names of the data sets that are missing, and a sentence for each that is damaged."""
    missing, damaged = [], []
    if not names:
        return missing, damaged
    from mmclib import data
    for name in names:
        try:
            data.load(name, "test")
        except FileNotFoundError:
            missing.append(name)
        except ValueError as error:
            damaged.append(str(error))
    return missing, damaged


def fetch(names: list[str]) -> None:
    """Download data sets, saying so; OSError that says how to do without where one cannot be had."""
    if not names:
        return
    from mmclib import data
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_SECONDS)
    try:
        for name in names:
            print(f"{name} is missing: fetching it through torchvision, as `python -m artifact download {name}` does", flush=True)
            print(f"{name}: {data.download(name)}", flush=True)
    finally:
        socket.setdefaulttimeout(before)
