"""What the jobs of one command are doing, in whatever process: a small file each, in a folder that the command in front made and reads.

The folder is new for every command and its jobs know it from MMC_STATUS, so no file of an earlier run can be met; of a job that was killed
the process is gone, and its file is not believed. Nothing here can end a job: what cannot be written is not shown.
"""

import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from artifact import processes
from mmclib.files import write_whole

FOLDER = "MMC_STATUS"
TRAINING = "MMC_PROGRESS"  # the file that mmclib.training writes to
LIVING = "living"  # a file that is there where the command in front shows a living line: start lines would repeat it


@dataclass(frozen=True)
class Doing:
    """A job under way: for how many seconds, and how its training goes where it is one (epoch, epochs, loss, seconds left)."""

    name: str
    seconds: float
    training: dict | None = None


def folder() -> Path | None:
    """The folder of the command in front; None where there is no such command on this machine."""
    return Path(named) if (named := os.environ.get(FOLDER)) and os.path.isdir(named) else None


def living() -> bool:
    """Does the command in front show a living line?"""
    return (where := folder()) is not None and (where / LIVING).exists()


@contextmanager
def working(name: str, stem: str):
    """Within, a job of this name is under way; how its training goes is written beside it. Yields a function that says it is done."""
    where = folder()
    if where is None:
        yield lambda seconds: ""
        return
    mine, training, before = where / f"{stem}.job", where / f"{stem}.training", os.environ.get(TRAINING)

    def done(seconds: float) -> str:
        _write(mine, {"name": name, "done": seconds})
        command = _read(where / "command")
        return f" ({command['done'] + len(read(where)[0])} of {command['total']} done)" if command else ""

    _remove(training)
    os.environ[TRAINING] = str(training)
    _write(mine, {"name": name, "process": os.getpid(), "began": time.time()})
    try:
        yield done
    except BaseException:
        _remove(mine)
        raise
    finally:
        os.environ.pop(TRAINING)
        if before is not None:
            os.environ[TRAINING] = before


def begin(where: Path, *, total: int, done: int, living: bool) -> None:
    """What the command in front says to its jobs: how many there are, how many were done before it, and whether it shows a line."""
    _write(where / "command", {"total": total, "done": done})
    if living:
        _write(where / LIVING, {})


def read(where: Path) -> tuple[dict[str, float], list[Doing]]:
    """The seconds of each job that is done, by its name, and the jobs under way, the longest first."""
    ended, under_way, now = {}, [], time.time()
    for path in sorted(where.glob("*.job")):
        job = _read(path)
        if "done" in job:
            ended[job["name"]] = job["done"]
        elif "process" in job and processes.lives(job["process"]):
            training = _read(path.with_suffix(".training"))
            if training:
                training["left"] = max(0.0, training["left"] - max(0.0, now - training["time"]))
            under_way.append(Doing(job["name"], max(0.0, now - job["began"]), training or None))
    return ended, sorted(under_way, key=lambda doing: -doing.seconds)


def _write(path: Path, content: dict) -> None:
    with suppress(OSError):
        write_whole(path, json.dumps(content).encode(), durable=False)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
