"""The kernel that a job's notebook runs in: the very interpreter that runs the job, and no longer than the job."""

import atexit
import glob
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from artifact.processes import end_with_parent, lives


def manager():
    """The class of a kernel manager for this interpreter, whatever kernels named python3 the machine has."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            sweep()
            self.connection_file = f"{_start()}{os.getpid()}.json"

        @property
        def kernel_spec(self):
            return KernelSpec(argv=[sys.executable, "-m", "artifact.kernel", "-f", "{connection_file}"], display_name="Python 3",
                              language="python")

    return ThisInterpreter


def sweep() -> None:
    """Remove the connection files of jobs that were killed."""
    start = _start()
    for name in glob.glob(f"{glob.escape(start)}*.json"):
        if not lives(int(name.removeprefix(start).removesuffix(".json"))):
            Path(name).unlink(missing_ok=True)


def _start() -> str:
    return os.path.join(tempfile.gettempdir(), f"mmc-kernel-{os.getuid()}-")


def _leave() -> None:
    with suppress(OSError, ValueError):
        for stream in (sys.__stdout__, sys.__stderr__):
            stream.flush()
    os._exit(int(hasattr(sys, "last_value")))  # which an error sets


if __name__ == "__main__":
    end_with_parent()
    # Called after all that the kernel and the notebook register, for it is there before them: to take down torch would keep each job
    # waiting for a second.
    atexit.register(_leave)
    from ipykernel import kernelapp
    kernelapp.launch_new_instance()
