"""A lock by which two processes do not make the same thing."""

import fcntl
import glob
import os
import platform
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(path: Path):
    """Within, this process alone makes the file; another that misses it waits, and finds it. The lock dies with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.stem}.lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            print(f"waiting for process {file.read().strip() or '(unknown)'}, which makes {path.name}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a network's disk without a service for locks
            raise OSError(f"{path.parent} lies on a disk that grants no locks ({error.strerror}), by which two processes do not make the "
                          "same thing; let MMC_RESULTS and MMC_CHECKPOINTS name folders on another disk") from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        for half_written in path.parent.glob(f".{glob.escape(path.stem)}.*.[0-9]*"):  # by a process that was killed: this one has the lock
            half_written.unlink(missing_ok=True)
        yield
