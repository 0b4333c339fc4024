"""What this machine, or the container on it, has for jobs: cores, memory, and how many of them it runs at the same time."""

import os
import sys
from pathlib import Path

from artifact.profiles import Profile

CONTAINER = Path("/sys/fs/cgroup")
JOB_MEMORY = 1.7e9  # bytes: the most that a job of profile cpu was seen to take, its kernel included


def workers(profile: Profile) -> int:
    """Jobs to run at the same time on this machine: as many as a profile's threads and the memory leave room for, or one for each GPU."""
    if profile.device == "cuda":
        import torch
        return max(1, torch.cuda.device_count())
    return max(1, min(cores() // profile.threads, processes()))


def processes() -> int:
    """Processes that compute or draw, to run at the same time: as many as there are cores, and as the memory holds."""
    return max(1, min(cores(), int(memory() / JOB_MEMORY)))


def cores() -> int:
    """Processor cores that this process may use, of a container no more than its quota."""
    here = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, period = _limit("cpu.max", 2)
    return max(1, min(here, round(quota / period)) if quota else here)


def memory() -> float:
    """Bytes of memory that this process may use, of a container no more than its limit."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (limit,) = _limit("memory.max", 1)
    return min(here, limit or here)


def _limit(name: str, count: int) -> list[float]:
    """The numbers in a file of the container's own limits (cgroup v2), zeros where there is none."""
    try:
        found = [float(word) for word in (CONTAINER / name).read_text().split()]
    except (OSError, ValueError):  # none, or "max"
        return [0.0] * count
    return found if len(found) == count else [0.0] * count
