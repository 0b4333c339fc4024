"""Where jobs run: what one asks a cluster for, Snakemake's options for SLURM, and this machine's GPUs, each lent to one job at a time."""

import fcntl
import math
import os
import re
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from artifact.experiment import ROOT, Profile, results_folder
from artifact.jobs import Job
from mmclib.installing import installing

EXECUTORS = ("local", "slurm")
LEAST_MINUTES = 30
SLURM_JOBS = 100  # submitted at the same time, where nobody says otherwise
STATUS_SECONDS = 10  # between two questions to SLURM; the plugin itself asks less often while nothing ends


def resources(profile: Profile, job: Job) -> dict[str, int | str]:
    """What one job asks for, by Snakemake's names: gpu, mem_mb, runtime (minutes), and the partition and account that its profile names."""
    minutes = max(LEAST_MINUTES, math.ceil(3 * job.seconds / 60))
    asked = {
        "gpu": int(profile.device == "cuda"),
        "mem_mb": math.ceil(1024 * profile.cluster.memory_gb),
        "runtime": max(1, min(minutes, math.floor(60 * profile.cluster.hours))),
    }
    named = {"slurm_partition": profile.cluster.partition, "slurm_account": profile.cluster.account}
    return asked | {name: value for name, value in named.items() if value is not None}


def options(executor: str, profile: Profile, parallel: int) -> list[str]:
    """Snakemake's arguments for running `parallel` jobs at the same time here or on SLURM."""
    if executor == "local":
        here = max(1, len(gpus())) if profile.device == "cuda" else 0
        return ["--cores", str(parallel * profile.threads), "--resources", f"gpu={here}", "--quiet", "all"]
    # SLURM itself submits again what it preempted or lost with a node (requeue), Snakemake what failed or ran out of time (retries).
    return ["--executor", "slurm", "--jobs", str(parallel), "--retries", str(profile.cluster.retries), "--latency-wait", "60",
            "--slurm-requeue", "--slurm-pass-command-as-script", "--slurm-logdir", str(ROOT / "logs" / profile.name / "slurm"),
            "--slurm-init-seconds-before-status-checks", str(STATUS_SECONDS),
            "--slurm-status-command", "sacct" if _has_accounting() else "squeue",
            "--quiet", "rules", "host", "reason"]


def require_slurm(profile: Profile) -> None:
    """ValueError where this profile's jobs cannot be submitted to SLURM from here."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError("EXECUTOR=slurm needs Snakemake's plugin; "
                         f"install it with: {installing('snakemake-executor-plugin-slurm>=2.8')}")
    if absent := [name for name in ("sbatch", "squeue", "scontrol", "sinfo") if shutil.which(name) is None]:
        raise ValueError(f"EXECUTOR=slurm needs {', '.join(absent)}, not found here; run it where jobs are submitted, on a login node")
    if not _says("sinfo", "--noheader"):
        raise ValueError("EXECUTOR=slurm: SLURM's controller does not answer (sinfo says nothing)")
    # Snakemake writes paths into the nodes' command lines without quoting them as a shell needs it: what is in a name could be run.
    for path in (profile.source, str(ROOT), str(results_folder(profile))):
        if odd := re.search(r"[^\w ./+@=~,-]", path):
            raise ValueError(f"EXECUTOR=slurm takes letters, digits, spaces and ./+@=~,- in paths; {path!r} holds {odd[0]!r}: rename it")


def _has_accounting() -> bool:
    # Without slurmdbd sacct fails each time it is asked, and the plugin would wait for ever.
    return shutil.which("sacct") is not None and _says("sacct", "--noheader", "--allocations") is not None


def _says(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch
    return [str(number) for number in range(torch.cuda.device_count())]


def name_gpus() -> None:
    """Name this machine's GPUs for the jobs that are started from here, so that each can take one without loading PyTorch."""
    if found := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(found)


def take_gpu() -> TextIO | None:
    """Take one of the GPUs that the environment names, wait where all are taken, and show this process no other.

    Returns the open file that holds it: it is free again when that is closed, or when this process is gone, however it ended. Where
    there is no choice by name, or SLURM gave this job one, nothing is taken and None returned.
    """
    names = gpus() if "CUDA_VISIBLE_DEVICES" in os.environ else []
    if not names or ("SLURM_JOB_ID" in os.environ and len(names) == 1):
        return None
    folder = Path(tempfile.gettempdir()) / f"mmc-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for name in names:
            file = open(folder / f"{name.replace('/', '-')}.lock", "w", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return file
        time.sleep(0.5)
