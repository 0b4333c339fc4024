"""The kernel that a job's notebook runs in: the very interpreter that runs the job, and no longer than the job."""

import os
import sys
import tempfile
from pathlib import Path

from artifact.processes import end_with_parent, lives


def manager():
    """The class of a kernel manager for this interpreter, whatever kernels named python3 the machine has."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.connection_file = str(connection_file())

        @property
        def kernel_spec(self):
            return KernelSpec(argv=[sys.executable, "-m", "artifact.kernel", "-f", "{connection_file}"], display_name="Python 3",
                              language="python")

    return ThisInterpreter


def connection_file() -> Path:
    """Where this job's kernel finds its sockets; the files of jobs that were killed are removed."""
    folder, start = Path(tempfile.gettempdir()), f"mmc-kernel-{os.getuid()}-"
    for path in folder.glob(f"{start}*.json"):
        if not lives(int(path.stem.removeprefix(start))):
            path.unlink(missing_ok=True)
    return folder / f"{start}{os.getpid()}.json"


if __name__ == "__main__":
    end_with_parent()
    from ipykernel import kernelapp
    kernelapp.launch_new_instance()
