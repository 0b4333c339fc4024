"""What a number was made with: this process's settings that results depend on, the code's commit, the machine."""

import platform
import subprocess
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from artifact.experiment import ROOT, Profile
from mmclib.training.memory import keep_freed_memory


def start(profile: Profile) -> None:
    """Set what results depend on, to the bit, on this machine: the number of threads, and how float32 is multiplied."""
    torch.set_num_threads(profile.threads)
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 on CUDA too, where convolutions would round to TF32
    _commit()  # of the code that runs, whatever is checked out when it ends
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"profile {profile.name!r} needs a CUDA device and this machine has none; PROFILE=demo runs anywhere")


def provenance(profile: Profile, seconds: float) -> dict:
    """When, where and with what a number was made; nothing in here takes part in an identity or a comparison."""
    device = torch.cuda.get_device_name() if profile.device == "cuda" else _processor()
    return {
        "seconds": round(seconds, 2), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_commit(), "device": device, "threads": torch.get_num_threads(), "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
    }


@cache
def _commit() -> dict:
    # Where there is no git, or the checkout is another user's, or a part of somebody else's repository, the commit is not known.
    def git(*arguments):
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    ours = top is not None and Path(top).resolve() == ROOT
    changes = git("status", "--porcelain", "--", "mmclib", "artifact", "profiles") if ours else None
    return {"commit": git("rev-parse", "HEAD") if ours else None, "uncommitted_changes": None if changes is None else bool(changes)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
