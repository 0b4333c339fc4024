"""Files that are there whole, or as they were before."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that it is there whole or as it was before; if `durable`, in a folder that is made where there is none, and also
    after a power cut."""
    if durable:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if not durable or os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(path.parent, os.O_RDONLY)  # the rename itself reaches the disk with its folder
    try:
        with suppress(OSError):  # some disks do so by themselves, and refuse to be asked
            os.fsync(handle)
    finally:
        os.close(handle)
